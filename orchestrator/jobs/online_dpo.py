"""Online DPO: start every service, run the loop, keep the last version.

What runs where: rollout engines, pairing, the reward's replicas and gateway, the learner and the
weight board are Ray processes; Redis is a server of its own; the loop and the admin API are here.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from orchestrator.config import OnlineDPOJob
from orchestrator.episodes import EpisodeStore
from orchestrator.lineage import base_of, reference_of
from orchestrator.loop import run_episodes
from orchestrator.parts import Parts, Weights
from orchestrator.prompts import episode_prompts
from orchestrator.publishing import BoardPublisher
from orchestrator.supervision import supervise
from orchestrator.work import Work
from pairloop.data.v1.rollout_pb2 import Prompt
from services.admin.server import AdminServer
from services.data.chat import tokenizer_fingerprint
from services.data.rows import read_prompts
from services.errors import StallError, WorkerError
from services.learner import ray_train
from services.learner.models import load_tokenizer
from services.learner.online import online_learner
from services.learner.specs import OnlineSpec
from services.pairs.actor import start_pairing
from services.pairs.stats import merge
from services.queues.address import redis_address
from services.queues.ledger import ledger_audit
from services.queues.queues import RunQueues
from services.reward.client import GrpcScorer
from services.reward.launch import launch
from services.telemetry.events import Note
from services.telemetry.format import duration
from services.telemetry.sink import Reporter
from services.weights.board import start_board
from services.weights.broadcaster import broadcast
from services.weights.canary import canary_tokens, default_tolerance

_START_S = 300.0
"""How long pairing and the reward may take to come up."""

_KEPT_S = 86_400
"""How long Redis keeps a finished run; the ledger is in the artifact."""


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


async def run(job: OnlineDPOJob, work: Work) -> dict[str, float]:
    """Run every episode; the artifact is the last version. An interrupted run goes on."""
    # Ids have no attempt in them: the same run made again gives the same ids.
    ids = f"{work.run.name}.{work.stage}.{work.fingerprint}"
    name = f"{ids}.{_attempt(work.scratch)}"
    async with contextlib.AsyncExitStack() as stack:
        url = stack.enter_context(redis_address(job.queues, work.run.folder / "redis"))
        services = await _start(job, work, name, url, stack)
        await supervise(_loop(job, work, ids, services), _watched(services))
        metrics = await _drained(services.learner, job.episodes.timeout_s)
        ledger = await services.queues.ledger()
        await services.queues.expire(_KEPT_S)
    _write_ledger(work.out / "ledger.jsonl", [asdict(event) for event in ledger])
    problems = ledger_audit(ledger)
    if problems:
        raise WorkerError(f"the ledger does not add up: {problems[0]} ({len(problems)} problems)")
    return metrics | {"ledger_events": float(len(ledger))}


def _attempt(scratch: Path) -> str:
    """Part of the names of this attempt's keys in Redis.

    Lies with the learner's checkpoints: a restart goes on with the same keys, and a stage that is
    made anew, its artifact removed, does not find the episodes of the last time completed.
    """
    path = scratch / "attempt"
    if not path.is_file() or not path.read_text(encoding="utf-8"):
        path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8")


async def _start(
    job: OnlineDPOJob, work: Work, name: str, url: str, stack: contextlib.AsyncExitStack
) -> Services:
    """Start what is independent at once: each of these imports for seconds."""
    queues = await RunQueues.open(url, name, job.queues)
    stack.push_async_callback(queues.close)
    store = await EpisodeStore.open(url, name, job.queues.connect_timeout_s)
    stack.push_async_callback(store.close)
    await store.create(job.episodes.count, job.episodes.prompts)
    admin = AdminServer()
    address = await admin.start(job.admin, store)
    stack.push_async_callback(admin.stop)
    work.run.report(
        Note(text=f"admin API at {address} (gRPC, reflection on); the services are starting")
    )
    began = time.monotonic()

    board = start_board()
    if job.engine.num_gpus:
        await work.run.samplers.release()
    tokenizer = load_tokenizer(job.policy)
    learner = _start_learner(job, work, name, url, board, len(tokenizer))
    engines, reward = await asyncio.gather(
        work.run.samplers.shaped_for(job.policy, job.engine),
        asyncio.to_thread(launch, job.reward, run=name, timeout_s=_START_S),
    )
    stack.callback(reward.stop)
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
                stage=work.stage,
                sink=work.run.sink,
            )
            for number, actor in enumerate(pairing)
        )
    )
    work.run.report(
        Note(text=f"engines, reward and pairing up in {duration(time.monotonic() - began)}")
    )
    return Services(queues, store, engines, pairing, board, learner, tokenizer)


def _start_learner(
    job: OnlineDPOJob, work: Work, name: str, url: str, board: Any, vocabulary: int
) -> "asyncio.Future[dict[str, float]]":
    spec = OnlineSpec(
        stage=work.stage,
        seed=job.seed,
        train=job.train,
        run=name,
        redis_url=url,
        queues=job.queues,
        policy=job.policy,
        reference=reference_of(job),
        base=base_of(job),
        dpo=job.dpo,
        episodes=job.episodes.count,
        prompts_per_episode=job.episodes.prompts,
        max_staleness=job.episodes.max_staleness,
        folder=str(work.scratch / "learner"),
        out=str(work.out),
        canary_tokens=canary_tokens(vocabulary, job.seed),
        canary_tolerance=job.sync.canary_tolerance or default_tolerance(job.engine.dtype),
        timeout_s=job.episodes.timeout_s,
    )
    future = ray_train.start(
        online_learner,
        spec,
        job.train,
        work.scratch / "train",
        Reporter(work.run.sink),
        work.stage,
        extras=(RunQueues.open, BoardPublisher(board, job.engine.dtype)),
    )
    return asyncio.wrap_future(future)


def _watched(services: Services) -> dict[str, Awaitable[Any]]:
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


async def _failure(learner: "asyncio.Future[dict[str, float]]") -> None:
    """Ends only when the learner fails: it returns a moment before the loop does."""
    await asyncio.shield(learner)
    await asyncio.Event().wait()


async def _loop(job: OnlineDPOJob, work: Work, ids: str, services: Services) -> None:
    rows = read_prompts(job.prompts)

    def prompts(episode: int) -> list[Prompt]:
        return episode_prompts(
            rows,
            services.tokenizer,
            job.sampling,
            run=ids,
            episode=episode,
            count=job.episodes.prompts,
            seed=job.seed,
        )

    async def dispatch(episode: int, wanted: Sequence[Prompt]) -> int:
        answer = await services.queues.dispatch(episode, wanted)
        return answer.sent + answer.known

    async def weights(version: int, timeout_s: float) -> Weights:
        held = await services.board.wait.remote(version, timeout_s)
        return Weights(held.version, (held.manifest, held.refs), held.metrics)

    async def publish(version: Weights) -> None:
        manifest, refs = version.payload
        event = await broadcast(services.engines, manifest, refs[0], job.sync.timeout_s)
        await services.queues.published(version.version, version.version)
        work.run.report(event)

    async def statistics(episode: int) -> dict[str, float]:
        found = await asyncio.gather(*(a.stats.remote(episode) for a in services.pairing))
        return merge(found)

    parts = Parts(
        episodes=services.store,
        prompts=prompts,
        dispatch=dispatch,
        weights=weights,
        publish=publish,
        statistics=statistics,
        report=work.run.report,
    )
    await run_episodes(parts, job.episodes)


async def _drained(
    learner: "asyncio.Future[dict[str, float]]", timeout_s: float
) -> dict[str, float]:
    """The learner's last metrics; it returns once it has written its last version."""
    try:
        async with asyncio.timeout(timeout_s):
            return await learner
    except TimeoutError:
        raise StallError(
            f"the learner did not write its last version within {timeout_s:.0f} s; see its log, or"
            " raise episodes.timeout_s"
        ) from None


def _write_ledger(path: Path, events: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
