"""The services of an online run: started together, ended together.

What runs where: rollout engines, pairing, the reward's replicas and gateway, the learner and the
weight version store are Ray processes; Redis is a server of its own; the loop and the admin API
are here.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from orchestrator.episodes import EpisodeStore
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.online.asked import asked
from orchestrator.online.dead_letters import try_failed_again
from orchestrator.online.fleet import Fleet, Words
from orchestrator.online.healing import Budget, restarted
from orchestrator.online.parts import (
    REAL,
    Starters,
    engines_up,
    kill_all,
    start_learner,
    started,
    stop_engines,
    stop_reward,
)
from orchestrator.online.scaling import Scalable, Scaling
from orchestrator.online.slots import EngineSlot, Newest, PairSlot
from orchestrator.online.staleness import Staleness
from orchestrator.online.supervision import together
from orchestrator.online.wanted import WANTED, WantedFile
from orchestrator.stages.context import StageContext
from pairloop.admin.v1.admin_pb2 import WORKER_KIND_PAIRING, WORKER_KIND_ROLLOUT
from pairloop.data.v1.rollout_pb2 import Prompt
from services.admin.command import command_for
from services.pairs.actor import PairHandle
from services.queues.backlog import BacklogReader
from services.queues.client import Patience
from services.queues.items import Dispatched
from services.queues.payload_folder import PAYLOADS, PayloadFolder
from services.queues.queues import RunQueues
from services.reward.client import GrpcScorer
from services.rollout.actor import RolloutHandle
from services.telemetry.format import duration
from services.telemetry.record.events import AdminListening, Note
from services.weights.version_store import VersionStoreHandle

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
    staleness: Staleness

    async def dispatch(self, episode: int, prompts: Sequence[Prompt]) -> Dispatched:
        """As RunQueues.dispatch, each with the staleness that is allowed now."""
        for prompt in prompts:
            prompt.max_staleness = self.staleness.versions
        return await self.queues.dispatch(episode, prompts)


async def start_services(
    job: OnlineDPO,
    context: StageContext,
    name: str,
    url: str,
    epoch: int,
    published: int,
    stack: contextlib.AsyncExitStack,
    budget: Budget,
    starters: Starters = REAL,
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
    start_engines = partial(engines_up, context.run.engines, job)
    starting = asyncio.ensure_future(
        timed("engines", partial(restarted, "the start of the engines", start_engines, budget))
    )
    stack.push_async_callback(stop_engines, starting, context.run.engines, job.engine.workers)
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
    wanted = WantedFile(context.scratch / WANTED)
    episodes, credits = job.episodes, job.queues.credits
    staleness = Staleness(episodes.max_staleness, episodes.prompts, credits, wanted, say)
    scaling = Scaling(
        {
            WORKER_KIND_ROLLOUT: Scalable(
                "rollout workers", engines, partial(starters.shortage, job.engine)
            ),
            WORKER_KIND_PAIRING: Scalable("pairing workers", pairing, lambda more: ""),
        },
        say,
        wanted,
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
    start = partial(start_learner, job, context, name, url, epoch, starters, version_store)
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
    stack.push_async_callback(stop_reward, launching, called_off)
    live = context.run.live
    live.own.episodes, live.url = name, url
    live.workers, live.staleness = scaling, staleness
    stack.callback(live.idle)
    await stack.enter_async_context(live.hold.over(store))
    admin_command = command_for(live.own.address)
    context.run.report(AdminListening(stage=context.stage, command=admin_command))
    say(f"to pause: {admin_command} pause")
    (handles, fingerprint), reward = await together(starting, asyncio.shield(launching))
    for handle in handles:
        engines.add(engine_in(handle))
    slots: list[EngineSlot | PairSlot] = [*engines.slots, *pairing.slots]
    await together(*(started(slot) for slot in slots))
    took["pairing"] = time.monotonic() - began
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in took.items())
    say(f"services up after: {parts}")
    return Services(
        queues, store, engines, newest, pairing, reward, version_store, learner, staleness
    )
