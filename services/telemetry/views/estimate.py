"""How long it will still take, told only where what is known allows it."""

from statistics import median

from services.telemetry.record.state import Point, RunState, Stage

_RECENT = 20
"""Steps whose pace counts: the pace of a stage may change with the length of its texts."""


def tokens_per_second(stage: Stage) -> float | None:
    """Of the recent steps; None before there are two or where no tokens are counted."""
    if not stage.curve:
        return None
    last, before = _recent(stage)
    seconds, tokens = last.seconds - before.seconds, last.tokens - before.tokens
    return tokens / seconds if seconds > 0 and tokens > 0 else None


def stage_left(stage: Stage) -> float | None:
    """Seconds until the stage ends: by episodes where it has them, else by steps."""
    if stage.finished:
        return 0.0
    return _episodes_left(stage) if stage.episodes else _steps_left(stage)


def run_left(state: RunState) -> float | None:
    """Seconds until the run ends; None unless every stage to come was timed before."""
    running = state.running()
    if running is None:
        return None
    left = stage_left(running)
    by_index = {stage.index: stage for stage in state.stages.values()}
    for index in range(running.index + 1, running.total + 1):
        later = by_index.get(index)
        if left is None or later is None or later.seconds is None:
            return None
        left += later.seconds
    return left


def _steps_left(stage: Stage) -> float | None:
    if not stage.curve:
        return None
    last, before = _recent(stage)
    steps = last.step - before.step
    if steps <= 0:
        return None
    return (last.seconds - before.seconds) / steps * max(0, last.steps - last.step)


def _recent(stage: Stage) -> tuple[Point, Point]:
    """The last point and one about _RECENT steps before, of the same episode and process."""
    last = stage.curve[-1]
    before = last
    for point in reversed(stage.curve):
        if point.episode != last.episode or point.seconds > before.seconds:
            break
        before = point
        if last.step - point.step >= _RECENT:
            break
    return last, before


def _episodes_left(stage: Stage) -> float | None:
    """By what most finished episodes took, without pauses: the first ones may hold start-up."""
    done = stage.finished_episodes()
    times = [
        sum(e.metrics.get(f"{part}_seconds", 0.0) for part in ("sample", "train", "sync"))
        for e in done
    ]
    times = [seconds for seconds in times if seconds > 0]
    if not times:
        return None
    return median(times) * (done[-1].total - len(done))
