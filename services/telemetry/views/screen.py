"""What the live view shows of a RunState, as small immutable values.

The view draws in a thread of its own, several times a second; it must not read a state that
the run is changing. So every event leaves a Screen, and drawing needs that and a clock.
"""

from dataclasses import dataclass

from services.states import State
from services.telemetry.format import number, one_line, reasons, share
from services.telemetry.record.events import Evaluated
from services.telemetry.record.state import Episode, RunState, Stage
from services.telemetry.views.estimate import run_left, stage_left, tokens_per_second


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage of the list."""

    name: str
    job: str
    status: str
    """ "finished", "running", "waiting" or "unfinished": begun in an earlier attempt and not taken
    up yet."""
    worked: float
    """Seconds, as of the screen's time."""
    seconds: float | None
    reused: bool
    held: bool
    """Its training waits between two steps, as the run is paused."""
    result: str


@dataclass(frozen=True, slots=True)
class ProgressBar:
    """The bar under the stages."""

    stage: str
    done: float
    """Share, 0 to 1."""
    facts: str
    left: float | None
    """Seconds, as of the screen's time."""


@dataclass(frozen=True, slots=True)
class EpisodeLine:
    """An episode under way."""

    number: int
    total: int
    state: State
    changed_at: float
    in_flight: int
    facts: str
    reason: str
    resume: str
    """The command that lets a paused one go on; "" where none is known."""


@dataclass(frozen=True, slots=True)
class LoopLines:
    """The online loop: its episodes under way, and a line each on rewards, pairs and policy."""

    episodes: tuple[EpisodeLine, ...]
    rewards: tuple[float, ...]
    pairs: str
    policy: str


@dataclass(frozen=True, slots=True)
class Screen:
    """Everything drawn, as of the last event."""

    at: float
    """Wall time of the last event."""
    worked: float
    """Seconds of all attempts so far, without pauses."""
    held: bool = False
    """Everything is paused: no work is done and no time counted."""
    stages: tuple[StageLine, ...] = ()
    stages_to_come: int = 0
    progress: ProgressBar | None = None
    loop: LoopLines | None = None
    notes: tuple[tuple[str, str], ...] = ()
    """Level and text, oldest first."""
    left: float | None = None


def screen(state: RunState) -> Screen:
    """The screen of this moment. Evaluations have a line only while they run."""
    running = state.running()
    shown = running if running is not None else state.stages.get(state.current)
    total = shown.total if shown is not None else 0
    return Screen(
        at=state.last_at,
        worked=state.worked,
        held=state.held(),
        stages=tuple(_stage_line(stage, state) for stage in state.shown()),
        stages_to_come=max(0, total - len(state.stages)),
        progress=_progress(running) if running is not None else None,
        loop=_loop_lines(shown) if shown is not None and shown.episodes else None,
        notes=tuple((note.level, one_line(note.line)) for note in state.notes[-3:]),
        left=None if shown is not None and _paused(shown) else run_left(state),
    )


def _stage_line(stage: Stage, state: RunState) -> StageLine:
    return StageLine(
        name=stage.name,
        job=stage.job,
        status="running" if stage is state.running() else stage.status,
        worked=stage.worked,
        seconds=stage.seconds,
        reused=stage.reused and stage.finished,
        held=stage.held,
        result=_result(stage),
    )


def _result(stage: Stage) -> str:
    if stage.waiting:
        return one_line(stage.waiting)
    if stage.evaluation is not None:
        return _accuracies(stage.evaluation)
    last = stage.curve[-1].metrics if stage.curve else stage.metrics
    names = [name for name in ("loss", "accuracy") if name in last]
    return "  ".join(f"{name} {number(last[name])}" for name in names)


def _accuracies(result: Evaluated) -> str:
    parts = []
    if result.sampled is not None:
        parts += [f"sampled {share(result.sampled)}", f"greedy {share(result.greedy)}"]
    if result.lm_loss is not None:
        parts.append(f"held-out loss {number(result.lm_loss)}")
    return "  ".join(parts)


def _paused(stage: Stage) -> bool:
    return any(e.state == State.PAUSED for e in stage.working_episodes())


def _progress(stage: Stage) -> ProgressBar | None:
    left = None if _paused(stage) else stage_left(stage)
    training = not stage.episodes or any(e.state == State.TRAINING for e in stage.episodes.values())
    last = stage.curve[-1] if stage.curve and training else None
    facts = []
    if last is not None:
        facts.append(f"step {last.step}/{last.steps}")
        names = ("loss", "accuracy", "lr")
        facts += [f"{name} {number(last.metrics[name])}" for name in names if name in last.metrics]
        pace = tokens_per_second(stage)
        facts += [f"{pace:,.0f} tok/s"] if pace else []
    if stage.episodes:
        total = max(e.total for e in stage.episodes.values())
        over = len(stage.finished_episodes())
        facts.insert(0, f"episodes {over}/{total}")
        return ProgressBar(stage.name, over / total if total else 0.0, "  ".join(facts), left)
    if last is None:
        return None
    done = last.step / last.steps if last.steps else 0.0
    return ProgressBar(stage.name, done, "  ".join(facts), left)


def _loop_lines(stage: Stage) -> LoopLines:
    done = stage.finished_episodes()
    last = done[-1] if done else None
    return LoopLines(
        episodes=tuple(_episode_line(episode, stage.admin) for episode in stage.working_episodes()),
        rewards=tuple(e.metrics["reward_mean"] for e in done if "reward_mean" in e.metrics),
        pairs=_last_pairs(last) if last is not None else "",
        policy=_last_version(stage, last),
    )


def _episode_line(episode: Episode, admin: str) -> EpisodeLine:
    dropped = sum(episode.dropped.values())
    facts = (
        f"{episode.dispatched}/{episode.prompts} prompts sent  {episode.in_flight} in flight  "
        f"{episode.paired} pairs  {dropped} dropped"
    )
    return EpisodeLine(
        number=episode.number,
        total=episode.total,
        state=episode.state,
        changed_at=episode.changed_at,
        in_flight=episode.in_flight,
        facts=facts + (f" ({reasons(episode.dropped)})" if dropped else ""),
        reason=one_line(episode.reason),
        resume=f"{admin} resume" if admin else "",
    )


def _last_pairs(episode: Episode) -> str:
    parts = [f"{episode.paired} in episode {episode.number}"]
    names = {"margin": "margin", "length_gap": "length gap", "accuracy": "accuracy"}
    for key, name in names.items():
        if key in episode.metrics:
            parts.append(f"{name} {number(episode.metrics[key])}")
    dropped = reasons(episode.dropped)
    return "  ".join([*parts, f"dropped: {dropped}"] if dropped else parts)


def _last_version(stage: Stage, episode: Episode | None) -> str:
    parts = []
    if stage.weights:
        last = stage.weights[max(stage.weights)]
        parts.append(f"version {last.version}  attested by {last.workers}")
        parts += [f"{last.repaired} repaired"] if last.repaired else []
        parts.append(f"canary {number(last.max_canary_difference)} nats")
    if episode is not None and "kl" in episode.metrics:
        parts.append(f"KL {number(episode.metrics['kl'])} nats")
    return "  ".join(parts)
