"""The data plane against raw redis-py pipelines that move the same bytes.

    .venv/bin/python bench/data_plane.py [--widths 1 4 16 64 256] [--prompts 2048] [--repeats 5]
        [--samples 8] [--tokens 256]

Prompts go through an embedded Redis, its append-only file on: dispatch, rollout, pair, trained.
W consumers take prompts and W take rollouts, in up to four processes, each with its own connection;
what they commit is made beforehand. "ours" goes through RunQueues (ledger, leases, exactly once),
"raw" is XREADGROUP, then XADD, XACK and XDEL in one pipeline for what was taken. Both take up to 16
items at once, and have at most 512 prompts in flight. Each measurement has a fresh server, the
arms take turns. The last line is one JSON object; "ratio" is the raw seconds over ours.
"""

import argparse
import asyncio
import time
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from bench import measure
from bench.consumers import Arm, Counted, consumers, fresh_redis
from bench.data_plane_child import SETTINGS, make_group, raw_streams
from bench.payloads import Payloads, payloads
from orchestrator.episodes import EpisodeStore
from services.queues.queues import RunQueues
from services.states import State

IN_FLIGHT = 512
_LOOK_S = 0.005
_RUN = "bench"


@dataclass(frozen=True)
class Case:
    """What is moved."""

    width: int
    prompts: int
    samples: int
    tokens: int


async def ours(url: str, case: Case, given: Payloads) -> None:
    """As the loop and the learner do it."""
    store = await EpisodeStore.open(url, _RUN, 5.0)
    queues = await RunQueues.open(url, _RUN, SETTINGS)
    await store.create(1, case.prompts)
    await store.move(1, State.SAMPLING)
    prompts = given.prompts(_RUN, 1, case.prompts)
    sent = 0
    while (count := await queues.counters(1))["paired"] < case.prompts:
        if room := IN_FLIGHT - count["in_flight"]:
            sent += (await queues.dispatch(1, prompts[sent : sent + room])).sent
        await asyncio.sleep(_LOOK_S)
    ids = [pair.prompt.id for pair in await queues.pairs(1)]
    if len(ids) != case.prompts:
        raise SystemExit(f"{len(ids)} pairs of {case.prompts} prompts")
    await queues.commit_trained(1, 1, [prompt.id for prompt in prompts], {})
    await queues.close()
    await store.close()


async def raw(url: str, case: Case, given: Payloads) -> None:
    """By redis-py alone."""
    first, _ = raw_streams(_RUN, "prompts")
    _, last = raw_streams(_RUN, "rollouts")
    sent = 0
    prompts = given.prompts(_RUN, 1, case.prompts)
    async with Redis.from_url(url, protocol=2) as client:
        while (done := await client.xlen(last)) < case.prompts:
            if room := IN_FLIGHT - (sent - done):
                async with client.pipeline(transaction=False) as pipe:
                    for prompt in prompts[sent : sent + room]:
                        payload = prompt.SerializeToString()
                        pipe.xadd(first, {"id": prompt.id, "episode": 1, "payload": payload})
                    await pipe.execute()
                sent = min(sent + room, case.prompts)
            await asyncio.sleep(_LOOK_S)
        after = "-"
        while page := await client.xrange(last, min=after, count=64):
            after = f"({page[-1][0].decode()}"
        await client.unlink(last)


def measured(arm: Arm, case: Case) -> measure.Outcome:
    """One arm, once, on a server of its own."""
    given = payloads(case.samples, case.tokens)
    with fresh_redis() as url:
        asyncio.run(_groups(url, arm))
        with consumers(arm, url, _RUN, case.width, case.samples, case.tokens) as working:
            before, cpu = Counted.of(url), time.process_time()
            began = time.perf_counter()
            asyncio.run((ours if arm == "ours" else raw)(url, case, given))
            seconds = time.perf_counter() - began
            cpu = time.process_time() - cpu
            after = Counted.of(url)
            cpu += working.stop()
    return measure.Outcome(_figures(case, seconds, cpu, before, after), 0, seconds)


def _figures(
    case: Case, seconds: float, cpu: float, before: Counted, after: Counted
) -> dict[str, float]:
    each = 1 / case.prompts
    return {
        "seconds": seconds,
        "prompts_per_second": case.prompts / seconds,
        "scripts_per_prompt": (after.scripts - before.scripts) * each,
        "commands_per_prompt": (after.commands - before.commands) * each,
        "bytes_per_prompt": (after.received + after.sent - before.received - before.sent) * each,
        "redis_cpu_ms_per_prompt": 1000 * (after.cpu_seconds - before.cpu_seconds) * each,
        "client_cpu_ms_per_prompt": 1000 * cpu * each,
    }


async def _groups(url: str, arm: Arm) -> None:
    """Before anybody takes: both arms begin with streams and groups that are there."""
    if arm == "ours":
        await (await RunQueues.open(url, _RUN, SETTINGS)).close()
        return
    async with Redis.from_url(url, protocol=2) as client:
        for stream in ("prompts", "rollouts"):
            await make_group(client, raw_streams(_RUN, stream)[0])


def compared(case: Case, repeats: int) -> dict[str, Any]:
    """Both arms, in turn."""
    found = measure.alternate(
        {"ours": lambda _: measured("ours", case), "raw": lambda _: measured("raw", case)}, repeats
    )
    took = {arm: [outcome.seconds for outcome in outcomes] for arm, outcomes in found.items()}
    return {
        "width": case.width,
        "ratio": measure.ratios(took["raw"], took["ours"]),
        **{
            arm: {
                name: measure.spread([outcome.result[name] for outcome in outcomes])
                for name in outcomes[0].result
            }
            for arm, outcomes in found.items()
        },
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=(1, 4, 16, 64, 256))
    parser.add_argument("--prompts", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8, help="of a group")
    parser.add_argument("--tokens", type=int, default=256, help="of a sample")
    options = parser.parse_args()
    cases, rows = [], []
    for width in options.widths:
        measure.say(f"{width}+{width} consumers")
        case = Case(width, options.prompts, options.samples, options.tokens)
        cases.append(found := compared(case, options.repeats))
        for arm in ("ours", "raw"):
            rows.append([f"{width}+{width} {arm}", *found[arm].values(), found["ratio"]])
    head = ["consumers", *cases[0]["ours"], "ratio"]
    sizes = {"prompts": options.prompts, "in_flight": IN_FLIGHT}
    given = payloads(options.samples, options.tokens)
    sizes |= {
        "prompt_bytes": given.prompt.ByteSize(),
        "rollout_bytes": given.rollout.ByteSize(),
        "pair_bytes": given.pair.ByteSize(),
    }
    measure.finish(measure.table(head, rows), {**sizes, "cases": cases})


if __name__ == "__main__":
    main()
