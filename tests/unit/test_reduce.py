"""The state reduced from a run's events."""

from services.states import State
from services.telemetry.record.events import (
    EpisodeChanged,
    Evaluated,
    Note,
    PairExample,
    StageFinished,
    StageStarted,
    StageWaiting,
    TrainProgress,
)
from services.telemetry.record.reduce import apply
from services.telemetry.record.state import RunState, skill_names
from tests.sample_events import run_events


def _step(step: int, stage: str = "sft", **metrics: float) -> TrainProgress:
    return TrainProgress(
        stage=stage, step=step, steps=9, tokens=step * 10, seconds=float(step), metrics=metrics
    )


def _episode(
    number: int, state: State, dispatched: int = 0, in_flight: int = 0, stage: str = "online"
) -> EpisodeChanged:
    return EpisodeChanged(
        stage=stage,
        number=number,
        total=10,
        state=state,
        prompts=128,
        dispatched=dispatched,
        in_flight=in_flight,
        paired=0,
        dropped={},
    )


def _finished(stage: str, *, reused: bool = False, folder: str = "") -> StageFinished:
    folder = folder or f"runs/a/{stage}"
    return StageFinished(stage=stage, job="sft", seconds=9.0, reused=reused, folder=folder)


def test_a_stage_that_trains_again_replaces_its_curve_from_that_step() -> None:
    state = RunState()
    for step in (1, 2, 3, 4):
        apply(state, _step(step, loss=1.0))
    for step in (3, 4, 5):
        apply(state, _step(step, loss=2.0))
    curve = state.stages["sft"].curve
    assert [(p.step, p.metrics["loss"]) for p in curve] == [
        (1, 1.0),
        (2, 1.0),
        (3, 2.0),
        (4, 2.0),
        (5, 2.0),
    ]


def test_steps_counted_in_each_episode_are_not_taken_for_a_repeat() -> None:
    state = RunState()
    apply(state, StageStarted(stage="online", job="online_dpo", index=1, total=1))
    for number in (1, 2):
        apply(state, _episode(number, State.TRAINING, 128))
        for step in (1, 2):
            apply(state, _step(step, "online", loss=1.0))
        apply(state, _episode(number, State.COMPLETED, 128))
    curve = state.stages["online"].curve
    assert [(p.episode, p.step) for p in curve] == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_reused_stage_keeps_its_curve_and_the_time_it_took() -> None:
    state = RunState()
    apply(state, _step(1, loss=1.0))
    done = StageFinished(stage="sft", job="sft", seconds=61.0, reused=False, folder="runs/a/sft")
    apply(state, done)
    apply(state, StageStarted(stage="sft", job="sft", index=1, total=2), at=9.0)
    assert state.running() is state.stages["sft"]
    apply(state, done.model_copy(update={"seconds": 0.1, "reused": True}))
    stage = state.stages["sft"]
    assert (stage.seconds, stage.reused, stage.finished, len(stage.curve)) == (61.0, True, True, 1)
    assert state.running() is None


def test_a_stage_reused_from_another_folder_forgets_the_old_curve() -> None:
    state = RunState()
    apply(state, _step(1, loss=1.0))
    done = StageFinished(stage="sft", job="sft", seconds=61.0, reused=False, folder="runs/a/sft")
    apply(state, done)
    other = {"seconds": 30.0, "reused": True, "folder": "runs/b/sft"}
    apply(state, done.model_copy(update=other))
    assert (state.stages["sft"].seconds, state.stages["sft"].curve) == (30.0, [])


def test_an_episode_that_samples_anew_drops_itself_and_later_ones() -> None:
    state = RunState()
    for event in run_events():
        apply(state, event)
    apply(state, StageStarted(stage="online_dpo", job="online_dpo", index=7, total=7))
    apply(state, _episode(4, State.SAMPLING, stage="online_dpo"))
    stage = state.stages["online_dpo"]
    assert [e.number for e in stage.finished_episodes()] == [1, 2, 3]
    assert sorted(stage.weights) == [0, 1, 2, 3]
    assert max(stage.examples) == 3


def test_a_resumed_episode_is_not_taken_for_a_new_one() -> None:
    state = RunState()
    apply(state, _episode(1, State.SAMPLING, 64, 40), at=5.0)
    apply(state, _episode(1, State.PAUSED, 64), at=6.0)
    apply(state, _episode(1, State.PAUSED, 64), at=7.0)
    episode = state.stages["online"].episodes[1]
    assert (episode.state, episode.changed_at, episode.dispatched) == (State.PAUSED, 6.0, 64)


