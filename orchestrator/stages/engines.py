"""The rollout engines of a run, kept from stage to stage where the next policy fits them."""

import asyncio
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.data.rows import Messages
from services.rollout.actor import RolloutHandle, create_workers
from services.rollout.settings import EngineSettings
from services.weights.broadcaster import attested

Start = Callable[[EngineSettings, str, int, Sequence[str]], Awaitable[list[RolloutHandle]]]
"""start(settings, model, seed, names): live engines that hold the model."""


class EnginePool:
    """`async with EnginePool(seed) as engines`: at most one set of engines is alive at a time."""

    def __init__(self, seed: int, start: Start = create_workers) -> None:
        self._seed = seed
        self._start = start
        self._kind = ""
        self._engines: list[RolloutHandle] = []
        self._again: Callable[[Sequence[str]], Awaitable[list[RolloutHandle]]] | None = None

    async def __aenter__(self) -> "EnginePool":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    async def for_architecture(self, policy: str, settings: EngineSettings) -> list[RolloutHandle]:
        """Engines of the policy's shape and tokenizer; which weights they hold is left open.

        Starting one takes seconds to minutes; live ones are taken when they fit, and are as many
        as the settings say then, however many the stage before had in the end.
        """
        kind = _kind(policy, settings)
        if kind != self._kind:
            await self.release()
        self.trim(settings.workers)
        start = partial(self._start, settings, policy, self._seed)
        if names := _free_names(self._engines, settings.workers - len(self._engines)):
            self._engines.extend(await start(names))
        self._kind, self._again = kind, start
        return self._engines

    async def added(self, name: str) -> RolloutHandle:
        """One more of the present kind."""
        assert self._again is not None  # noqa: S101 - there is one
        (fresh,) = await self._again([name])
        self._engines.append(fresh)
        return fresh

    def remove(self, engine: RolloutHandle) -> None:
        """End an engine and give its memory back."""
        engine.kill()
        if engine in self._engines:
            self._engines.remove(engine)

    def trim(self, count: int) -> None:
        """End those that are more than so many."""
        for engine in self._engines[count:]:
            self.remove(engine)

    async def with_weights(self, policy: str, settings: EngineSettings) -> list[RolloutHandle]:
        """Engines that hold this policy's weights, attested."""
        live = list(self._engines) if _kind(policy, settings) == self._kind else []
        engines = await self.for_architecture(policy, settings)
        await asyncio.gather(
            *(_load(each, policy, settings.start_timeout_s) for each in engines if each in live)
        )
        return engines

    async def render(
        self, workers: Sequence[RolloutHandle], policy: str, dialogues: Sequence[Messages]
    ) -> list[tuple[str, list[int]]]:
        """Text and token ids of each dialogue by the policy's tokenizer."""
        return await workers[0].render(policy, dialogues)

    async def generate(
        self, engines: Sequence[RolloutHandle], prompts: Sequence[Prompt]
    ) -> list[Rollout]:
        """A rollout a prompt, in order; the prompts are dealt out to the engines."""
        count = len(engines)
        shares = [prompts[number::count] for number in range(count)]
        answers = await asyncio.gather(
            *(engine.generate(share) for engine, share in zip(engines, shares, strict=True))
        )
        found = {rollout.prompt.id: rollout for share in answers for rollout in share}
        return [found[prompt.id] for prompt in prompts]

    async def release(self) -> None:
        """End the engines and give their memory back."""
        engines, self._engines, self._kind = self._engines, [], ""
        for engine in engines:
            engine.kill()


def _free_names(engines: Sequence[RolloutHandle], count: int) -> list[str]:
    taken = {engine.worker_id for engine in engines}
    names = (name for n in itertools.count() if (name := f"rollout-{n}") not in taken)
    return list(itertools.islice(names, max(0, count)))


async def _load(engine: RolloutHandle, policy: str, timeout_s: float) -> None:
    load = partial(engine.load_folder, policy, 0)
    await attested(load, engine.worker_id, policy, timeout_s, setting="engine.start_timeout_s")


def _kind(policy: str, settings: EngineSettings) -> str:
    """A digest of what an engine cannot change while it lives: settings, shape, tokenizer."""
    parts = [settings.model_dump_json(), policy if not Path(policy).is_dir() else ""]
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        path = Path(policy) / name
        if path.is_file():
            parts.append(json.dumps(json.loads(path.read_text(encoding="utf-8")), sort_keys=True))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
