"""Signs in a run's numbers that it went wrong, though every step of it succeeded.

The thresholds are wide: what they name is worth a look in any run. The demo's online stage, which
is healthy, stays far inside them (docs/benchmarks.md).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from services.telemetry.format import number, reasons
from services.telemetry.record.changes import before_and_after
from services.telemetry.record.state import Episode, RunState, Stage

_KL_NATS = 10.0
_KL_NATS_A_TOKEN = 0.2
"""Both are passed only by a policy that hardly knows its reference's answers any more: at 0.2 nats
a token one of 50 tokens is e^-10 as likely under the reference."""
_LOSS = 1.05 * math.log(2)
"""DPO's sigmoid loss is ln 2 where policy and reference are equal, whatever beta and smoothing; 5 %
is room for the noise of a small set of pairs."""
_PAIRS = 8
"""Fewer say nothing of a loss."""
_DROPPED = 2 / 3
_FELL = 0.1
"""Share of the distance between best and worst answers of a group."""
_GREW = 1.5


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
    return (
        f"KL to the reference blew up: {number(kl)} nats an answer in episode {episode.number};"
        " lower train.optimizer.lr or raise dpo.beta"
    )


def _loss(episode: Episode) -> str:
    loss, pairs = episode.metrics.get("loss", 0.0), episode.metrics.get("trained_pairs", 0.0)
    if "dpo_margin" not in episode.metrics or loss <= _LOSS or pairs < _PAIRS:
        return ""
    return (
        f"the DPO loss of episode {episode.number} is {number(loss)}, above ln 2 = 0.693, which the"
        " reference itself has: the policy orders its pairs worse; lower train.optimizer.lr"
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
        f"the DPO loss ends at {number(last)}, above ln 2 = 0.693, which the reference itself has:"
        " the policy orders the pairs worse; lower train.optimizer.lr"
    )


def _dropped(episode: Episode) -> str:
    lost = sum(episode.dropped.values())
    if not episode.prompts or lost <= _DROPPED * episode.prompts:
        return ""
    return (
        f"{lost} of {episode.prompts} groups of episode {episode.number} gave no pair"
        f" ({reasons(episode.dropped)})"
    )


def _reward_fell(done: list[Episode]) -> str:
    """By the mean of the first and of the last third of the episodes."""
    scored = [e for e in done if {"reward_mean", "reward_max", "reward_min"} <= e.metrics.keys()]
    third = len(scored) // 3
    if not third:
        return ""
    first = fmean(e.metrics["reward_mean"] for e in scored[:third])
    last = fmean(e.metrics["reward_mean"] for e in scored[-third:])
    spread = fmean(e.metrics["reward_max"] - e.metrics["reward_min"] for e in scored)
    if first - last <= _FELL * spread:
        return ""
    return (
        f"the mean reward fell: {number(first)} in the first episodes, {number(last)} in the last"
    )


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
