"""What a run has come to, reduced from its events: views, summary and report read this alone.

`apply` is a pure reducer: the same events give the same state, so a resumed run rebuilds it
from metrics.jsonl. When work is done again after a restart, the last telling wins: a training
step cuts its own curve from there on, an episode that samples anew drops itself and later ones.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from services.telemetry.record.events import (
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    PairExample,
    StageFinished,
    StageStarted,
    TrainProgress,
    WeightsPublished,
)

WORKING = ("SAMPLING", "PAUSING", "PAUSED", "TRAINING", "PUBLISHING")
"""States of an episode that is neither waiting nor over."""


@dataclass(slots=True)
class Point:
    """One point of a training curve."""

    episode: int
    """Which was in training; 0 outside the online loop."""
    step: int
    steps: int
    tokens: int
    seconds: float
    metrics: dict[str, float]


@dataclass(slots=True)
class Episode:
    """One round of the online loop."""

    number: int
    total: int
    state: str = "PENDING"
    prompts: int = 0
    dispatched: int = 0
    in_flight: int = 0
    paired: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    version: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    finished: bool = False
    changed_at: float = 0.0
    """When `state` last changed."""


@dataclass(slots=True)
class Stage:
    """One job of the run."""

    name: str
    job: str = ""
    index: int = 0
    total: int = 0
    started_at: float = 0.0
    finished: bool = False
    reused: bool = False
    seconds: float | None = None
    """What making it took, in whichever attempt it was made; None while unknown."""
    folder: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    curve: list[Point] = field(default_factory=list)
    evaluation: Evaluated | None = None
    episodes: dict[int, Episode] = field(default_factory=dict)
    weights: dict[int, WeightsPublished] = field(default_factory=dict)
    examples: dict[int, dict[str, PairExample]] = field(default_factory=dict)
    """By episode, then by prompt: the same pair told twice is one."""

    @property
    def over(self) -> bool:
        """Finished, or only evaluated: a policy from elsewhere."""
        return self.finished or (not self.job and self.evaluation is not None)

    def finished_episodes(self) -> list[Episode]:
        """In order."""
        return [e for _, e in sorted(self.episodes.items()) if e.finished]

    def working_episodes(self) -> list[Episode]:
        """Those under way, in order: more than one where sampling overlaps training."""
        return [e for _, e in sorted(self.episodes.items()) if e.state in WORKING]


@dataclass(slots=True)
class TimedNote:
    """A note and when it came."""

    at: float
    text: str
    level: str


@dataclass(slots=True)
class RunState:
    """Everything told so far."""

    stages: dict[str, Stage] = field(default_factory=dict)
    current: str = ""
    """The stage that started last."""
    notes: list[TimedNote] = field(default_factory=list)
    started_at: float = 0.0
    last_at: float = 0.0

    def ordered(self) -> list[Stage]:
        """The stages in the order of the run."""
        return sorted(self.stages.values(), key=lambda stage: stage.index)

    def running(self) -> Stage | None:
        """The stage under way."""
        stage = self.stages.get(self.current)
        return stage if stage is not None and not stage.finished else None


def total_drops(episodes: Iterable[Episode]) -> dict[str, int]:
    """Groups that gave no pair, by reason."""
    totals: Counter[str] = Counter()
    for episode in episodes:
        totals.update(episode.dropped)
    return dict(totals)


def apply(state: RunState, event: Event, at: float = 0.0) -> None:
    """Take one event in; `at` is its wall time, in seconds since the epoch."""
    state.started_at = state.started_at or at
    state.last_at = max(state.last_at, at)
    match event:
        case StageStarted():
            _stage_started(state, event, at)
        case StageFinished():
            _stage_finished(_stage(state, event.stage), event)
        case TrainProgress():
            _train_progress(_stage(state, event.stage), event)
        case EpisodeChanged():
            _episode_changed(_online(state), event, at)
        case EpisodeFinished():
            _episode_finished(_online(state), event, at)
        case WeightsPublished():
            _online(state).weights[event.version] = event
        case PairExample():
            stage = _stage(state, event.stage)
            stage.examples.setdefault(event.episode, {})[event.prompt] = event
        case Evaluated():
            _stage(state, event.stage).evaluation = event
        case Note():
            state.notes.append(TimedNote(at, event.text, event.level))


def _stage(state: RunState, name: str) -> Stage:
    return state.stages.setdefault(name, Stage(name, index=len(state.stages) + 1))


def _online(state: RunState) -> Stage:
    """The stage that episodes belong to: the one that started last."""
    return _stage(state, state.current or "online_dpo")


def _stage_started(state: RunState, event: StageStarted, at: float) -> None:
    stage = _stage(state, event.stage)
    stage.job, stage.index, stage.total = event.job, event.index, event.total
    stage.started_at, stage.finished = at, False
    state.current = event.stage


def _stage_finished(stage: Stage, event: StageFinished) -> None:
    if event.reused:
        if stage.folder and stage.folder != event.folder:
            stage.curve.clear()
            stage.seconds = None
        stage.seconds = event.seconds if stage.seconds is None else stage.seconds
    else:
        stage.seconds = event.seconds
    stage.job, stage.finished, stage.reused = event.job, True, event.reused
    stage.folder = event.folder
    stage.metrics = event.metrics or stage.metrics


def _train_progress(stage: Stage, event: TrainProgress) -> None:
    training = [e.number for e in stage.episodes.values() if e.state == "TRAINING"]
    episode = min(training, default=max(stage.episodes, default=0))
    if stage.curve and _again(stage.curve[-1], episode, event.step):
        stage.curve = [p for p in stage.curve if not _again(p, episode, event.step)]
    point = Point(episode, event.step, event.steps, event.tokens, event.seconds, event.metrics)
    stage.curve.append(point)


def _again(point: Point, episode: int, step: int) -> bool:
    """Whether `point` is of work that is now done again from (episode, step) on.

    Holds for steps counted through the stage and for steps counted in each episode.
    """
    return point.episode > episode or (point.episode == episode and point.step >= step)


def _episode_changed(stage: Stage, event: EpisodeChanged, at: float) -> None:
    known = stage.episodes.get(event.number)
    if known is not None and known.finished and event.state == "SAMPLING" and not event.dispatched:
        _drop_from(stage.episodes, event.number)
        _drop_from(stage.weights, event.number)
        _drop_from(stage.examples, event.number)
    episode = stage.episodes.setdefault(event.number, Episode(event.number, event.total))
    if episode.state != event.state or not episode.changed_at:
        episode.changed_at = at
    episode.total, episode.state = event.total, event.state
    episode.prompts, episode.dispatched = event.prompts, event.dispatched
    episode.in_flight, episode.paired = event.in_flight, event.paired
    episode.dropped, episode.reason = event.dropped, event.reason


def _drop_from(kept: dict[int, Any], number: int) -> None:
    for later in [n for n in kept if n >= number]:
        del kept[later]


def _episode_finished(stage: Stage, event: EpisodeFinished, at: float) -> None:
    episode = stage.episodes.setdefault(event.number, Episode(event.number, event.total))
    episode.total, episode.version = event.total, event.version
    episode.paired, episode.dropped = event.pairs, event.dropped
    episode.metrics, episode.in_flight = event.metrics, 0
    episode.state, episode.finished, episode.changed_at = "COMPLETED", True, at
