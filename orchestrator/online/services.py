"""The services of an online run: started together, ended together.

What runs where: rollout engines, pairing, the reward's replicas and gateway, the learner and the
weight version store are Ray processes; Redis is a server of its own; the loop and the admin API
are here.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from pydantic import SecretStr

from orchestrator.artifacts.store import CHECKPOINTS, LEARNER
from orchestrator.control.runs import RedisRuns
from orchestrator.episodes import EpisodeStore
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.training import part_of
from orchestrator.online.asked import asked
from orchestrator.online.dead_letters import try_failed_again
from orchestrator.online.fleet import Fleet, Words
from orchestrator.online.healing import Budget, restarted
from orchestrator.online.publishing import StorePublisher
from orchestrator.online.scaling import Scalable, Scaling
from orchestrator.online.slots import EngineSlot, Newest, PairSlot
from orchestrator.online.supervision import together
from orchestrator.online.wanted import WANTED, WantedFile
from orchestrator.stages.context import StageContext
from orchestrator.stages.engines import EnginePool
from pairloop.admin.v1.admin_pb2 import WORKER_KIND_PAIRING, WORKER_KIND_ROLLOUT
from services.admin.command import command_for
from services.admin.server import AdminServer
from services.errors import PairloopError, WorkerDiedError, WorkerError
from services.imports import heavy_imports
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.train import background
from services.pairs.actor import PairHandle, start_pairing
from services.queues.backlog import BacklogReader
from services.queues.client import Patience
from services.queues.payload_folder import PAYLOADS, PayloadFolder
from services.queues.queues import RunQueues
from services.reward.client import GrpcScorer
from services.reward.settings import RewardSettings
from services.rollout.actor import RolloutHandle, shortage
from services.rollout.settings import EngineSettings
from services.telemetry.format import duration
from services.telemetry.record.events import AdminListening, Note
from services.telemetry.record.sink import Reporter
from services.weights.canary import canary_tokens, default_tolerance
from services.weights.snapshot import vocabulary_size
from services.weights.version_store import VersionStoreHandle, start_version_store

if TYPE_CHECKING:
    from services.reward.launch import RunningReward

T = TypeVar("T")

_START_S = 300.0
"""How long pairing and the reward may take to come up."""


@dataclass(frozen=True)
class Services:
    """Everything the loop drives, started."""

    queues: RunQueues
    store: EpisodeStore
    engines: Fleet[EngineSlot]
    newest: Newest
    pairing: Fleet[PairSlot]
    reward: "RunningReward"
    version_store: VersionStoreHandle
    learner: "asyncio.Future[dict[str, float]]"


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


async def start_services(
    job: OnlineDPO,
    context: StageContext,
    name: str,
    url: str,
    epoch: int,
    published: int,
    stack: contextlib.AsyncExitStack,
    budget: Budget,
    starters: Starters = Starters(),
) -> Services:
    """Start what is independent at once, the longest first: each of these imports for seconds.

    `epoch`: of this orchestrator. `published` episodes are in the artifact that this run goes on
    from. `stack` ends them, also those that were started before another failed. `budget`: of the
    learner's restarts.
    """
    began = time.monotonic()
    took: dict[str, float] = {}

    async def timed(part: str, start: Callable[[], Awaitable[T]]) -> T:
        done = await start()
        took[part] = time.monotonic() - began
        return done

    if job.engine.num_gpus:
        await context.run.engines.release()
    start_engines = partial(_engines_up, context.run.engines, job)
    starting = asyncio.ensure_future(
        timed("engines", partial(restarted, "the start of the engines", start_engines, budget))
    )
    stack.push_async_callback(_stop_engines, starting, context.run.engines, job.engine.workers)
    payloads = PayloadFolder(context.scratch / PAYLOADS)
    connect = partial(RunQueues.open, url, name, job.queues, epoch, payloads, joining=True)
    reward: RunningReward  # known once it is up
    fingerprint: str

    async def connect_engine(engine: RolloutHandle, consumer: str) -> None:
        await engine.start(connect, consumer)

    async def connect_pairing(worker: PairHandle, consumer: str) -> None:
        await worker.start(
            connect,
            partial(GrpcScorer, reward.address, job.reward, fingerprint, reward.token),
            job.pairs,
            max_staleness=job.episodes.max_staleness,
            stage=context.stage,
            consumer=consumer,
            sink=context.run.sink,
        )

    def place_of(worker: PairHandle) -> PairSlot:
        return PairSlot(worker, starters.pairing, connect_pairing, epoch)

    async def open_pairing(place: str) -> PairSlot:
        return place_of(starters.pairing(place))

    def say(text: str) -> None:
        context.run.report(Note(stage=context.stage, text=text))

    words = Words(WORKER_KIND_PAIRING, "pairs", "rollouts", say, context.warn)
    pairing = Fleet(job.pairs.workers, open_pairing, words, budget)
    stack.callback(kill_all, pairing)
    for number in range(job.pairs.workers):
        pairing.add(place_of(starters.pairing(f"pairs-{number}")))
    version_store = starters.version_store()
    stack.callback(version_store.kill)
    newest = Newest()

    def engine_in(engine: RolloutHandle) -> EngineSlot:
        pool = context.run.engines
        return EngineSlot(engine, pool, connect_engine, version_store, newest, epoch)

    async def open_engine(place: str) -> EngineSlot:
        return engine_in(await context.run.engines.added(place))

    words = Words(WORKER_KIND_ROLLOUT, "rollout", "prompts", say, context.warn)
    engines = Fleet(job.engine.workers, open_engine, words, budget)
    scaling = Scaling(
        {
            WORKER_KIND_ROLLOUT: Scalable(
                "rollout workers", engines, partial(starters.shortage, job.engine)
            ),
            WORKER_KIND_PAIRING: Scalable("pairing workers", pairing, lambda more: ""),
        },
        say,
        WantedFile(context.scratch / WANTED),
    )
    queues = await connect()
    stack.push_async_callback(queues.close)
    await queues.give_back_all()
    # The loop asks it all the time: what it says of an outage is enough.
    patience = Patience(job.queues.outage_s, context.warn)
    store = await EpisodeStore.open(url, name, job.queues.connect_timeout_s, epoch, patience)
    stack.push_async_callback(store.close)
    if context.run.asking is not None:
        backlog = await BacklogReader.open(url, name, job.queues.connect_timeout_s)
        stack.push_async_callback(backlog.close)
        question = partial(asked, backlog, scaling, job.queues.credits)
        await stack.enter_async_context(context.run.asking.of(context.stage, question))
    await store.create(job.episodes.count, job.episodes.prompts, published)
    # Before the learner looks: a failed episode is its end.
    if text := await try_failed_again(store):
        context.warn(text)
    start = partial(_start_learner, job, context, name, url, epoch, starters, version_store)
    learner = asyncio.ensure_future(restarted("the learner", start, budget))
    # Whoever fails first ends the run: what the learner says after that may be read by nobody.
    learner.add_done_callback(lambda done: done.cancelled() or done.exception())
    stack.callback(learner.cancel)  # it is not started again when the run ends
    called_off = threading.Event()
    launch = partial(
        starters.reward, job.reward, run=name, timeout_s=_START_S, called_off=called_off
    )
    launched = partial(
        restarted, "the start of the reward", partial(asyncio.to_thread, launch), budget
    )
    launching = asyncio.ensure_future(timed("reward", launched))
    stack.push_async_callback(_stop_reward, launching, called_off)
    own = context.run.own
    own.episodes = name
    runs = await RedisRuns.open(url, job.queues.connect_timeout_s, own, scaling)
    stack.push_async_callback(runs.close)
    admin = AdminServer()
    address = await admin.start(job.admin, runs)
    stack.push_async_callback(admin.stop)
    own.address = address
    admin_command = command_for(address)
    context.run.report(AdminListening(stage=context.stage, command=admin_command))
    say(f"admin API at {address}; to pause: {admin_command} pause")
    (handles, fingerprint), reward = await together(starting, asyncio.shield(launching))
    for handle in handles:
        engines.add(engine_in(handle))
    slots: list[EngineSlot | PairSlot] = [*engines.slots, *pairing.slots]
    await together(*(_started(slot) for slot in slots))
    took["pairing"] = time.monotonic() - began
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in took.items())
    say(f"services up after: {parts}")
    return Services(queues, store, engines, newest, pairing, reward, version_store, learner)


async def _engines_up(pool: EnginePool, job: OnlineDPO) -> tuple[list[RolloutHandle], str]:
    """Engines, and the fingerprint of the policy's tokenizer. Can be begun again when one dies."""
    engines = await pool.for_architecture(job.policy, job.engine)
    try:
        return engines, await engines[0].tokenizer_fingerprint(job.policy)
    except WorkerDiedError:
        pool.remove(engines[0])
        raise


async def _started(slot: EngineSlot | PairSlot) -> None:
    with contextlib.suppress(WorkerDiedError):  # it begins with a replacement then
        await slot.start()


async def _start_learner(
    job: OnlineDPO,
    context: StageContext,
    name: str,
    url: str,
    epoch: int,
    starters: Starters,
    version_store: VersionStoreHandle,
) -> dict[str, float]:
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


async def _stop_engines(
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


async def _stop_reward(
    launching: "asyncio.Future[RunningReward]", called_off: threading.Event
) -> None:
    """Also when something else did not start: on a cluster the replicas would stay."""
    called_off.set()
    with contextlib.suppress(PairloopError):
        reward = await launching
        await asyncio.to_thread(reward.stop)
