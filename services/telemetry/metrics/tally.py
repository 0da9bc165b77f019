"""Events into metrics: what the record is told, Prometheus is told.

Counters count what this process saw happen; what an earlier attempt recorded is no news, so the
state that a run goes on from is taken as counted.
"""

import re
from collections import Counter
from collections.abc import Mapping

from services.states import State
from services.telemetry.metrics.instruments import MEASURED, PHASES, Instruments
from services.telemetry.record.events import (
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    PartReplaced,
    RunStarted,
    StageFinished,
    StageStarted,
    StageWaiting,
    TrainProgress,
    WeightsPublished,
)
from services.telemetry.record.state import RunState, Stage

_COUNTED = {"groups", "pairs", "trained_pairs", *(f"{phase}_seconds" for phase in PHASES)}
"""Measures of an episode that counters hold."""
_PLACE = re.compile(r"-\d+$")


class Tally:
    """`take` each event after the state has. `answers`: of a prompt, by online stage."""

    def __init__(self, instruments: Instruments, answers: Mapping[str, int]) -> None:
        self._to = instruments
        self._answers = answers
        self._seen: dict[tuple[str, ...], float] = {}
        """What was counted, by what it is of."""
        self._states: dict[tuple[str, int], State] = {}

    def take(self, event: Event, state: RunState) -> None:
        """Add one event."""
        to = self._to
        if isinstance(event, RunStarted):
            to.attempts.set(state.attempts)
            self._take_as_counted(state)
        to.worked.inc(self._grown(state.worked, "worked"))
        to.held.inc(self._grown(state.paused, "paused"))
        to.paused.set(state.held())
        to.last_event.set(state.last_at)
        match event:
            case StageStarted():
                to.running.labels(event.stage, event.job).set(1)
                to.stage_number.set(event.index)
                to.stages.set(event.total)
            case StageFinished():
                to.running.labels(event.stage, event.job).set(0)
            case StageWaiting():
                to.running.labels(event.stage, state.stages[event.stage].job).set(0)
            case TrainProgress():
                self._progress(event)
            case EpisodeChanged():
                self._changed(event, state.stages[event.stage])
            case EpisodeFinished():
                self._finished(event, state.stages[event.stage])
            case WeightsPublished():
                self._published(event, state.stages[event.stage])
            case Evaluated():
                self._evaluated(event)
            case PartReplaced():
                to.restarts.labels(part_of(event.part)).inc()
            case Note(level="warning"):
                to.warnings.inc()

    def _take_as_counted(self, state: RunState) -> None:
        self._grown(state.worked, "worked")
        self._grown(state.paused, "paused")
        for stage in state.stages.values():
            if stage.curve:
                self._grown(stage.curve[-1].tokens, stage.name, "tokens")
            for episode in stage.episodes.values():
                of = (stage.name, str(episode.number))
                self._grown(episode.dispatched, *of, "dispatched")
                self._grown(episode.paired, *of, "paired")
                for reason, count in episode.dropped.items():
                    self._grown(count, *of, "dropped", reason)

    def _progress(self, event: TrainProgress) -> None:
        self._to.step.labels(event.stage).set(event.step)
        self._to.steps.labels(event.stage).set(event.steps)
        key = (event.stage, "tokens")
        if event.tokens < self._seen.get(key, 0):
            self._seen[key] = 0  # a learner that was started again counts from its own start
        self._to.trained_tokens.labels(event.stage).inc(self._grown(event.tokens, *key))
        self._measure(event.stage, event.metrics)

    def _changed(self, event: EpisodeChanged, stage: Stage) -> None:
        to = self._to
        to.online(event.stage)
        of = (event.stage, str(event.number))
        to.dispatched.labels(event.stage).inc(self._grown(event.dispatched, *of, "dispatched"))
        self._count_ended(event.stage, event.number, event.paired, event.dropped)
        working = stage.working_episodes()
        to.in_flight.labels(event.stage).set(sum(episode.in_flight for episode in working))
        if self._states.get((event.stage, event.number)) != event.state:
            self._states[event.stage, event.number] = event.state
            self._count_states(stage, event.total)
        if event.state == State.SAMPLING and stage.weights:
            behind = event.number - 1 - max(stage.weights)
            to.staleness.labels(event.stage).set(max(0, behind))

    def _count_ended(self, stage: str, number: int, paired: int, dropped: dict[str, int]) -> None:
        of = (stage, str(number))
        self._to.pairs.labels(stage).inc(self._grown(paired, *of, "paired"))
        for reason, count in dropped.items():
            more = self._grown(count, *of, "dropped", reason)
            self._to.drops.labels(stage, reason.lower()).inc(more)

    def _count_states(self, stage: Stage, total: int) -> None:
        found = Counter(episode.state for episode in stage.episodes.values())
        found[State.PENDING] += total - len(stage.episodes)
        for each in State:
            self._to.episodes.labels(stage.name, each).set(found[each])
        latest = max((e.number for e in stage.working_episodes()), default=max(stage.episodes))
        self._to.episode.labels(stage.name).set(latest)

    def _finished(self, event: EpisodeFinished, stage: Stage) -> None:
        to, told = self._to, event.metrics
        to.online(event.stage)
        self._count_ended(event.stage, event.number, event.pairs, event.dropped)
        self._states[event.stage, event.number] = State.COMPLETED
        self._count_states(stage, event.total)
        to.trained.labels(event.stage).inc(told.get("trained_pairs", 0.0))
        for phase in PHASES:
            to.phases.labels(event.stage, phase).inc(told.get(f"{phase}_seconds", 0.0))
        answers = told.get("groups", 0.0) * self._answers.get(event.stage, 0)
        to.sampled_tokens.labels(event.stage).inc(answers * told.get("answer_tokens", 0.0))
        self._measure(event.stage, told)

    def _published(self, event: WeightsPublished, stage: Stage) -> None:
        to, name = self._to, event.stage
        to.online(name)
        to.version.labels(name).set(max(stage.weights))
        to.syncs.labels(name).observe(event.seconds)
        to.sync_bytes.labels(name).inc(event.bytes * event.workers)
        to.attestations.labels(name).inc(event.workers)
        to.mismatches.labels(name).inc(event.repaired)
        to.attested.labels(name).set(event.workers)
        to.canary.labels(name).set(event.max_canary_difference)

    def _evaluated(self, event: Evaluated) -> None:
        policy = event.policy or event.stage
        for how, value in (("sampled", event.sampled), ("greedy", event.greedy)):
            if value is not None:
                self._to.evaluated.labels(policy, how).set(value)
        if event.lm_loss is not None:
            self._to.heldout.labels(policy).set(event.lm_loss)

    def _measure(self, stage: str, told: Mapping[str, float]) -> None:
        for name, value in told.items():
            if name in MEASURED:
                self._to.measured[name].labels(stage).set(value)
            elif name.startswith("reward_"):
                self._to.part.labels(stage, name.removeprefix("reward_")).set(value)
            elif name not in _COUNTED:
                self._to.other.labels(stage, name).set(value)

    def _grown(self, now: float, *of: str) -> float:
        """By how much since the last time; what shrank (a dead letter tried again) grew by 0."""
        before = self._seen.get(of, 0.0)
        self._seen[of] = now
        return max(0.0, now - before)


def part_of(name: str) -> str:
    """A part as its label: without an article, and without the number of its place."""
    return _PLACE.sub("", name.removeprefix("the "))