def test_the_same_pair_told_twice_is_one() -> None:
    pair = PairExample(
        stage="s",
        episode=1,
        prompt="p",
        chosen="a",
        rejected="b",
        chosen_score=1.0,
        rejected_score=0.0,
    )
    state = RunState()
    apply(state, pair)
    apply(state, pair.model_copy(update={"chosen": "c"}))
    assert [e.chosen for e in state.stages["s"].examples[1].values()] == ["c"]


def test_events_go_to_the_stage_they_name_whatever_started_last() -> None:
    state = RunState()
    apply(state, StageStarted(stage="first", job="online_dpo", index=1, total=2))
    apply(state, StageStarted(stage="second", job="online_dpo", index=2, total=2))
    apply(state, _episode(3, State.SAMPLING, stage="first"))
    assert list(state.stages["first"].episodes) == [3]
    assert state.stages["second"].episodes == {}
    apply(state, Note(stage="first", text="late"))
    apply(state, Note(text="of the run"))
    assert [note.line for note in state.notes] == ["first: late", "of the run"]


def test_an_evaluation_belongs_to_the_stage_that_made_the_model() -> None:
    state = RunState()
    apply(state, _finished("sft"))
    apply(state, StageStarted(stage="sft-evaluation", job="evaluate", index=2, total=2))
    assert [stage.name for stage in state.shown()] == ["sft", "sft-evaluation"]
    apply(state, Evaluated(stage="sft-evaluation", policy="sft", sampled=0.3, sampled_n=10))
    apply(state, _finished("sft-evaluation"))
    evaluation = state.stages["sft"].evaluation
    assert evaluation is not None
    assert evaluation.sampled == 0.3
    assert state.stages["sft-evaluation"].evaluation is None
    assert [stage.name for stage in state.shown()] == ["sft"]
    assert [stage.name for stage in state.evaluations()] == ["sft-evaluation"]
    assert [stage.name for stage in state.evaluated()] == ["sft"]


def test_an_evaluation_of_a_model_from_elsewhere_belongs_to_its_own_stage() -> None:
    state = RunState()
    apply(state, StageStarted(stage="evaluate", job="evaluate", index=1, total=1))
    apply(state, Evaluated(stage="evaluate", policy="models/sft", sampled=0.3, sampled_n=10))
    apply(state, _finished("evaluate"))
    assert [stage.name for stage in state.shown()] == ["evaluate"]
    assert [stage.name for stage in state.evaluated()] == ["evaluate"]


def test_what_was_measured_of_a_model_goes_when_it_is_made_anew() -> None:
    state = RunState()
    apply(state, _finished("sft"))
    apply(state, Evaluated(stage="sft-evaluation", policy="sft", sampled=0.3, sampled_n=10))
    apply(state, _finished("sft", reused=True))
    assert state.stages["sft"].evaluation is not None
    apply(state, _finished("sft", reused=True, folder="runs/b/sft"))
    assert state.stages["sft"].evaluation is None
    apply(state, Evaluated(stage="sft-evaluation", policy="sft", sampled=0.4, sampled_n=10))
    apply(state, _finished("sft"))
    assert state.stages["sft"].evaluation is None


def test_a_stage_waits_until_it_starts_again() -> None:
    state = RunState()
    apply(state, StageStarted(stage="labels", job="annotate", index=1, total=2))
    assert (state.stages["labels"].status, state.running()) == (
        "unfinished",
        state.stages["labels"],
    )
    apply(state, StageWaiting(stage="labels", reason="12 of 200 pairs are annotated"))
    stage = state.stages["labels"]
    assert (stage.status, stage.waiting) == ("waiting", "12 of 200 pairs are annotated")
    assert state.running() is None
    apply(state, StageStarted(stage="labels", job="annotate", index=1, total=2))
    assert state.running() is stage
    apply(state, StageWaiting(stage="labels", reason="still"))
    apply(state, _finished("labels"))
    assert (stage.status, stage.waiting) == ("finished", "")


def test_skills_outside_the_preference_data_come_last() -> None:
    state = RunState()
    for event in run_events():
        apply(state, event)
    names = skill_names(state.ordered())
    assert names == [
        *((name, True) for name in ("add", "count", "max", "reverse", "sort", "upper")),
        *((name, False) for name in ("copy", "dates")),
    ]
