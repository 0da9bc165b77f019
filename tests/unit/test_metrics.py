"""What events become in Prometheus, and where it listens."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from orchestrator.checks.addresses import check_addresses
from orchestrator.config.ray import RaySettings
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.recipe import Recipe
from services.errors import ConfigError, UnreachableError
from services.states import State
from services.telemetry.metrics.asked import Asked, Asking
from services.telemetry.metrics.exporter import Exporter
from services.telemetry.metrics.instruments import Instruments
from services.telemetry.metrics.tally import Tally
from services.telemetry.record.events import (
    EpisodeChanged,
    EpisodeFinished,
    Event,
    PartReplaced,
    RunStarted,
    TrainProgress,
)
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState
from tests.sample_events import run_events

S = {"stage": "online"}


class Run:
    """A process that tells its events; another goes on from its state."""

    def __init__(self, state: RunState | None = None) -> None:
        self.registry, self.state = CollectorRegistry(), state or RunState()
        self.tally = Tally(Instruments(self.registry), {"online": 4, "online_dpo": 4})
        self.tell(RunStarted())

    def tell(self, *events: Event) -> None:
        for event in events:
            apply(self.state, event, self.state.last_at + 1.0)
            self.tally.take(event, self.state)

    def value(self, metric: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pairloop_{metric}", labels)


def changed(state: State, sent: int, paired: int, **dropped: int) -> EpisodeChanged:
    return EpisodeChanged(
        stage="online", number=1, total=3, state=state, prompts=9, dispatched=sent,
        in_flight=sent - paired - sum(dropped.values()), paired=paired, dropped=dropped,
    )  # fmt: skip


def step(tokens: int) -> TrainProgress:
    return TrainProgress(
        stage="online", step=1, steps=9, tokens=tokens, seconds=1.0, metrics={"loss": 0.5}
    )


def test_a_whole_run_is_counted_once() -> None:
    run = Run()
    run.tell(*run_events())
    online = {"stage": "online_dpo"}
    stage = run.state.stages["online_dpo"]
    episodes = stage.finished_episodes()
    assert run.value("pairs_total", **online) == sum(e.paired for e in episodes) > 0
    for reason in ("tie", "single_answer", "margin"):
        found = run.value("drops_total", reason=reason, **online)
        assert found == sum(e.dropped[reason] for e in episodes) > 0
    assert run.value("drops_total", reason="stale", **online) == 0
    assert run.value("prompts_dispatched_total", **online) == 1280
    assert run.value("trained_tokens_total", **online) == stage.curve[-1].tokens
    assert run.value("episodes", state="COMPLETED", **online) == 10
    assert run.value("episodes", state="PENDING", **online) == 0
    published = stage.weights.values()
    assert run.value("sync_bytes_total", **online) == sum(w.bytes * w.workers for w in published)
    assert run.value("attestation_mismatches_total", **online) == 1
    assert run.value("weight_version", **online) == 10
    metrics = episodes[-1].metrics
    assert run.value("reward_mean", **online) == metrics["reward_mean"]
    assert run.value("reward_part_mean", part="checker", **online) == metrics["reward_checker"]
    assert run.value("measure", name="tokens_per_second", **online) == 1900
    assert run.value("work_seconds_total") == run.state.worked
    assert run.value("paused_seconds_total") == run.state.paused > 0
    assert run.value("stage_running", job="online_dpo", **online) == 0
    assert run.value("stages") == 11


def test_what_an_earlier_attempt_recorded_is_not_counted_again() -> None:
    before = Run()
    before.tell(changed(State.SAMPLING, 4, 2, TIE=2), step(100))
    worked = before.state.worked
    after = Run(before.state)
    after.tell(changed(State.SAMPLING, 7, 3, TIE=4), step(130))
    assert after.value("prompts_dispatched_total", **S) == 3
    assert after.value("pairs_total", **S) == 1
    assert after.value("drops_total", reason="tie", **S) == 2
    assert after.value("trained_tokens_total", **S) == 30
    assert after.value("run_attempts") == 2
    assert after.value("work_seconds_total") == after.state.worked - worked == 2


def test_a_counter_never_falls() -> None:
    run = Run()
    run.tell(changed(State.SAMPLING, 4, 2, DEAD_LETTER=2), step(100))
    run.tell(changed(State.SAMPLING, 4, 2, DEAD_LETTER=1), step(40))
    run.tell(changed(State.SAMPLING, 4, 2, DEAD_LETTER=2))
    assert run.value("drops_total", reason="dead_letter", **S) == 3
    assert run.value("trained_tokens_total", **S) == 140  # a learner that was started again


def test_sampled_tokens_are_those_of_every_answer() -> None:
    run = Run()
    metrics = {"groups": 6.0, "answer_tokens": 10.0, "sample_seconds": 2.5, "trained_pairs": 5.0}
    run.tell(
        EpisodeFinished(
            stage="online", number=1, total=3, version=1, pairs=5, dropped={"TIE": 1},
            metrics=metrics,
        )
    )  # fmt: skip
    assert run.value("sampled_tokens_total", **S) == 6 * 4 * 10
    assert run.value("phase_seconds_total", phase="sample", **S) == 2.5
    assert run.value("trained_pairs_total", **S) == 5
    assert run.value("episodes", state="PENDING", **S) == 2


def test_a_part_is_counted_without_its_number() -> None:
    run = Run()
    for name in ("rollout-0", "rollout-11", "the learner"):
        run.tell(PartReplaced(stage="online", part=name))
    assert run.value("restarts_total", part="rollout") == 2
    assert run.value("restarts_total", part="learner") == 1
    assert run.value("restarts_total", part="pairs") == 0


async def scraped(
    question: Callable[[], Awaitable[Asked]], answer_s: float = 10.0
) -> dict[str, float]:
    asking = Asking(answer_s)
    async with asking.of("online", question):
        families = await asyncio.to_thread(lambda: list(asking.collect()))
    assert all(not family.samples for family in asking.collect())  # nobody is asked any more
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_who_does_not_answer_is_down_and_has_no_values() -> None:
    async def away() -> Asked:
        raise UnreachableError("Redis does not answer")

    async def silent() -> Asked:
        await asyncio.Event().wait()
        raise AssertionError

    async def well() -> Asked:
        return Asked({"prompts": 3}, 5, 8, 1, {("rollout", "working"): 2}, memory_bytes=None)

    assert await scraped(away) == {"pairloop_redis_up": 0}
    assert await scraped(silent, answer_s=0.05) == {"pairloop_redis_up": 0}
    assert await scraped(well) == {
        "pairloop_redis_up": 1, "pairloop_queue_entries": 3, "pairloop_credits_in_use": 5,
        "pairloop_credits": 8, "pairloop_dead_letters": 1, "pairloop_workers": 2,
    }  # fmt: skip


def online(metrics: dict[str, object], admin: int = 0) -> OnlineDPO:
    given = {
        "policy": "some/policy", "prompts": {"path": "prompts.jsonl"}, "admin": {"port": admin},
        "reward": {"parts": [{"kind": "checker"}]}, "metrics": metrics,
    }  # fmt: skip
    return OnlineDPO.model_validate(given)


def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = online({"port": port})
        with pytest.raises(UnreachableError, match=rf"port {port} .* set metrics\.port to"):
            check_addresses(RaySettings(), [job], job.own_listeners())
        with pytest.raises(UnreachableError, match=r"set metrics\.host and metrics\.port"):
            Exporter("127.0.0.1", port, {}, {}).start()
    check_addresses(RaySettings(), [job], job.own_listeners())
    assert [each.key for each in online({}).own_listeners()] == ["admin.port"]


def test_one_port_for_two_is_refused() -> None:
    job = online({"port": 50999}, admin=50999)
    with pytest.raises(ConfigError, match=r"admin\.port and metrics\.port are both 50999"):
        check_addresses(RaySettings(), [job], job.own_listeners())


def test_a_stage_of_a_recipe_has_no_port_of_its_own(tmp_path: Path) -> None:
    stage = {"job": "demo_data", "metrics": {"port": 0}}
    with pytest.raises(ValueError, match=r"stages\.data\.metrics: .* set `metrics` of the recipe"):
        Recipe.model_validate({"stages": {"data": stage}})
