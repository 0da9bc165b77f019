"""What the live view shows of a RunState, as small immutable values.

The view draws in a thread of its own, several times a second; it must not read a state that
the run is changing. So every event leaves a Screen, and drawing needs that and a clock.
"""

from dataclasses import dataclass

from services.telemetry.format import number, one_line, reasons, share
from services.telemetry.record.state import Episode, RunState, Stage
from services.telemetry.views.estimate import run_left, stage_left, tokens_per_second


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage of the list."""

    name: str
    job: str
    index: int
    total: int
    mark: str
    """ "done", "running" or "stopped": begun in an earlier attempt and not taken up yet."""
    started_at: float
    seconds: float | None
    reused: bool
    result: str


@dataclass(frozen=True, slots=True)
class Progress:
    """The bar under the stages."""

    label: str
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
    state: str
    changed_at: float
    in_flight: int
    facts: str
    reason: str


@dataclass(frozen=True, slots=True)
class Online:
    """The online loop."""

    episodes: tuple[EpisodeLine, ...]
    rewards: tuple[float, ...]
    pairs: str
    policy: str


@dataclass(frozen=True, slots=True)
class Screen:
    """Everything drawn."""

    at: float
    """Wall time of the last event."""
    started_at: float
    stages: tuple[StageLine, ...] = ()
    progress: Progress | None = None
    online: Online | None = None
    notes: tuple[tuple[str, str], ...] = ()
    """Level and text, oldest first."""
    left: float | None = None


def screen(state: RunState) -> Screen:
    """The screen of this moment."""
    running = state.running()
    shown = running if running is not None else state.stages.get(state.current)
    paused = shown is not None and any(e.state == "PAUSED" for e in shown.working_episodes())
    return Screen(
        at=state.last_at,
        started_at=state.started_at,
        stages=tuple(_stage_line(stage, state) for stage in state.ordered()),
        progress=_progress(running) if running is not None else None,
        online=_online(shown) if shown is not None and shown.episodes else None,
        notes=tuple((note.level, one_line(note.text)) for note in state.notes[-3:]),
        left=None if paused else run_left(state),
    )


def _stage_line(stage: Stage, state: RunState) -> StageLine:
    running = stage.name == state.current and not stage.finished
    return StageLine(
        name=stage.name,
        job=stage.job,
        index=stage.index,
        total=stage.total,
        mark="done" if stage.over else "running" if running else "stopped",
        started_at=stage.started_at,
        seconds=stage.seconds,
        reused=stage.reused and stage.finished,
        result=_result(stage),
    )


def _result(stage: Stage) -> str:
    told = stage.evaluation
    if told is not None and told.sampled is not None:
        loss = "" if told.lm_loss is None else f"  held-out loss {number(told.lm_loss)}"
        return f"sampled {share(told.sampled)}  greedy {share(told.greedy)}{loss}"
    if told is not None and told.lm_loss is not None:
        return f"held-out loss {number(told.lm_loss)}"
    last = stage.curve[-1].metrics if stage.curve else stage.metrics
    names = [name for name in ("loss", "accuracy") if name in last]
    return "  ".join(f"{name} {number(last[name])}" for name in names)


def _progress(stage: Stage) -> Progress | None:
    paused = any(e.state == "PAUSED" for e in stage.working_episodes())
    left = None if paused else stage_left(stage)
    training = not stage.episodes or any(e.state == "TRAINING" for e in stage.episodes.values())
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
        return Progress(stage.name, over / total if total else 0.0, "  ".join(facts), left)
    if last is None:
        return None
    done = last.step / last.steps if last.steps else 0.0
    return Progress(stage.name, done, "  ".join(facts), left)


def _online(stage: Stage) -> Online:
    done = stage.finished_episodes()
    last = done[-1] if done else None
    return Online(
        episodes=tuple(_episode_line(episode) for episode in stage.working_episodes()),
        rewards=tuple(e.metrics["reward_mean"] for e in done if "reward_mean" in e.metrics),
        pairs=_pairs(last) if last is not None else "",
        policy=_policy(stage, last),
    )


def _episode_line(episode: Episode) -> EpisodeLine:
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
    )


def _pairs(episode: Episode) -> str:
    told = [f"{episode.paired} in episode {episode.number}"]
    names = {"margin": "margin", "length_gap": "length gap", "accuracy": "accuracy"}
    for key, name in names.items():
        if key in episode.metrics:
            told.append(f"{name} {number(episode.metrics[key])}")
    dropped = reasons(episode.dropped)
    return "  ".join([*told, f"dropped: {dropped}"] if dropped else told)


def _policy(stage: Stage, episode: Episode | None) -> str:
    told = []
    if stage.weights:
        last = stage.weights[max(stage.weights)]
        told.append(f"version {last.version}  attested by {last.workers}")
        told += [f"{last.repaired} repaired"] if last.repaired else []
        told.append(f"canary {number(last.max_canary_difference)} nats")
    if episode is not None and "kl" in episode.metrics:
        told.append(f"KL {number(episode.metrics['kl'])} nats")
    return "  ".join(told)
