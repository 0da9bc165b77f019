"""Online DPO: start the services, run the loop on them, keep the last version."""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.artifacts.kept_id import kept_id
from orchestrator.artifacts.store import linked, read_artifact
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.loop import run_episodes
from orchestrator.online.archive import LedgerArchive, require_training
from orchestrator.online.closing import drain
from orchestrator.online.dead_letters import DEAD_LETTERS, join_dead_letters
from orchestrator.online.engine_fleet import publish as publish_to
from orchestrator.online.engine_fleet import render
from orchestrator.online.healing import Budget
from orchestrator.online.ports import LoopPorts, Weights
from orchestrator.online.prompts import episode_prompts, prompt_id
from orchestrator.online.services import Services, start_services
from orchestrator.online.supervision import supervise
from orchestrator.online.traced import traced
from orchestrator.online.watched import watched
from orchestrator.stages.context import StageContext
from pairloop.data.v1.rollout_pb2 import Prompt
from services.causes import causes
from services.data.rows import read_prompts
from services.errors import ReplacedError, UnreachableError
from services.learner.online.pair_record import join_pairs
from services.learner.online.rollouts import ROLLOUTS
from services.pairs.stats import merge
from services.queues.address import redis_of_run
from services.queues.ledger_file import LEDGER
from services.queues.run_lease import RunLease
from services.telemetry.tracing.spans import process_spans

_KEPT_S = 86_400
"""How long Redis keeps a finished run; the ledger is in the artifact."""


async def run_online(job: OnlineDPO, context: StageContext) -> dict[str, float]:
    """Run every episode; the artifact is the last version. An interrupted run goes on."""
    # Ids have no attempt in them: the same run made again gives the same ids.
    ids = f"{context.run.name}.{context.stage}.{context.trunk}"
    name = f"{ids}.{_attempt(context.scratch)}"
    published = _published(context)

    def planned(episode: int) -> list[str]:
        return [prompt_id(ids, episode, index) for index in range(job.episodes.prompts)]

    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(redis_of_run(job.queues, context.run.folder / "redis"))
        url = redis.url
        for doubt in await redis.doubts(job.queues.connect_timeout_s):
            context.warn(doubt)
        lease = await _lease(job, context, name, url)
        stack.push_async_callback(lease.end)
        budget = Budget(job.restarts, context.stage, context.warn, replaced=context.replaced)

        def own() -> dict[str, Coroutine[Any, Any, Any]]:
            return {
                "the lease on the run": lease.keep(),
                "redis": redis.keep_up(context.warn),
            }

        starting = start_services(job, context, name, url, lease.epoch, published, stack, budget)
        services = await supervise(starting, own(), patience_s=0.0)
        archive = LedgerArchive(context.scratch, services.queues, planned, context.warn)
        spans, queues = process_spans("orchestrator"), services.queues
        ports = _ports(job, context, ids, services, archive)
        ports = traced(ports, services.dispatch, queues.ledger, spans)

        async def whole() -> None:
            parts = watched(services, job.sync.timeout_s, budget)
            await supervise(run_episodes(ports, job.episodes), parts)
            await drain(services.learner, ports, job.episodes)

        try:
            await supervise(whole(), own() | {"the run's keys": services.queues.keep()})
        finally:
            await _tell_dead_letters(services, context)
        metrics = services.learner.result()
        await archive.write_start()
        await services.queues.expire(_KEPT_S)
    before = context.extends / LEDGER if context.extends else None
    archive.join(published + 1, job.episodes.count, before, context.out / LEDGER)
    if (letters := context.scratch / DEAD_LETTERS).is_file():
        linked(letters, context.out / DEAD_LETTERS)
    join_pairs(context.scratch / job.resume, job.episodes.count, context.out / "pairs.jsonl")
    if (recorded := context.scratch / job.resume / ROLLOUTS).is_dir():
        linked(recorded, context.out / ROLLOUTS)
    if context.extends is None:
        require_training(context.stage, context.out / LEDGER)
    return metrics


def _attempt(scratch: Path) -> str:
    """Part of the names of this attempt's keys in Redis.

    Lies with the learner's checkpoints: a restart goes on with the same keys, and a stage that is
    made anew, its artifact removed, does not find the episodes of the last time completed.
    """
    return kept_id(scratch / "attempt", 8)


async def _lease(job: OnlineDPO, context: StageContext, name: str, url: str) -> RunLease:
    def waiting(holder: str) -> None:
        context.warn(f"this run is still held by {holder}; waiting until its lease runs out")

    how = job.queues
    return await RunLease.take(url, name, how.lease_s, how.connect_timeout_s, waiting)


def _ports(
    job: OnlineDPO, context: StageContext, ids: str, services: Services, archive: LedgerArchive
) -> LoopPorts:
    rows = read_prompts(job.prompts)

    async def prompts(episode: int) -> list[Prompt]:
        return await episode_prompts(
            rows,
            partial(render, services.engines, job.policy),
            job.sampling,
            run=ids,
            episode=episode,
            count=job.episodes.prompts,
            seed=job.seed,
        )

    async def weights(version: int, timeout_s: float) -> Weights:
        held = await services.version_store.wait(version, timeout_s)
        return Weights(held.version, (held.manifest, held.refs), held.metrics)

    # While a learner is started again, who loads waits for it.
    deadline = job.sync.timeout_s + job.engine.start_timeout_s

    async def publish(version: Weights) -> None:
        manifest, refs = version.payload
        event = await publish_to(
            services.engines, services.newest, manifest, refs, deadline, stage=context.stage
        )
        await services.queues.published(version.version, version.version)
        context.run.report(event)

    async def statistics(episode: int) -> dict[str, float]:
        return merge(await asyncio.gather(*(w.stats(episode) for w in services.pairing.all_slots)))

    async def failures(episode: int) -> str:
        letters = await services.queues.dead_letters()
        return causes([(x.prompt_id, x.error) for x in letters if x.episode == episode])

    async def put_away(episode: int) -> bool:
        if episode <= _published(context):  # it is in the artifact that this goes on from
            return True
        return await archive.put_away(episode)

    return LoopPorts(
        stage=context.stage,
        episodes=services.store,
        prompts=prompts,
        dispatch=services.dispatch,
        staleness=lambda: services.staleness.versions,
        weights=weights,
        publish=publish,
        statistics=statistics,
        failures=failures,
        archive=put_away,
        report=context.run.report,
        changed=services.store.changed,
    )


async def _tell_dead_letters(services: Services, context: StageContext) -> None:
    """Whatever ended the run: they say what is to be mended."""
    with contextlib.suppress(UnreachableError, ReplacedError):
        letters = await services.queues.dead_letters()
        path = context.scratch / DEAD_LETTERS
        if count := join_dead_letters(context.scratch, letters, path):
            context.warn(f"{count} prompts kept failing; they and their causes are in {path}")


def _published(context: StageContext) -> int:
    """Episodes that the artifact this stage goes on from holds."""
    artifact = read_artifact(context.extends) if context.extends else None
    return int(artifact.metrics.get("version", 0)) if artifact else 0
