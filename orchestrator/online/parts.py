"""How each part of an online run is started and ended by itself; services.py puts them together."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import SecretStr

from orchestrator.artifacts.store import CHECKPOINTS, LEARNER
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.training import part_of
from orchestrator.online.fleet import Fleet
from orchestrator.online.publishing import StorePublisher
from orchestrator.online.slots import EngineSlot, PairSlot
from orchestrator.stages.context import StageContext
from orchestrator.stages.engines import EnginePool
from services.errors import PairloopError, WorkerDiedError, WorkerError
from services.imports import heavy_imports
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.train import background
from services.pairs.actor import PairHandle, start_pairing
from services.queues.payload_folder import PAYLOADS, PayloadFolder
from services.queues.queues import RunQueues
from services.reward.settings import RewardSettings
from services.rollout.actor import RolloutHandle, shortage
from services.rollout.settings import EngineSettings
from services.telemetry.record.sink import Reporter
from services.weights.canary import canary_tokens, default_tolerance
from services.weights.snapshot import vocabulary_size
from services.weights.version_store import VersionStoreHandle, start_version_store

if TYPE_CHECKING:
    from services.reward.launch import RunningReward


def launch_reward(
    settings: RewardSettings, *, run: str, timeout_s: float, called_off: threading.Event
) -> "RunningReward":
    """As services.reward.launch.launch; imports Ray Serve, over a second of CPU time."""
    with heavy_imports():
        from services.reward.launch import launch
    return launch(settings, run=run, timeout_s=timeout_s, called_off=called_off)


@dataclass(frozen=True)
class Starters:
    """How the processes of a run are started; tests put fakes here."""

    version_store: Callable[[], VersionStoreHandle] = start_version_store
    learner: Callable[..., "Future[dict[str, float]]"] = background.start
    reward: "Callable[..., RunningReward]" = launch_reward
    pairing: Callable[[str], PairHandle] = start_pairing
    shortage: Callable[[EngineSettings, int], str] = shortage


REAL = Starters()


async def engines_up(pool: EnginePool, job: OnlineDPO) -> tuple[list[RolloutHandle], str]:
    """Engines, and the fingerprint of the policy's tokenizer. Can be begun again when one dies."""
    engines = await pool.for_architecture(job.policy, job.engine)
    try:
        return engines, await engines[0].tokenizer_fingerprint(job.policy)
    except WorkerDiedError:
        pool.remove(engines[0])
        raise


async def started(slot: EngineSlot | PairSlot) -> None:
    """Bring its worker up."""
    with contextlib.suppress(WorkerDiedError):  # it begins with a replacement then
        await slot.start()


async def start_learner(
    job: OnlineDPO,
    context: StageContext,
    name: str,
    url: str,
    epoch: int,
    starters: Starters,
    version_store: VersionStoreHandle,
) -> dict[str, float]:
    """What it returns at its end. Raises WorkerDiedError, and can be begun again then."""
    place = OnlinePlace(
        stage=context.stage,
        seed=job.seed,
        out=str(context.out),
        kept=str(context.scratch / CHECKPOINTS),
        run=name,
        redis_url=SecretStr(url),
        epoch=epoch,
        folder=str(context.scratch / LEARNER),
        engine_dtype=job.engine.dtype,
        canary_tokens=canary_tokens(vocabulary_size(job.policy), job.seed),
        canary_tolerance=job.sync.canary_tolerance or default_tolerance(job.engine.dtype),
    )
    future = starters.learner(
        "services.learner.online.learner:online_learner",
        (part_of(job, OnlineDPOSettings), place),
        job.train,
        context.scratch / "train",
        Reporter(context.run.sink),
        context.stage,
        extras=(
            partial(
                RunQueues.open, payloads=PayloadFolder(context.scratch / PAYLOADS), joining=True
            ),
            StorePublisher(version_store.actor),
        ),
    )
    try:
        return await asyncio.wrap_future(future)
    except WorkerDiedError:
        await version_store.withdraw()  # its arrays were in the memory of the one that died
        raise


def kill_all(pairing: Fleet[PairSlot]) -> None:
    """End every pairing worker, the newest first."""
    for worker in reversed(pairing.slots):
        worker.kill()


async def stop_engines(
    starting: "asyncio.Future[tuple[list[RolloutHandle], str]]", pool: EnginePool, configured: int
) -> None:
    """Those that are up live on for the next stage, as many as it counts on."""
    starting.cancel()
    await asyncio.wait({starting})
    up = not starting.cancelled() and starting.exception() is None
    pool.trim(configured)
    for engine in list(starting.result()[0]) if up else ():
        try:
            await engine.stop()
        except WorkerError:  # it has ended already
            pool.remove(engine)


async def stop_reward(
    launching: "asyncio.Future[RunningReward]", called_off: threading.Event
) -> None:
    """Also when something else did not start: on a cluster the replicas would stay."""
    called_off.set()
    with contextlib.suppress(PairloopError):
        reward = await launching
        await asyncio.to_thread(reward.stop)
