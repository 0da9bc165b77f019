"""The rollout worker: takes prompts, keeps the engine full, commits what is complete.

    prompts ──take──▶ engine.add ──step──▶ rollout ──commit──▶ rollouts
                        ▲  a lock: the loop, a direct call or a weight load, one at a time

The loop lets the engine go only when nothing runs, so a load or a direct call waits for what is in
flight and nothing is sampled from two versions.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, Protocol, TypeVar

from google.protobuf.message import DecodeError

from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from pairloop.data.v1.weights_pb2 import Attestation, WeightManifest
from services.errors import DataError
from services.rollout.engine import Engine
from services.telemetry.tracing.spans import About, Spans, now
from services.weights.manifest import Tensors, weights_sha256

_IDLE_BLOCK_S = 0.2
_LOOK_EVERY_S = 0.05
"""For prompts, while others run: a look is two calls, and a small model's step not much longer."""
_MOST_AT_ONCE = 64


class Delivery(Protocol):
    """One delivery of a prompt."""

    @property
    def payload(self) -> bytes:
        """A serialized Prompt."""


D = TypeVar("D", bound=Delivery)


class PromptQueue(Protocol[D]):
    """What the worker asks of the queues."""

    async def take(
        self, stream: Literal["prompts"], consumer: str, count: int, block_s: float
    ) -> list[D]:
        """Up to `count` prompts; waits up to `block_s` for the first."""

    async def commit_rollout(self, item: D, rollout: Rollout) -> bool:
        """Hand a rollout on, once; False when that was done before."""

    async def fail(self, stream: Literal["prompts"], item: D, error: str) -> bool:
        """Give a prompt back; True when it will not be tried again."""


