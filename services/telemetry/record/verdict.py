"""What a run showed, in plain sentences a reader can check against the numbers below them.

A line a stage: what its model gained, what that cost, and what chance alone can make; of a stage
that was not evaluated, what it made. What is doubtful stands before all.
"""

from services.telemetry.format import count, number, reasons
from services.telemetry.record.changes import before_and_after
from services.telemetry.record.doubts import doubts
from services.telemetry.record.events import Evaluated
from services.telemetry.record.state import RunState, Stage


def verdict(state: RunState) -> list[str]:
    """What is doubtful, then `stage_lines`; empty when there is nothing to say."""
    return doubtful(state) + stage_lines(state)


def doubtful(state: RunState) -> list[str]:
    """A line a doubt."""
    return [f"Doubtful: {doubt.stage}: {doubt.text}." for doubt in doubts(state)]


def stage_lines(state: RunState) -> list[str]:
    """A line a stage that has something to show, in the order of the run."""
    told = [(stage, _line(state, stage)) for stage in state.shown()]
    return [f"{stage.name}{line}." for stage, line in told if line]


def _line(state: RunState, stage: Stage) -> str:
    """What follows the stage's name; "" for nothing."""
    reward = _reward(stage)
    changes = before_and_after(state, stage)
    if changes:
        gained = [str(change) for change in changes if change.clear and change.better]
        lost = [str(change) for change in changes if change.clear and not change.better]
        same = [str(change) for change in changes if not change.clear]
        parts = []
        if gained:
            parts.append(" gained " + ", ".join(gained))
        if lost:
            parts.append(f"{' ' if not gained else ''}cost {', '.join(lost)}")
        if same:
            colon = ": " if not parts else ""
            parts.append(f"{colon}no clear change of {', '.join(same)}")
        return "; ".join(parts) + (f"; {reward}" if reward else "")
    said = _evaluated(stage.evaluation) if stage.evaluation is not None else _made(stage)
    return ": " + "; ".join(part for part in (said, reward) if part) if said or reward else ""


def _evaluated(found: Evaluated) -> str:
    """One measurement by itself."""
    parts = []
    if found.sampled is not None:
        n = f" (n={found.sampled_n})" if found.sampled_n else ""
        parts.append(f"{found.sampled:.0%} right when sampled{n}")
    if found.greedy is not None:
        parts.append(f"{found.greedy:.0%} right greedily")
    if found.lm_loss is not None:
        parts.append(f"held-out loss {number(found.lm_loss)} nats a token")
    return ", ".join(parts)


def _reward(stage: Stage) -> str:
    done = [e for e in stage.finished_episodes() if "reward_mean" in e.metrics]
    if not done:
        return ""
    told = [
        f"{number(e.metrics['reward_mean'])} in episode {e.number}" for e in (done[0], done[-1])
    ]
    return "mean reward " + " to ".join(dict.fromkeys(told))


def _made(stage: Stage) -> str:
    """What a stage that was not evaluated made, from what it reported at its end."""
    metrics = stage.metrics
    if stage.episodes:
        return ""
    if "pairs" in metrics and "prompts" in metrics:
        return _pairs(metrics)
    parts = []
    if "heldout_accuracy" in metrics:
        pairs = metrics.get("heldout_pairs")
        n = f" (n={pairs:.0f})" if pairs else ""
        parts.append(f"orders {metrics['heldout_accuracy']:.0%} of held-out pairs rightly{n}")
    if "heldout_loss" in metrics:
        parts.append(f"held-out loss {number(metrics['heldout_loss'])}")
    if trained := _training(stage):
        parts.append(trained)
    if "trained_pairs" in metrics:
        parts.append(f"{count(metrics['trained_pairs'])} pairs")
        if metrics.get("too_long"):
            parts.append(f"{count(metrics['too_long'])} more were longer than max_length")
    return ", ".join(parts) or _counts(metrics)


def _training(stage: Stage) -> str:
    """How the loss went; its end alone where the record of the steps is another run's."""
    losses = [point for point in stage.curve if "loss" in point.metrics]
    if len(losses) > 1:
        first, last = losses[0], losses[-1]
        went = f"{number(first.metrics['loss'])} to {number(last.metrics['loss'])}"
        tokens = f" and {count(last.tokens)} tokens" if last.tokens else ""
        return f"training loss {went} in {last.step} steps{tokens}"
    if {"loss", "steps"} <= stage.metrics.keys():
        loss, steps = number(stage.metrics["loss"]), stage.metrics["steps"]
        return f"training loss {loss} at the end of {steps:.0f} steps"
    return ""


def _counts(metrics: dict[str, float]) -> str:
    """Of a job that only made data."""
    if any(value != int(value) for value in metrics.values()):
        return ""
    return ", ".join(f"{value:,.0f} {name.replace('_', ' ')}" for name, value in metrics.items())


def _pairs(metrics: dict[str, float]) -> str:
    held = metrics.get("heldout_pairs", 0.0)
    dropped = {
        name.removeprefix("dropped_"): int(value)
        for name, value in metrics.items()
        if name.startswith("dropped_")
    }
    text = f"{metrics['pairs']:,.0f} pairs"
    text += f" and {held:,.0f} held out" if held else ""
    text += f" from {metrics['prompts']:,.0f} prompts"
    return text + (f", without a pair: {reasons(dropped)}" if any(dropped.values()) else "")
