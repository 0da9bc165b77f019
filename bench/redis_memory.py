"""What Redis holds of an episode in flight, held against the bound that a dry run states.

    PYTHONPATH=. .venv/bin/python bench/redis_memory.py [--groups 512] [--samples 16]
        [--tokens 32768] [--inline-groups 32]

Three episodes, each on a server of its own, whose prompts are all dispatched, then all sampled,
then all paired, so that every one is in flight at once; then read, trained and forgotten:

    outside    payloads in files beside Redis, as by default
    at limit   every payload as large as one may be that lies in Redis (queues.inline_bytes)
    inline     payloads in Redis (queues.payloads: redis), fewer groups

The figure is the server's own peak of used_memory. No engine, reward or learner runs: answers are
random tokens with their log-probabilities and 4 characters of text each.

The last line is one JSON object.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from redis.asyncio import Redis

from bench import measure
from orchestrator.episodes import EpisodeStore, State
from pairloop.data.v1.pair_pb2 import PreferencePair
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout, Sample
from services.queues.embedded import EmbeddedRedis
from services.queues.memory import redis_bytes
from services.queues.payload_folder import PayloadFolder
from services.queues.queues import RunQueues
from services.queues.settings import EpisodeSettings, QueueSettings

_VOCABULARY = 151_936
_AT_ONCE = 16


def main() -> None:
    """Every case, then the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32_768, help="of each sample")
    parser.add_argument("--inline-groups", type=int, default=32)
    options = parser.parse_args()
    group = [answer(options.tokens, seed) for seed in range(options.samples)]
    settings = QueueSettings(credits=options.groups)
    inline = settings.model_copy(update={"payloads": "redis"})
    cases = {
        "outside": in_flight(options.groups, group, settings),
        "at limit": in_flight(options.groups, [answer(1, 0)], settings, settings.inline_bytes),
        "inline": in_flight(options.inline_groups, group, inline),
    }
    shown = ("largest_payload_bytes", "peak_bytes", "stated_bytes")
    rows = [
        [name, case["groups"], *(f"{case[key] / 2**20:.1f}" for key in shown)]
        for name, case in cases.items()
    ]
    head = ["payloads", "groups", "largest, MiB", "peak of Redis, MiB", "stated, MiB"]
    measure.finish(measure.table(head, rows), {"tokens": options.tokens, "cases": cases})


def answer(tokens: int, seed: int) -> Sample:
    """A sample of so many random tokens."""
    rng = random.Random(seed)
    return Sample(
        index=seed,
        token_ids=[rng.randrange(_VOCABULARY) for _ in range(tokens)],
        text="".join(rng.choices("abcdefgh ", k=4 * tokens)),
        logprobs=[-rng.random() for _ in range(tokens)],
    )


def in_flight(
    groups: int, samples: Sequence[Sample], settings: QueueSettings, padded_to: int = 0
) -> dict[str, Any]:
    """Bytes: an episode of so many groups, all in each queue at once.

    `padded_to`: every message is made so large.
    """
    folder = measure.ROOT / "runs" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="redis-", dir=folder) as name:
        server = EmbeddedRedis.start(Path(name) / "redis", "everysec")
        try:
            began = time.monotonic()
            found = asyncio.run(
                _episode(server.url, Path(name) / "payloads", groups, samples, settings, padded_to)
            )
            return found | {"seconds": time.monotonic() - began}
        finally:
            server.stop()


async def _episode(
    url: str, folder: Path, groups: int, samples: Sequence[Sample], settings: QueueSettings, to: int
) -> dict[str, Any]:
    store = await EpisodeStore.open(url, "bench", 5.0)
    await store.create(1, groups)
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(url, "bench", settings, payloads=PayloadFolder(folder))
    largest, at = 0, {}

    async def used(moment: str, server: "Redis") -> None:
        at[moment] = int((await server.info("memory"))["used_memory"])

    async with Redis.from_url(url) as server:
        await used("empty", server)
        for index in range(groups):
            prompt = Prompt(id=f"bench/e00001/p{index:05d}", run="bench", episode=1, index=index)
            _pad(prompt, prompt, to)
            await queues.dispatch(1, [prompt])
        await used("dispatched", server)
        while items := await queues.take("prompts", "engine", _AT_ONCE, 0.0):
            for item in items:
                rollout = Rollout(prompt=Prompt.FromString(item.payload), samples=samples)
                _pad(rollout, rollout.prompt, to)
                largest = max(largest, rollout.ByteSize())
                await queues.commit_rollout(item, rollout)
        await used("sampled", server)
        while items := await queues.take("rollouts", "pairs", _AT_ONCE, 0.0):
            for item in items:
                pair = _pair(Rollout.FromString(item.payload))
                _pad(pair, pair.prompt, to)
                await queues.commit_pair(item, pair)
        await used("paired", server)
        ids = [pair.id for pair in await queues.pairs(1)]
        await queues.commit_trained(1, 1, ids, {})
        await used("trained", server)
        for to in (State.PUBLISHING, State.COMPLETED):
            await store.move(1, to)
        await queues.forget(1)
        await used("archived", server)
        peak = int((await server.info("memory"))["used_memory_peak"])
    await queues.close()
    await store.close()
    files = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    episodes = EpisodeSettings(count=1, prompts=groups)
    return {
        "groups": groups,
        "largest_payload_bytes": largest,
        "peak_bytes": peak,
        "stated_bytes": redis_bytes(settings, episodes, largest),
        "used_bytes": at,
        "files_bytes": files,
    }


def _pair(rollout: Rollout) -> PreferencePair:
    pair = PreferencePair(
        id=rollout.prompt.id,
        prompt=rollout.prompt,
        chosen=rollout.samples[0],
        rejected=rollout.samples[-1],
    )
    pair.provenance.group_answers.extend(sample.text for sample in rollout.samples)
    return pair


def _pad(message: Message, prompt: Prompt, size: int) -> None:
    """Let the prompt's text make the message as large as it may be, and no larger."""
    prompt.text = ""
    if size:
        prompt.text = "x" * (size - message.ByteSize() - 8)


if __name__ == "__main__":
    main()
