"""Consumers of the data plane in a process of their own; the last line is what they cost.

Each has a connection of its own, as a worker has. "ours" goes through RunQueues; "raw" moves the
same bytes through the same streams by redis-py alone, in pipelines: no ledger, no leases, and what
a crash leaves half done is done twice or lost.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bench.payloads import Payloads, payloads
from services.queues.items import StreamName
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings

AT_ONCE = 16
"""Items that a consumer takes at most."""
SETTINGS = QueueSettings(credits=1 << 20, connect_timeout_s=60.0)
GROUP = "workers"
_BLOCK_S = 0.5


@dataclass
class Working:
    """The consumers of this process."""

    connected: int = 0
    over: bool = False


async def consume(
    url: str, run: str, stream: StreamName, name: str, given: Payloads, state: Working
) -> None:
    """Through the queues, until it is over."""
    queues = await RunQueues.open(url, run, SETTINGS)
    state.connected += 1
    try:
        while not state.over:
            items = await queues.take(stream, name, AT_ONCE, _BLOCK_S)
            if stream == "prompts":
                commits = [queues.commit_rollout(item, given.rollout) for item in items]
            else:
                commits = [queues.commit_pair(item, given.pair) for item in items]
            await asyncio.gather(*commits)
    finally:
        await queues.close()


async def consume_raw(
    url: str, run: str, stream: StreamName, name: str, given: Payloads, state: Working
) -> None:
    """By redis-py, until it is over: what was taken is moved on in one pipeline."""
    taken_from, goes_to = raw_streams(run, stream)
    to_pairs = stream == "rollouts"
    payload = (given.pair if to_pairs else given.rollout).SerializeToString()
    async with Redis.from_url(url, protocol=2) as client:
        await make_group(client, taken_from)
        state.connected += 1
        while not state.over:
            reply = await client.xreadgroup(
                GROUP, name, {taken_from: ">"}, count=AT_ONCE, block=int(_BLOCK_S * 1000)
            )
            entries = reply[0][1] if reply else []
            if not entries:
                continue
            ids = [entry for entry, _ in entries]
            async with client.pipeline(transaction=False) as pipe:
                for _, fields in entries:
                    pipe.xadd(goes_to, {**fields, b"payload": payload})
                pipe.xack(taken_from, GROUP, *ids)
                pipe.xdel(taken_from, *ids)
                await pipe.execute()


def raw_streams(run: str, stream: StreamName) -> tuple[str, str]:
    """Where a consumer takes from, and where it puts what it made."""
    after = {"prompts": "rollouts", "rollouts": "pairs"}[stream]
    return f"raw:{{{run}}}:{stream}", f"raw:{{{run}}}:{after}"


async def make_group(client: "Redis", stream: str) -> None:
    """Unless it is there."""
    try:
        await client.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if not str(error).startswith("BUSYGROUP"):
            raise


async def work(options: argparse.Namespace) -> None:
    """Every consumer at once, until a line comes on standard input."""
    given, state = payloads(options.samples, options.tokens), Working()
    one = consume if options.arm == "ours" else consume_raw
    tasks = [
        asyncio.create_task(
            one(options.url, options.run, stream, f"{stream}-{number}", given, state)
        )
        for stream, number in named(options.consumers)
    ]
    while state.connected < len(tasks) and not any(task.done() for task in tasks):
        await asyncio.sleep(0.01)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    began = time.process_time()
    stop = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    ended, _ = await asyncio.wait({stop, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    cpu = time.process_time() - began
    state.over = True  # not by cancellation: redis-py may lose one
    for task in ended:
        task.result()
    await asyncio.gather(*tasks)
    sys.stdout.write(json.dumps({"cpu_seconds": cpu}) + "\n")


def named(words: Sequence[str]) -> list[tuple[StreamName, int]]:
    """Of "prompts:3": its stream and its number."""
    pairs = [word.split(":") for word in words]
    return [("prompts" if stream == "prompts" else "rollouts", int(n)) for stream, n in pairs]


def main() -> None:
    """Work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("arm", choices=("ours", "raw"))
    parser.add_argument("run")
    parser.add_argument("consumers", nargs="+", help="such as prompts:0 rollouts:0")
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    options = parser.parse_args()
    options.url = os.environ["BENCH_REDIS"]  # it holds a password
    asyncio.run(work(options))


if __name__ == "__main__":
    main()
