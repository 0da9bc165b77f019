"""The places of engines and pairing workers: what is in one may be replaced while the loop runs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NoReturn, Protocol

from orchestrator.online.healing import Budget, first_end, kept, replaceable
from orchestrator.online.supervision import EVERY_S, heartbeat
from pairloop.data.v1.weights_pb2 import Attestation, WeightManifest
from services.data.rows import Messages
from services.errors import PairloopError
from services.pairs.actor import PairHandle
from services.queues.items import StreamName
from services.rollout.actor import RolloutHandle
from services.weights.broadcaster import attested
from services.weights.version_store import VersionStoreHandle

_PUBLISHED_S = 86_400.0
"""No deadline of its own: who loads has one."""
_TRIES = 3
"""Of one engine that lives, to load a version; a new one begins anew."""


class GiveBack(Protocol):
    """The queues, as far as a dead worker is concerned."""

    async def give_back(self, stream: StreamName, consumer: str, died: bool) -> int:
        """As RunQueues.give_back."""


class _Slot:
    """A place, and the name that its present process goes by in the queues."""

    def __init__(self, name: str, epoch: int) -> None:
        self._name, self._epoch = name, epoch
        self._starts = 0

    @property
    def consumer(self) -> str:
        """No process before it had this name."""
        again = f".{self._starts}" if self._starts > 1 else ""
        return f"{self._name}.{self._epoch}{again}"


class EngineSlot(_Slot):
    """The place of one engine; a WeightHolder, which outlives the engine that is in it."""

    def __init__(
        self,
        engine: RolloutHandle,
        fresh: Callable[[RolloutHandle], Awaitable[RolloutHandle]],
        connect: Callable[[RolloutHandle, str], Awaitable[None]],
        versions: VersionStoreHandle,
        epoch: int,
    ) -> None:
        """`fresh`: a new engine in place of one that is killed; `connect`: to the queues, by a name
        that no process has had."""
        super().__init__(engine.worker_id, epoch)
        self.engine = engine
        self.worker_id = engine.worker_id
        self._versions = versions
        self._fresh, self._connect = fresh, connect
        self._up = asyncio.Event()
        self._loading = asyncio.Lock()
        self._wanted = -1
        """The newest version that this place was told to hold."""
        self._holds: RolloutHandle | None = None
        """The engine that attested it."""
        self._reads = 0
        """Loads that the present engine is at."""

    async def start(self) -> None:
        """Connect the engine; it takes nothing before it holds a version.

        WorkerDiedError when it ended meanwhile; `keep` then begins with a new one.
        """
        self._starts += 1
        await self._connect(self.engine, self.consumer)
        self._up.set()

    async def keep(self, queues: GiveBack, budget: Budget, load_s: float) -> NoReturn:
        """Let it sample for ever. Raises what is not mended by a new engine.

        A new one loads the newest version that was published, attests, then takes prompts.
        `load_s`: the longest that a load may take; it answers nothing meanwhile.
        """

        def silence_s() -> float:
            return load_s if self._reads else budget.silence_s()

        async def sample() -> None:
            pulse = heartbeat(self.worker_id, self.engine.ping, silence_s)
            try:
                await first_end(self.engine.run(), pulse, self._catch_up(load_s))
            finally:
                self._up.clear()

        async def replace() -> None:
            self.engine.kill()
            await queues.give_back("prompts", self.consumer, died=True)
            self.engine = await self._fresh(self.engine)
            await self.start()

        await kept(self.worker_id, sample, replace, budget, whole=self._up.is_set())

    async def load_weights(self, manifest: bytes, weights: object) -> bytes:
        """Load a version and attest. Where the engine ends meanwhile its successor does it.

        So that nobody waits for a learner that died with the weights in its memory, they are taken
        from the version store each time, and `weights` are not looked at.
        """
        tries: dict[RolloutHandle, int] = {}
        async with self._loading:
            self._wanted = WeightManifest.FromString(manifest).version
            while True:
                await self._up.wait()
                engine = self.engine
                try:
                    return (await self._load(engine)).SerializeToString()
                except PairloopError as error:
                    tries[engine] = tries.get(engine, 0) + 1
                    if not replaceable(error) or tries[engine] >= _TRIES:
                        raise
                    await asyncio.sleep(EVERY_S)  # by then it is known whether it lives

    async def render(
        self, policy: str, dialogues: Sequence[Messages]
    ) -> list[tuple[str, list[int]]]:
        """Text and token ids of each dialogue by the policy's tokenizer."""
        while True:
            await self._up.wait()
            engine = self.engine
            try:
                return await engine.render(policy, dialogues)
            except PairloopError as error:
                if not replaceable(error):
                    raise
                await asyncio.sleep(EVERY_S)
                if engine is self.engine and self._up.is_set():
                    raise

    async def _catch_up(self, load_s: float) -> NoReturn:
        """Give a new engine what the one before held, unless a new version comes first."""
        async with self._loading:
            if self._wanted >= 0 and self._holds is not self.engine:
                load = partial(self._load, self.engine)
                await attested(load, self.worker_id, f"weight version {self._wanted}", load_s)
        await asyncio.Event().wait()
        raise AssertionError

    async def _load(self, engine: RolloutHandle) -> Attestation:
        # A learner that restarts publishes its version once more: this waits for it.
        held = await self._versions.wait(self._wanted, _PUBLISHED_S)
        self._reads += 1
        try:
            found = Attestation.FromString(await engine.load_weights(held.manifest, held.refs))
        finally:
            self._reads -= 1
        if not found.mismatches:
            self._holds = engine
        return found


class PairSlot(_Slot):
    """The place of one pairing worker."""

    def __init__(
        self,
        worker: PairHandle,
        fresh: Callable[[str], PairHandle],
        connect: Callable[[PairHandle, str], Awaitable[None]],
        epoch: int,
    ) -> None:
        """As EngineSlot."""
        super().__init__(worker.name, epoch)
        self.worker = worker
        self.name = worker.name
        self._fresh, self._connect = fresh, connect
        self._connected: PairHandle | None = None

    async def start(self) -> None:
        """Connect the worker; as EngineSlot.start."""
        self._starts += 1
        await self._connect(self.worker, self.consumer)
        self._connected = self.worker

    async def keep(self, queues: GiveBack, budget: Budget) -> NoReturn:
        """Let it pair for ever. Raises what is not mended by a new worker."""

        async def pair() -> None:
            pulse = heartbeat(self.name, self.worker.ping, budget.silence_s)
            await first_end(self.worker.run(), pulse)

        async def replace() -> None:
            self.worker.kill()
            await queues.give_back("rollouts", self.consumer, died=True)
            self.worker = self._fresh(self.name)
            await self.start()

        whole = self._connected is self.worker
        await kept(self.name, pair, replace, budget, whole)

    async def stats(self, episode: int) -> dict[str, float]:
        """As PairWorker.stats; what a worker that died had counted is gone."""
        if self._connected is not self.worker:
            return {}
        try:
            return await self.worker.stats(episode)
        except PairloopError as error:
            if not replaceable(error):
                raise
            return {}

    def kill(self) -> None:
        """End the process now."""
        self.worker.kill()
