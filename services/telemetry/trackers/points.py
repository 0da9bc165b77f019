"""Events into what trackers are told, each point once, also over the attempts at a run."""

from services.telemetry.record.events import (
    EpisodeFinished,
    Evaluated,
    Event,
    StageFinished,
    TrainProgress,
)
from services.telemetry.record.state import RunState, Stage
from services.telemetry.trackers.tracker import Told


class Points:
    """`take` each event after the state has; `go_on` first, with the state of the attempts before.

    Work that is done again after an interruption is told once: its steps are those already told.
    """

    def __init__(self) -> None:
        self._reached: dict[tuple[str, str], int] = {}
        """The last step told, by stage and axis."""

    def go_on(self, state: RunState) -> None:
        """What is recorded was told."""
        for stage in state.stages.values():
            if stage.curve:
                self._reached[stage.name, "train"] = stage.curve[-1].step
            if done := stage.finished_episodes():
                self._reached[stage.name, "episode"] = done[-1].number
            if stage.evaluation is not None:
                self._reached[stage.name, "evaluation"] = _behind(stage)
            if stage.finished:
                self._reached[stage.name, "finished"] = _behind(stage)

    def take(self, event: Event, state: RunState) -> Told | None:
        """What is to be told of it, if anything."""
        match event:
            case TrainProgress():
                values = {**event.metrics, "tokens": float(event.tokens)}
                return self._new(event.stage, "train", event.step, values, state)
            case EpisodeFinished():
                dropped = {f"dropped_{k.lower()}": float(n) for k, n in event.dropped.items()}
                values = {**event.metrics, **dropped, "version": float(event.version)}
                return self._new(event.stage, "episode", event.number, values, state)
            case Evaluated():
                # Of a model of this run, told with the stage that made it.
                stage = state.stages.get(event.policy) or state.stages[event.stage]
                step = _behind(stage)
                return self._new(stage.name, "evaluation", step, _measured(event), state)
            case StageFinished(reused=False) if not state.stages[event.stage].evaluates:
                values = {**event.metrics, "seconds": event.seconds}
                step = _behind(state.stages[event.stage])
                return self._new(event.stage, "finished", step, values, state)
        return None

    def _new(
        self, stage: str, axis: str, step: int, values: dict[str, float], state: RunState
    ) -> Told | None:
        if step <= self._reached.get((stage, axis), -1) or not values:
            return None
        self._reached[stage, axis] = step
        return Told(stage, axis, step, state.last_at, values)


def _behind(stage: Stage) -> int:
    """Optimizer steps, or episodes where none were recorded."""
    if stage.curve:
        return stage.curve[-1].step
    return max((episode.number for episode in stage.finished_episodes()), default=0)


def _measured(event: Evaluated) -> dict[str, float]:
    found = {"sampled": event.sampled, "greedy": event.greedy, "lm_loss": event.lm_loss}
    skills = {f"{name}_sampled": skill.sampled for name, skill in event.skills.items()}
    return {name: value for name, value in found.items() if value is not None} | skills