class RolloutWorker:
    """One engine and its loop. Not for more than one event loop."""

    def __init__(self, engine: Engine, worker_id: str, spans: Spans | None = None) -> None:
        self._engine = engine
        self._spans = spans
        self._began: dict[str, int] = {}
        """When each prompt that is traced went into the engine."""
        self._worker_id = worker_id
        self._engine_lock = asyncio.Lock()
        self._waiting = 0
        self._samples = 1
        self._stopping = False
        self._held = False
        self._consumer = worker_id
        self._attested = (-1, "")
        """The last version that was loaded well, and its digest."""

    @property
    def version(self) -> int:
        """The weight version the engine samples from."""
        return self._engine.version

    def stop(self) -> None:
        """End `run` once what is in flight is committed."""
        self._stopping = True

    def hold(self) -> None:
        """Let `run` take nothing before the next `load_weights`.

        An interrupted attempt may have left prompts, and the engine may hold what another stage
        put there.
        """
        self._held = True

    async def run(self, queue: PromptQueue[D], consumer: str = "") -> None:
        """Sample from the queue until `stop`; an error of the engine or the queue ends it.

        `consumer`: the name to take prompts by; the worker's own unless told.
        """
        self._stopping = False
        self._consumer = consumer or self._worker_id
        taken: list[D] = []
        while not self._stopping:
            if self._held:
                await asyncio.sleep(_IDLE_BLOCK_S)
                continue
            # Not under the lock: weights need not wait for a queue that is empty.
            taken = taken or await queue.take("prompts", self._consumer, 1, _IDLE_BLOCK_S)
            if not taken:
                continue
            async with self._engine_lock:
                if not self._held:  # weights that came first may have been damaged
                    await self._until_empty(queue, taken)
                    taken = []

    async def generate(self, prompts: Sequence[Prompt]) -> list[Rollout]:
        """Answer these prompts, beside any queue; in their order.

        Raises DataError for a prompt this engine can never answer, or for an id given twice;
        nothing is left running then.
        """
        async with self._exclusive():
            done: dict[str, Rollout] = {}
            try:
                for prompt in prompts:
                    while not self._engine.has_room(prompt.sampling.n):
                        await self._step_into(done)
                    self._engine.add(prompt)
            except DataError:
                await self._drain_into(done)
                raise
            await self._drain_into(done)
        return [done[prompt.id] for prompt in prompts]

    async def _drain_into(self, done: dict[str, Rollout]) -> None:
        """Not after an error of the engine itself: it may never come to an end."""
        while self._engine.running:
            await self._step_into(done)

    async def load_weights(self, manifest: WeightManifest, tensors: Tensors) -> Attestation:
        """Finish what is in flight, then load and attest."""
        async with self._exclusive():
            attestation = self._load(manifest, tensors)
            # Nor from weights that arrived damaged, until they are repaired.
            self._held = bool(attestation.mismatches)
            return attestation

    async def load_prepared(
        self, prepare: Callable[[], tuple[WeightManifest, Tensors]]
    ) -> Attestation:
        """As `load_weights`, of what `prepare` returns; it runs in a thread, nothing in flight."""
        async with self._exclusive():
            manifest, tensors = await asyncio.to_thread(prepare)
            return self._load(manifest, tensors)

    def _load(self, manifest: WeightManifest, tensors: Tensors) -> Attestation:
        """The engine has compared every tensor with the manifest: the digest is of what it has."""
        attestation = self._engine.load_weights(manifest, tensors)
        if not attestation.mismatches:
            attestation.weights_sha256 = weights_sha256(manifest)
            self._attested = (attestation.version, attestation.weights_sha256)
        return attestation

    def _step(self) -> list[Rollout]:
        """The engine's; what it has completed says which weights sampled it."""
        done = self._engine.step()
        version, digest = self._attested
        for span in (s for r in done for sample in r.samples for s in sample.policy_versions):
            if span.version == version:
                span.weights_sha256 = digest
        return done

    async def _until_empty(self, queue: PromptQueue[D], taken: Sequence[D]) -> None:
        items: dict[str, D] = {}
        await self._add(queue, taken, items)
        look_at = 0.0
        while True:
            if not (self._stopping or self._waiting) and time.monotonic() >= look_at:
                await self._admit(queue, items)
                look_at = time.monotonic() + _LOOK_EVERY_S
            if not self._engine.running:
                return
            if done := self._step():
                sampled = now() if self._spans is not None else 0
                # Together: the queue makes one call of them.
                first = await asyncio.gather(
                    *(queue.commit_rollout(items.pop(each.prompt.id), each) for each in done)
                )
                if self._spans is not None:
                    self._record(self._spans, done, first, sampled)
                look_at = 0.0
            await asyncio.sleep(0)

    async def _admit(self, queue: PromptQueue[D], items: dict[str, D]) -> None:
        """Take the prompts that are there while there is room."""
        while self._engine.has_room(self._samples):
            taken = await queue.take("prompts", self._consumer, self._fitting(), 0.0)
            if not taken:
                return
            await self._add(queue, taken, items)

    async def _add(self, queue: PromptQueue[D], taken: Sequence[D], items: dict[str, D]) -> None:
        """Into the engine; what cannot be answered goes back with its error."""
        for item in taken:
            try:
                prompt = Prompt.FromString(item.payload)
                if prompt.id not in items:
                    self._engine.add(prompt)
                    self._samples = prompt.sampling.n
                    if self._spans is not None:
                        self._began[prompt.id] = now()
                items[prompt.id] = item
            except (DataError, DecodeError) as error:
                await queue.fail("prompts", item, str(error))

    def _record(
        self, spans: Spans, done: Sequence[Rollout], first: Sequence[bool], end: int
    ) -> None:
        """Those that this worker was the first to hand on."""
        for rollout, was_first in zip(done, first, strict=True):
            start = self._began.pop(rollout.prompt.id, None)
            if was_first and start is not None:
                about: About = {
                    "worker": self._worker_id,
                    "version": self._engine.version,
                    "samples": len(rollout.samples),
                }
                spans.record("sample", rollout.prompt.id, start, end=end, about=about)

    def _fitting(self) -> int:
        """How many prompts to take: as many as have room if each asks for what the last one did."""
        count = 1
        if self._engine.running:
            while count < _MOST_AT_ONCE and self._engine.has_room(2 * count * self._samples):
                count *= 2
        return count

    async def _step_into(self, done: dict[str, Rollout]) -> None:
        done.update((rollout.prompt.id, rollout) for rollout in self._step())
        await asyncio.sleep(0)

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """The engine, nothing running; the loop admits nothing while someone waits for it."""
        self._waiting += 1
        try:
            await self._engine_lock.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._engine_lock.release()
