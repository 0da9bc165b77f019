"""Signs in a run's numbers that it went wrong, though every step of it succeeded.

The thresholds are wide: what they name is worth a look in any run. The demo's online stage, which
is healthy, stays far inside them: over its 8 episodes KL rises to 0.8 nats an answer of 4 tokens,
the DPO loss is 0.64 to 0.66, and 40% of the groups at most give no pair.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from services.telemetry.format import number, reasons
from services.telemetry.record.changes import before_and_after, interval
from services.telemetry.record.state import Episode, RunState, Stage

_KL_NATS = 10.0
_KL_NATS_A_TOKEN = 0.2
"""KL grows with the length of an answer, so it must pass both. 10 nats: the reference gives the
policy's typical answer e^-10 of the policy's probability. 0.2 nats a token, which counts from 50
tokens on: as if one token in 50 were such a one."""
_LOSS = 1.05 * math.log(2)
"""DPO's sigmoid loss is ln 2 where policy and reference are equal, whatever beta and smoothing; 5 %
is room for the noise of a small set of pairs."""
_PAIRS = 8
"""Fewer say nothing of a loss."""
_HELD_OUT = 30
"""Fewer held-out pairs say nothing of a reward model."""
_DROPPED = 2 / 3
_FELL = 0.1
"""Share of the distance between best and worst answers of a group."""
_GREW = 1.5
NOT_FINITE = "not finite: "
"""How the kind of a note begins that tells of a number which is left out of the record."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One sign, told once a stage."""

    stage: str
    kind: str
    text: str


def doubts(state: RunState) -> list[Doubt]:
    """Every doubt there is by now, in the order of the stages."""
    return [
        Doubt(stage.name, kind, text)
        for stage in state.ordered()
        for kind, text in _of_stage(state, stage)
    ]


def _of_stage(state: RunState, stage: Stage) -> Iterator[tuple[str, str]]:
    done = stage.finished_episodes()
    for kind, find in (("kl", _kl), ("loss", _loss), ("dropped", _dropped)):
        first = next((text for episode in done if (text := find(episode))), "")
        if first:
            yield kind, first
    if not stage.episodes and (text := _offline_loss(stage)):
        yield "loss", text
    if text := _held_out(stage):
        yield "held-out", text
    for note in state.notes:
        if note.stage == stage.name and note.doubt.startswith(NOT_FINITE):
            yield note.doubt, note.text
    if text := _reward_fell(done):
        yield "reward", text
    if text := _longer(done):
        yield "length", text
    for change in before_and_after(state, stage):
        if change.clear and not change.better and change.name.endswith("accuracy"):
            yield change.name, f"{change.name} fell: {change.before:.2f} to {change.after:.2f}"


def _kl(episode: Episode) -> str:
    kl, tokens = episode.metrics.get("kl", 0.0), episode.metrics.get("answer_tokens", 0.0)
    if kl <= max(_KL_NATS, _KL_NATS_A_TOKEN * tokens):
        return ""
    if episode.number == 1:
        return (
            f"KL to the reference is {number(kl)} nats an answer before the first update; see"
            " whether policy and reference belong together, and how the policy was trained"
        )
    return (
        f"KL to the reference blew up: {number(kl)} nats an answer in episode {episode.number};"
        " lower train.optimizer.lr or raise dpo.beta"
    )


def _loss(episode: Episode) -> str:
    loss, pairs = episode.metrics.get("loss", 0.0), episode.metrics.get("trained_pairs", 0.0)
    if "dpo_margin" not in episode.metrics or loss <= _LOSS or pairs < _PAIRS:
        return ""
    return (
        f"the DPO loss of episode {episode.number} is {number(loss)}, above ln 2 = 0.693: the"
        " policy fits its pairs worse than the reference does; lower train.optimizer.lr"
    )


def _offline_loss(stage: Stage) -> str:
    """Of the last quarter of a curve of DPO's."""
    losses = [p.metrics["loss"] for p in stage.curve if {"loss", "dpo_margin"} <= p.metrics.keys()]
    if len(losses) < 4 or not stage.finished:
        return ""
    last = fmean(losses[-(len(losses) // 4) :])
    if last <= _LOSS:
        return ""
    return (
        f"the DPO loss ends at {number(last)}, above ln 2 = 0.693: the policy fits the pairs worse"
        " than the reference does; lower train.optimizer.lr"
    )


def _held_out(stage: Stage) -> str:
    """Of pairs that a stage did not train on: a policy's loss, a reward model's order."""
    metrics = stage.metrics
    pairs = int(metrics.get("heldout_pairs", 0.0))
    if pairs >= _PAIRS and "heldout_dpo_margin" in metrics and metrics["heldout_loss"] > _LOSS:
        return (
            f"the DPO loss on held-out pairs is {number(metrics['heldout_loss'])}, above ln 2 ="
            " 0.693: what was learnt does not carry over; train fewer epochs or on more pairs"
        )
    if pairs < _HELD_OUT or "heldout_margin" not in metrics:
        return ""
    right = metrics["heldout_accuracy"]
    if interval(right, pairs)[0] > 0.5:
        return ""
    return f"it orders {right:.0%} of {pairs} held-out pairs rightly, which a coin can do as well"


def _dropped(episode: Episode) -> str:
    lost = sum(episode.dropped.values())
    if not episode.prompts or lost <= _DROPPED * episode.prompts:
        return ""
    return (
        f"{lost} of {episode.prompts} groups of episode {episode.number} gave no pair"
        f" ({reasons(episode.dropped)})"
    )


def _reward_fell(done: list[Episode]) -> str:
    """By the mean of the first and of the last third of the episodes.

    A fall that the choice of prompts can make is none: the mean of one group is less than half the
    distance between its best and its worst answer away from the mean of all.
    """
    scored = [e for e in done if {"reward_mean", "reward_max", "reward_min"} <= e.metrics.keys()]
    third = len(scored) // 3
    if not third:
        return ""
    first, n = _reward(scored[:third])
    last, m = _reward(scored[-third:])
    spread = fmean(e.metrics["reward_max"] - e.metrics["reward_min"] for e in scored)
    if first - last <= spread * max(_FELL, math.sqrt(1 / n + 1 / m)):
        return ""
    return (
        f"the mean reward fell: {number(first)} in the first episodes, {number(last)} in the last"
    )


def _reward(episodes: list[Episode]) -> tuple[float, float]:
    """Mean reward of some episodes, and of how many groups."""
    groups = sum(e.metrics.get("groups", e.prompts) for e in episodes)
    return fmean(e.metrics["reward_mean"] for e in episodes), max(1.0, groups)


def _longer(done: list[Episode]) -> str:
    measured = [e for e in done if {"answer_tokens", "reward_mean"} <= e.metrics.keys()]
    if len(measured) < 2:
        return ""
    first, last = measured[0].metrics, measured[-1].metrics
    if (
        last["answer_tokens"] < _GREW * first["answer_tokens"]
        or last["reward_mean"] <= first["reward_mean"]
    ):
        return ""
    return (
        f"answers grew from {number(first['answer_tokens'])} to {number(last['answer_tokens'])}"
        " tokens while the reward rose: see whether length is what is learnt"
    )
