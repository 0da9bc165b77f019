"""The services of an online run: started together, ended together.

What runs where: rollout engines, pairing, the reward's replicas and gateway, the learner and the
weight board are Ray processes; Redis is a server of its own; the loop and the admin API are here.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from pydantic import SecretStr

from orchestrator.episodes import EpisodeStore
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.training import part_of
from orchestrator.online.publishing import StorePublisher
from orchestrator.stages.context import StageContext
from services.admin.server import AdminServer
from services.data.chat import tokenizer_fingerprint
from services.errors import PairloopError, WorkerError
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.model.load import load_tokenizer
from services.learner.train import ray_train
from services.pairs.actor import start_pairing
from services.queues.queues import RunQueues
from services.reward.client import GrpcScorer
from services.reward.launch import RunningReward, launch
from services.telemetry.format import duration
from services.telemetry.record.events import Note
from services.telemetry.record.sink import Reporter
from services.weights.canary import canary_tokens, default_tolerance
from services.weights.version_store import start_version_store

_START_S = 300.0
"""How long pairing and the reward may take to come up."""


@dataclass(frozen=True)
class Services:
    """Everything the loop drives, started."""

    queues: RunQueues
    store: EpisodeStore
    engines: Sequence[Any]
    pairing: Sequence[Any]
    board: Any
    learner: "asyncio.Future[dict[str, float]]"
    tokenizer: Any


async def start_services(
    job: OnlineDPO,
    context: StageContext,
    name: str,
    url: str,
    published: int,
    stack: contextlib.AsyncExitStack,
) -> Services:
    """Start what is independent at once: each of these imports for seconds.

    `published` episodes are in the artifact that this run goes on from. `stack` ends them, also
    those that were started before another failed.
    """
    queues = await RunQueues.open(url, name, job.queues)
    stack.push_async_callback(queues.close)
    store = await EpisodeStore.open(url, name, job.queues.connect_timeout_s)
    stack.push_async_callback(store.close)
    await store.create(job.episodes.count, job.episodes.prompts, published)
    admin = AdminServer()
    address = await admin.start(job.admin, store)
    stack.push_async_callback(admin.stop)
    context.run.report(
        Note(
            stage=context.stage,
            text=f"admin API at {address} (gRPC, reflection on); the services are starting",
        )
    )
    began = time.monotonic()

    board = start_version_store()
    if job.engine.num_gpus:
        await context.run.engines.release()
    tokenizer = load_tokenizer(job.policy)
    learner = _start_learner(job, context, name, url, board, len(tokenizer))
    launched = asyncio.ensure_future(
        asyncio.to_thread(launch, job.reward, run=name, timeout_s=_START_S)
    )
    stack.push_async_callback(_stop_reward, launched)
    engines, reward = await asyncio.gather(
        context.run.engines.for_architecture(job.policy, job.engine), asyncio.shield(launched)
    )
    pairing = start_pairing(job.pairs.workers)
    fingerprint = tokenizer_fingerprint(tokenizer)
    stack.push_async_callback(_stop, engines, pairing)
    connect = partial(RunQueues.open, url, name, job.queues)
    scorer = partial(GrpcScorer, reward.address, job.reward, fingerprint)
    await asyncio.gather(*(engine.start(connect) for engine in engines))
    await asyncio.gather(
        *(
            actor.start.remote(
                connect,
                scorer,
                job.pairs,
                max_staleness=job.episodes.max_staleness,
                consumer=f"pairs-{number}",
                stage=context.stage,
                sink=context.run.sink,
            )
            for number, actor in enumerate(pairing)
        )
    )
    context.run.report(
        Note(
            stage=context.stage,
            text=f"engines, reward and pairing up in {duration(time.monotonic() - began)}",
        )
    )
    return Services(queues, store, engines, pairing, board, learner, tokenizer)


def _start_learner(
    job: OnlineDPO, context: StageContext, name: str, url: str, board: Any, vocabulary: int
) -> "asyncio.Future[dict[str, float]]":
    place = OnlinePlace(
        stage=context.stage,
        seed=job.seed,
        out=str(context.out),
        run=name,
        redis_url=SecretStr(url),
        folder=str(context.scratch / "learner"),
        canary_tokens=canary_tokens(vocabulary, job.seed),
        canary_tolerance=job.sync.canary_tolerance or default_tolerance(job.engine.dtype),
    )
    future = ray_train.start(
        "services.learner.online.learner:online_learner",
        (part_of(job, OnlineDPOSettings), place),
        job.train,
        context.scratch / "train",
        Reporter(context.run.sink),
        context.stage,
        extras=(RunQueues.open, StorePublisher(board, job.engine.dtype)),
    )
    return asyncio.wrap_future(future)


def watched(services: Services) -> dict[str, Awaitable[Any]]:
    """The parts that must not end before the loop does."""
    parts: dict[str, Awaitable[Any]] = {e.worker_id: e.run() for e in services.engines}
    parts |= {f"pairs-{n}": actor.run.remote() for n, actor in enumerate(services.pairing)}
    return parts | {"learner": _failure(services.learner)}


async def _stop(engines: Sequence[Any], pairing: Sequence[Any]) -> None:
    """The engines live on for the next stage; pairing ends. One that died is ended already."""
    for engine in engines:
        with contextlib.suppress(WorkerError):
            await engine.stop()
    for actor in pairing:
        ray.kill(actor)


async def _stop_reward(launched: "asyncio.Future[RunningReward]") -> None:
    """Also when something else did not start: on a cluster the replicas would stay."""
    with contextlib.suppress(PairloopError):
        (await launched).stop()


async def _failure(learner: "asyncio.Future[dict[str, float]]") -> None:
    """Ends only when the learner fails: it returns a moment before the loop does."""
    await asyncio.shield(learner)
    await asyncio.Event().wait()
