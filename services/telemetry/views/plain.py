"""The run as lines of a log, for output that is no terminal: no control characters."""

import sys
import time
from collections.abc import Callable
from typing import IO

from services.states import ABORTED, State
from services.telemetry.format import count, duration, number, one_line, reasons, share
from services.telemetry.record.events import (
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    StageFinished,
    StageHeld,
    StageStarted,
    StageWaiting,
    TrainProgress,
    WeightsPublished,
)
from services.telemetry.record.state import RunState, Stage
from services.telemetry.views.estimate import stage_left, tokens_per_second

_REMIND_S = 60.0
"""How often a pause is said again."""
_RESULTS = ("loss", "accuracy", "margin", "dpo_margin", "kl")


class PlainView:
    """One line a stage's start and end, an episode, an evaluation, a note; a few of training.

    A stage that is reused has one line in all.
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        every_s: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._every_s = every_s
        self._clock = clock
        self._last_line_at = clock()
        self._being_reused = ""
        self._states: dict[tuple[str, int], State] = {}
        """By stage and number of the episode."""

    def start(self) -> None:
        """Nothing to set up."""

    def stop(self) -> None:
        """Leave nothing in the buffer."""
        self._stream.flush()

    def handle(self, event: Event, state: RunState) -> None:
        """Write the event's line, where it has one."""
        match event:
            case StageStarted():
                self._being_reused = event.stage if event.reused else ""
                if not event.reused:
                    self._line(f"[{event.index}/{event.total}] {event.stage}: started")
            case StageFinished():
                self._finished(event, state)
            case StageWaiting():
                self._line(f"{event.stage}: waiting: {event.reason}")
            case StageHeld():
                self._held(event, state)
            case TrainProgress() if self._due():
                self._progress(event, state)
            case EpisodeChanged():
                self._episode_changed(event, state.stages[event.stage].admin)
            case EpisodeFinished():
                self._episode_finished(event)
            case WeightsPublished() if event.repaired:
                self._line(
                    f"warning: {event.stage}: version {event.version}: {event.repaired} of "
                    f"{event.workers} workers needed a second full sync"
                )
            case Evaluated() if event.stage != self._being_reused:
                self._line(f"{event.stage}: {_accuracies(event)}")
            case Note():
                mark = "warning: " if event.level == "warning" else ""
                self._line(mark + state.notes[-1].line)

    def _line(self, text: str) -> None:
        self._stream.write(one_line(text) + "\n")
        self._stream.flush()
        self._last_line_at = self._clock()

    def _due(self) -> bool:
        return self._clock() - self._last_line_at >= self._every_s

    def _finished(self, event: StageFinished, state: RunState) -> None:
        stage = state.stages[event.stage]
        evaluation = _evaluation_by(stage, state)
        if event.stage != self._being_reused:
            done = "reused" if event.reused else f"done in {duration(event.seconds)}"
            numbers = "" if evaluation else _numbers(event.metrics, _RESULTS)
            self._line(f"{event.stage}: {done}{numbers} -> {event.folder}")
            return
        self._being_reused = ""
        numbers = (
            f", {_accuracies(evaluation)}" if evaluation else _numbers(event.metrics, _RESULTS)
        )
        head = f"[{stage.index}/{stage.total}] {stage.name}: reused"
        self._line(f"{head}{numbers} -> {event.folder}")

    def _held(self, event: StageHeld, state: RunState) -> None:
        curve = state.stages[event.stage].curve
        at = f" after step {curve[-1].step}" if curve else ""
        what = f"is held{at}, which is in a checkpoint" if event.held else "goes on"
        self._line(f"{event.stage}: {what}")

    def _progress(self, event: TrainProgress, state: RunState) -> None:
        stage = state.stages[event.stage]
        pace = tokens_per_second(stage)
        left = stage_left(stage)
        self._line(
            f"{event.stage}: step {event.step}/{event.steps}{_numbers(event.metrics, _RESULTS)}"
            + (f" {count(pace)} tokens/s" if pace else "")
            + (f", {duration(left)} left" if left is not None else "")
        )

    def _episode_changed(self, event: EpisodeChanged, admin: str) -> None:
        """Pauses and failures at once; counters as often as training progress."""
        head = f"episode {event.number}/{event.total}: {event.state}"
        before = self._states.get((event.stage, event.number))
        moved = before != event.state
        self._states[event.stage, event.number] = event.state
        if event.state == State.PAUSED and moved:
            hint = f"; to go on: {admin} resume" if admin else ""
            self._line(f"{head} ({event.reason or 'no reason given'}){hint}")
        elif event.state == State.PAUSED and self._clock() - self._last_line_at >= _REMIND_S:
            self._line(f"{head}: still waiting to be resumed")
        elif event.state == State.PAUSING and (moved or self._due()):
            self._line(f"{head}: {event.in_flight} prompts in flight finish, no new ones start")
        elif moved and before == State.PAUSED:
            self._line(f"{head}, resumed")
        elif moved and event.state in ABORTED:
            self._line(f"{head}: {event.reason or 'no reason given'}")
        elif event.state == State.SAMPLING and self._due():
            self._line(
                f"{head}: {event.dispatched}/{event.prompts} prompts sent, {event.paired} pairs, "
                f"{sum(event.dropped.values())} dropped, {event.in_flight} in flight"
            )

    def _episode_finished(self, event: EpisodeFinished) -> None:
        dropped = reasons(event.dropped)
        self._line(
            f"episode {event.number}/{event.total}: done, version {event.version},"
            f" {event.pairs} pairs"
            + (f" (dropped: {dropped})" if dropped else "")
            + _numbers(event.metrics, ("reward_mean", "margin", "length_gap", "kl", "loss"))
        )


def _evaluation_by(stage: Stage, state: RunState) -> Evaluated | None:
    """What this stage measured, of its own model or of another stage's."""
    holder = state.stages[stage.evaluates] if stage.evaluates else stage
    found = holder.evaluation
    return found if found is not None and found.stage == stage.name else None


def _accuracies(event: Evaluated) -> str:
    """ "sampled 0.332 (n=2048), greedy 0.410 (n=256), held-out loss 2.31"."""
    parts = []
    if event.sampled is not None:
        parts.append(f"sampled {share(event.sampled)} (n={event.sampled_n})")
    if event.greedy is not None:
        parts.append(f"greedy {share(event.greedy)} (n={event.greedy_n})")
    if event.lm_loss is not None:
        parts.append(f"held-out loss {number(event.lm_loss)}")
    return ", ".join(parts)


def _numbers(metrics: dict[str, float], names: tuple[str, ...]) -> str:
    """ " loss 1.23 accuracy 0.71", of those that are there."""
    return "".join(f" {name} {number(metrics[name])}" for name in names if name in metrics)
