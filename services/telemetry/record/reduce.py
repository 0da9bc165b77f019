"""Events into the RunState, one at a time.

`apply` is a pure reducer: the same events give the same state, so a resumed run rebuilds it
from metrics.jsonl. When work is done again after a restart, the later event counts: a training
step cuts its own curve from there on, an episode that samples anew drops itself and later ones,
a stage that is made anew loses what was measured of the old one.
"""

from typing import Any

from services.states import State
from services.telemetry.record.events import (
    AdminListening,
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    PairExample,
    PartReplaced,
    RunStarted,
    StageFinished,
    StageHeld,
    StageStarted,
    StageWaiting,
    TrainProgress,
    WeightsPublished,
)
from services.telemetry.record.state import Episode, Point, RunState, Stage, TimedNote


def apply(state: RunState, event: Event, at: float = 0.0) -> None:
    """Take one event in; `at` is its wall time, in seconds since the epoch."""
    if isinstance(event, RunStarted):
        state.attempts += 1
        state.current = ""
    elif state.last_at:
        _time_passes(state, max(0.0, at - state.last_at))
    state.started_at = state.started_at or at
    state.last_at = max(state.last_at, at)
    if isinstance(event, RunStarted | PartReplaced):
        return  # the note that comes with the second is what is kept of it
    if isinstance(event, Note):
        state.notes.append(TimedNote(at, event.stage, event.text, event.level, event.doubt))
        return
    new = Stage(event.stage, index=len(state.stages) + 1)
    stage = state.stages.setdefault(event.stage, new)
    match event:
        case StageStarted():
            state.current = stage.name
            _stage_started(stage, event)
        case StageFinished():
            _stage_finished(stage, event)
        case StageWaiting():
            stage.waiting = event.reason
        case StageHeld():
            stage.held = event.held
        case TrainProgress():
            _train_progress(stage, event)
        case AdminListening():
            stage.admin = event.command
        case EpisodeChanged():
            _episode_changed(stage, event, at)
        case EpisodeFinished():
            _episode_finished(stage, event, at)
        case WeightsPublished():
            stage.weights[event.version] = event
        case PairExample():
            stage.examples.setdefault(event.episode, {})[event.id or event.prompt] = event
        case Evaluated():
            _evaluated(state, stage, event)


def _time_passes(state: RunState, seconds: float) -> None:
    """Between two events of one attempt: work of the stage under way, unless it is paused."""
    stage = state.running()
    if state.held():
        state.paused += seconds
        if stage is not None:
            stage.paused += seconds
        return
    state.worked += seconds
    if stage is None:
        return
    stage.worked += seconds
    for episode in stage.working_episodes():
        if episode.sampling:
            episode.sampling_seconds += seconds


def _stage_started(stage: Stage, event: StageStarted) -> None:
    if stage.finished and not event.reused:
        stage.worked = stage.paused = 0.0  # made anew
    stage.job, stage.index, stage.total = event.job, event.index, event.total
    stage.policy = event.policy
    stage.finished, stage.held, stage.waiting = False, False, ""
    for episode in stage.episodes.values():
        episode.sampling = False  # until its services are up again


def _stage_finished(stage: Stage, event: StageFinished) -> None:
    elsewhere = bool(stage.folder) and stage.folder != event.folder
    if not event.reused or elsewhere:
        stage.seconds = None
        if stage.evaluation is not None and stage.evaluation.stage != stage.name:
            stage.evaluation = None
    if event.reused and elsewhere:
        stage.curve.clear()
    stage.seconds = event.seconds if stage.seconds is None else stage.seconds
    stage.job, stage.finished, stage.reused = event.job, True, event.reused
    stage.folder, stage.waiting = event.folder, ""
    stage.metrics = event.metrics or stage.metrics


def _evaluated(state: RunState, stage: Stage, event: Evaluated) -> None:
    """The numbers belong to the stage that made the model, where this run has it."""
    measured = state.stages.get(event.policy)
    if measured is None or measured is stage:
        stage.evaluation = event
    else:
        measured.evaluation, stage.evaluates = event, measured.name


def _train_progress(stage: Stage, event: TrainProgress) -> None:
    training = [e.number for e in stage.episodes.values() if e.state == State.TRAINING]
    episode = min(training, default=max(stage.episodes, default=0))
    if stage.curve and _redone(stage.curve[-1], episode, event.step):
        stage.curve = [p for p in stage.curve if not _redone(p, episode, event.step)]
    point = Point(episode, event.step, event.steps, event.tokens, event.seconds, event.metrics)
    stage.curve.append(point)


def _redone(point: Point, episode: int, step: int) -> bool:
    """Whether `point` is of work that is now done again from (episode, step) on.

    Holds for steps counted through the stage and for steps counted in each episode.
    """
    return point.episode > episode or (point.episode == episode and point.step >= step)


def _episode_changed(stage: Stage, event: EpisodeChanged, at: float) -> None:
    known = stage.episodes.get(event.number)
    anew = event.state == State.SAMPLING and not event.dispatched
    if known is not None and known.finished and anew:
        _drop_from(stage.episodes, event.number)
        _drop_from(stage.weights, event.number)
        _drop_from(stage.examples, event.number)
    episode = stage.episodes.setdefault(event.number, Episode(event.number, event.total))
    if episode.state != event.state or not episode.changed_at:
        episode.changed_at = at
    episode.total, episode.state = event.total, event.state
    episode.sampling = event.state in (State.SAMPLING, State.PAUSING)
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
    episode.metrics, episode.in_flight = _of_all_attempts(event.metrics, episode), 0
    episode.state, episode.finished, episode.changed_at = State.COMPLETED, True, at


def _of_all_attempts(metrics: dict[str, float], episode: Episode) -> dict[str, float]:
    """An episode that was cut off while it sampled took longer than its last attempt says."""
    if "sample_seconds" not in metrics:
        return metrics
    return metrics | {"sample_seconds": max(metrics["sample_seconds"], episode.sampling_seconds)}
