"""The rollout engines of a run, kept from stage to stage where the next policy fits them."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.rollout.actor import RolloutHandle, create_workers
from services.rollout.settings import EngineSettings
from services.weights.broadcaster import attested


class EnginePool:
    """`async with EnginePool(seed) as engines`: at most one set of engines is alive at a time."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._key = ""
        self._workers: list[RolloutHandle] = []

    async def __aenter__(self) -> "EnginePool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def for_architecture(self, policy: str, settings: EngineSettings) -> list[RolloutHandle]:
        """Engines of the policy's shape and tokenizer; which weights they hold is left open.

        Starting one takes seconds to minutes; live ones are taken when they fit.
        """
        key = _key(policy, settings)
        if key != self._key:
            await self.release()
            self._workers = await create_workers(settings, policy, self._seed, settings.workers)
            self._key = key
        return self._workers

    async def with_weights(self, policy: str, settings: EngineSettings) -> list[RolloutHandle]:
        """Engines that hold this policy's weights, attested."""
        fresh = _key(policy, settings) != self._key
        workers = await self.for_architecture(policy, settings)
        if not fresh:
            await asyncio.gather(
                *(_load(worker, policy, settings.start_timeout_s) for worker in workers)
            )
        return workers

    async def generate(
        self, workers: Sequence[RolloutHandle], prompts: Sequence[Prompt]
    ) -> list[Rollout]:
        """A rollout a prompt, in order; the prompts are dealt out to the workers."""
        count = len(workers)
        shares = [prompts[number::count] for number in range(count)]
        parts = await asyncio.gather(
            *(worker.generate(share) for worker, share in zip(workers, shares, strict=True))
        )
        found = {rollout.prompt.id: rollout for part in parts for rollout in part}
        return [found[prompt.id] for prompt in prompts]

    async def release(self) -> None:
        """End the engines and give their memory back."""
        workers, self._workers, self._key = self._workers, [], ""
        for worker in workers:
            worker.kill()


async def _load(worker: RolloutHandle, policy: str, timeout_s: float) -> None:
    load = partial(worker.load_folder, policy, 0)
    await attested(load, worker.worker_id, policy, timeout_s, setting="engine.start_timeout_s")


def _key(policy: str, settings: EngineSettings) -> str:
    """What an engine cannot change while it lives: settings, architecture, tokenizer."""
    parts = [settings.model_dump_json(), policy if not Path(policy).is_dir() else ""]
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        path = Path(policy) / name
        if path.is_file():
            parts.append(json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
