"""The places of engines and pairing workers: what is in one may be replaced while the loop runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn, Protocol

from orchestrator.online.healing import Budget, first_end, kept, replaceable
from orchestrator.online.supervision import EVERY_S, heartbeat
from pairloop.data.v1.weights_pb2 import Attestation
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
    """The queues, as far as a worker that died or leaves is concerned."""

    async def give_back(self, stream: StreamName, consumer: str, died: bool) -> int:
        """As RunQueues.give_back."""


class Engines(Protocol):
    """Where engines come from and go to: orchestrator/stages/engines.py."""

    async def added(self, name: str) -> RolloutHandle:
        """A new one."""

    def remove(self, engine: RolloutHandle) -> None:
        """End one."""


@dataclass
class Newest:
    """What every engine is to hold before it samples, those too that are not there yet."""

    version: int = -1
    """The newest that the loop published."""


class _Slot:
    """A place, and the name that its present process goes by in the queues."""

    def __init__(self, name: str, epoch: int) -> None:
        self.name, self._epoch = name, epoch
        self._starts = 0
        self.settled = asyncio.Event()
        """Once it has worked."""

    @property
    def consumer(self) -> str:
        """No process before it had this name."""
        again = f".{self._starts}" if self._starts > 1 else ""
        return f"{self.name}.{self._epoch}{again}"

    @property
    def restarts(self) -> int:
        """How often its process was replaced."""
        return max(0, self._starts - 1)


class EngineSlot(_Slot):
    """The place of one engine; a WeightHolder, which outlives the engine that is in it."""

    def __init__(
        self,
        engine: RolloutHandle,
        engines: Engines,
        connect: Callable[[RolloutHandle, str], Awaitable[None]],
        versions: VersionStoreHandle,
        newest: Newest,
        epoch: int,
    ) -> None:
        """`connect`: to the queues, by a name that no process has had."""
        super().__init__(engine.worker_id, epoch)
        self.engine = engine
        self.worker_id = engine.worker_id
        self._versions, self._newest = versions, newest
        self._engines, self._connect = engines, connect
        self.up = asyncio.Event()
        """Connected: it may sample once it holds a version."""
        self._loading = asyncio.Lock()
        self._holds: RolloutHandle | None = None
        """The engine that attested a version here."""
        self._version = -1
        """The version that it attested."""
        self._reads = 0
        """Loads that the present engine is at."""

    @property
    def version(self) -> int | None:
        """What the present engine holds and attested; None while it may not sample."""
        return self._version if self.up.is_set() and self._holds is self.engine else None

    @property
    def works(self) -> bool:
        """Whether it samples."""
        return self.version is not None

    async def start(self) -> None:
        """Connect the engine; it takes nothing before it holds a version.

        WorkerDiedError when it ended meanwhile; `keep` then begins with a new one.
        """
        self._starts += 1
        await self._connect(self.engine, self.consumer)
        self.up.set()

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
            except PairloopError:  # not where it leaves: it samples until it is drained
                self.up.clear()
                raise

        async def replace() -> None:
            await self.end(queues, died=True)
            self.engine = await self._engines.added(self.worker_id)
            await self.start()

        await kept(self.worker_id, sample, replace, budget, whole=self.up.is_set())

    async def leave(self, queues: GiveBack, within_s: float) -> int:
        """Take nothing more, finish what is in flight, then `end`. Not while `keep` runs.

        What is not finished in time is handed back: how many prompts.
        """
        died = False
        try:
            async with asyncio.timeout(within_s):
                await self.engine.drain()
        except TimeoutError:
            pass
        except PairloopError:
            died = True
        return await self.end(queues, died)

    async def end(self, queues: GiveBack, died: bool) -> int:
        """End the engine now and hand back what it holds: how many prompts."""
        self.up.clear()
        self._engines.remove(self.engine)
        return await queues.give_back("prompts", self.consumer, died)

    async def load_weights(self, manifest: bytes, weights: object) -> bytes | None:
        """Load a version and attest. None where the engine ended: the next one catches up.

        So that nobody waits for a learner that died with the weights in its memory, they are taken
        from the version store each time, and `manifest` and `weights` are not looked at.
        """
        tries, engine = 0, self.engine
        async with self._loading:
            while self.up.is_set() and engine is self.engine:
                try:
                    return (await self._load(engine)).SerializeToString()
                except PairloopError as error:
                    tries += 1
                    if not replaceable(error) or tries >= _TRIES:
                        raise
                    await asyncio.sleep(EVERY_S)  # by then it is known whether it lives
        return None

    async def _catch_up(self, load_s: float) -> NoReturn:
        """Give a new engine what the others hold, unless a new version comes first."""
        async with self._loading:
            if self._newest.version >= 0 and self._holds is not self.engine:
                what = f"weight version {self._newest.version}"
                # However long a learner takes that is started again: it is not this engine's load.
                await self._versions.wait(self._newest.version, _PUBLISHED_S)
                await attested(partial(self._load, self.engine), self.worker_id, what, load_s)
        await asyncio.Event().wait()
        raise AssertionError

    async def _load(self, engine: RolloutHandle) -> Attestation:
        # A learner that restarts publishes its version once more: this waits for it.
        held = await self._versions.wait(self._newest.version, _PUBLISHED_S)
        self._reads += 1
        try:
            found = Attestation.FromString(await engine.load_weights(held.manifest, held.refs))
        finally:
            self._reads -= 1
        if not found.mismatches:
            self._holds, self._version = engine, held.version
            self.settled.set()
        return found


class PairSlot(_Slot):
    """The place of one pairing worker."""

    version: None = None

    def __init__(
        self,
        worker: PairHandle,
        fresh: Callable[[str], PairHandle],
        connect: Callable[[PairHandle, str], Awaitable[None]],
        epoch: int,
    ) -> None:
        """`fresh`: another worker of this name; `connect` as EngineSlot."""
        super().__init__(worker.name, epoch)
        self.worker = worker
        self._fresh, self._connect = fresh, connect
        self._connected: PairHandle | None = None
        self._counted: dict[int, dict[str, float]] = {}
        """What it had counted when it left."""

    @property
    def works(self) -> bool:
        """Whether it pairs."""
        return self._connected is self.worker

    async def start(self) -> None:
        """Connect the worker; as EngineSlot.start."""
        self._starts += 1
        await self._connect(self.worker, self.consumer)
        self._connected = self.worker
        self.settled.set()

    async def keep(self, queues: GiveBack, budget: Budget) -> NoReturn:
        """Let it pair for ever. Raises what is not mended by a new worker."""

        async def pair() -> None:
            pulse = heartbeat(self.name, self.worker.ping, budget.silence_s)
            try:
                await first_end(self.worker.run(), pulse)
            except PairloopError:
                self._connected = None
                raise

        async def replace() -> None:
            await self.end(queues, died=True)
            self.worker = self._fresh(self.name)
            await self.start()

        await kept(self.name, pair, replace, budget, whole=self.works)

    async def leave(self, queues: GiveBack, within_s: float) -> int:
        """As EngineSlot.leave; what the worker counted stays."""
        died = False
        try:
            async with asyncio.timeout(within_s):
                self._counted = await self.worker.drain()
        except TimeoutError:
            pass
        except PairloopError:
            died = True
        return await self.end(queues, died)

    async def end(self, queues: GiveBack, died: bool) -> int:
        """As EngineSlot.end."""
        self._connected = None
        self.worker.kill()
        return await queues.give_back("rollouts", self.consumer, died)

    async def stats(self, episode: int) -> dict[str, float]:
        """As PairWorker.stats; what a worker that died had counted is gone."""
        if not self.works:
            return self._counted.get(episode, {})
        try:
            return await self.worker.stats(episode)
        except PairloopError as error:
            if not replaceable(error):
                raise
            return {}

    def kill(self) -> None:
        """End the process now."""
        self.worker.kill()
