"""Events of a made-up recipe run, for tests of what shows a run. The numbers mean nothing."""

import math
import random
from collections.abc import Iterator

from services.states import State
from services.telemetry.record.events import (
    AdminListening,
    EpisodeChanged,
    EpisodeFinished,
    Evaluated,
    Event,
    Note,
    PairExample,
    SkillAccuracy,
    StageFinished,
    StageStarted,
    TrainProgress,
    WeightsPublished,
)

POLICIES = ("pretrain", "sft", "offline_dpo", "online_dpo")
STAGES = (
    "data",
    *("pretrain", "pretrain-evaluation"),
    *("sft", "sft-evaluation"),
    *("preferences", "reward_model"),
    *("offline_dpo", "offline_dpo-evaluation"),
    *("online_dpo", "online_dpo-evaluation"),
)
JOBS = {"data": "demo_data"} | {f"{name}-evaluation": "evaluate" for name in POLICIES}
TRAINED_FURTHER = {"sft": "pretrain", "offline_dpo": "sft", "online_dpo": "offline_dpo"}
SECONDS = {"data": 3.2, "pretrain": 312.0, "online_dpo": 402.0}
SKILLS = ("add", "reverse", "sort", "count", "upper", "max", "copy", "dates")
OUTSIDE_PREFERENCES = ("copy", "dates")
ADMIN = ".venv/bin/pairloop --address 127.0.0.1:50051 episodes"
EPISODES = 10
PROMPTS = 128
EXTRA_CONFIG = "job: recipe\nname: demo\nqueues:\n  url: redis://user:secret@host:6379/0\n"


def run_events(seed: int = 0) -> Iterator[Event]:
    """The whole recipe: every stage, evaluations, ten episodes with one pause."""
    rng = random.Random(seed)
    for index, name in enumerate(STAGES, start=1):
        job = JOBS.get(name, name)
        reused = name == "data"
        yield StageStarted(
            stage=name,
            job=job,
            index=index,
            total=len(STAGES),
            reused=reused,
            policy=TRAINED_FURTHER.get(name, ""),
        )
        if job == "evaluate":
            yield evaluation(rng, name.removesuffix("-evaluation"))
        elif name == "online_dpo":
            yield from online_events(rng)
        elif name == "preferences":
            yield from (_example(rng, name, 0) for _ in range(3))
        elif name != "data":
            yield from training_events(rng, name)
        yield StageFinished(
            stage=name,
            job=job,
            seconds=12.0 if job == "evaluate" else SECONDS.get(name, 64.0),
            reused=reused,
            folder=f"runs/demo/{name}",
            metrics={"pairs": 1711.0, "reward_mean": 0.213} if name == "preferences" else {},
        )


def reused_events() -> Iterator[Event]:
    """The whole recipe once more, with nothing left to do."""
    for event in run_events():
        if isinstance(event, StageStarted | StageFinished):
            yield event.model_copy(update={"reused": True})
        elif isinstance(event, Evaluated):
            yield event


def training_events(rng: random.Random, stage: str, steps: int = 300) -> Iterator[Event]:
    """One stage's curve."""
    for step in range(1, steps + 1):
        done = step / steps
        metrics = {"lr": 1e-3 * (1 - done), "grad_norm": 1.0 + rng.random()}
        if stage in ("pretrain", "sft"):
            metrics["loss"] = 2.0 + 6.0 * math.exp(-6 * done) + rng.gauss(0, 0.05)
        else:
            metrics["loss"] = 0.69 - 0.3 * done + rng.gauss(0, 0.04)
            metrics["accuracy"] = min(1.0, 0.5 + 0.3 * done + rng.gauss(0, 0.04))
            margin = "dpo_margin" if stage == "offline_dpo" else "margin"
            metrics[margin] = 1.5 * done + rng.gauss(0, 0.1)
        if stage == "offline_dpo":
            metrics["kl"] = 2.0 * done * done + abs(rng.gauss(0, 0.02))
        yield TrainProgress(
            stage=stage,
            step=step,
            steps=steps,
            tokens=step * 8192,
            seconds=step * 0.9,
            metrics=metrics,
        )
        if stage == "pretrain" and step == steps // 2:
            yield Note(stage=stage, text="grad_norm 14.2 clipped to 1.0", level="warning")


def online_events(rng: random.Random, episodes: int = EPISODES) -> Iterator[Event]:
    """The online loop."""
    yield AdminListening(stage="online_dpo", command=ADMIN)
    yield _weights(rng, 0)
    for number in range(1, episodes + 1):
        yield from episode_events(rng, number, episodes)


def episode_events(rng: random.Random, number: int, total: int) -> Iterator[Event]:
    """One episode, with a pause in the fourth and a repaired worker in the sixth."""
    drops = {"tie": 8 + number, "single_answer": rng.randrange(3, 9), "margin": 2}

    def changed(state: State, sent: int, in_flight: int, reason: str = "") -> EpisodeChanged:
        ended = sent - in_flight
        dropped = {name: n * ended // PROMPTS for name, n in drops.items()}
        return EpisodeChanged(
            stage="online_dpo",
            number=number,
            total=total,
            state=state,
            prompts=PROMPTS,
            dispatched=sent,
            in_flight=in_flight,
            paired=ended - sum(dropped.values()),
            dropped=dropped,
            reason=reason,
        )

    yield changed(State.SAMPLING, 0, 0)
    yield changed(State.SAMPLING, 64, 40)
    if number == 4:
        for in_flight in (40, 21, 7):
            yield changed(State.PAUSING, 64, in_flight, "moving the node to another rack")
        yield changed(State.PAUSED, 64, 0, "moving the node to another rack")
        yield changed(State.SAMPLING, 64, 0)
    yield changed(State.SAMPLING, PROMPTS, 25)
    yield changed(State.TRAINING, PROMPTS, 0)
    yield from (_example(rng, "online_dpo", number) for _ in range(3))
    pairs = PROMPTS - sum(drops.values())
    steps = 6
    for step in range(1, steps + 1):
        yield TrainProgress(
            stage="online_dpo",
            step=(number - 1) * steps + step,
            steps=total * steps,
            tokens=((number - 1) * steps + step) * 4096,
            seconds=((number - 1) * steps + step) * 1.1,
            metrics={"loss": 0.69 - 0.02 * number + rng.gauss(0, 0.02), "accuracy": 0.7},
        )
    yield changed(State.PUBLISHING, PROMPTS, 0)
    yield _weights(rng, number)
    yield EpisodeFinished(
        stage="online_dpo",
        number=number,
        total=total,
        version=number,
        pairs=pairs,
        dropped=drops,
        metrics=_episode_metrics(rng, number),
    )


def _episode_metrics(rng: random.Random, number: int) -> dict[str, float]:
    climb = 1 - math.exp(-number / 4)
    return {
        "reward_mean": -0.4 + 1.3 * climb + rng.gauss(0, 0.04),
        "reward_max": 1.0 + 0.5 * climb,
        "reward_min": -1.2 + 1.1 * climb,
        "truncated": 0.1 * (1 - climb),
        "chosen_reward": 0.2 * climb,
        "rejected_reward": -0.5 * climb,
        "sampler_gap_mean": 4e-7,
        "reward_model": -0.6 + 0.9 * climb + rng.gauss(0, 0.04),
        "reward_checker": 0.31 + 0.25 * climb + rng.gauss(0, 0.02),
        "reward_missing_eos": -0.1 * (1 - climb),
        "margin": 1.4 - 0.4 * climb + rng.gauss(0, 0.05),
        "length_gap": rng.gauss(0.4, 0.5),
        "answer_tokens": 12.0 + rng.gauss(0, 0.4),
        "unique_answers": 6.4 - 1.2 * climb,
        "kl": 0.8 * climb * climb,
        "loss": 0.69 - 0.02 * number,
        "accuracy": 0.6 + 0.15 * climb,
        "dpo_margin": 0.7 * climb,
        "changed_fraction": 0.05 + rng.gauss(0, 0.002),
        "sampler_gap": 2e-6,
        "sample_seconds": 21.0 + rng.gauss(0, 1.0),
        "train_seconds": 15.0 + rng.gauss(0, 0.5),
        "sync_seconds": 0.7,
        "tokens_per_second": 1900.0,
    }


def _weights(rng: random.Random, version: int) -> WeightsPublished:
    return WeightsPublished(
        stage="online_dpo",
        version=version,
        workers=2,
        bytes=14_200_000,
        seconds=0.6 + rng.random() / 4,
        repaired=1 if version == 6 else 0,
        max_canary_difference=1e-6 * (1 + rng.random()),
        changed_values=int(3_550_000 * (0.05 + rng.gauss(0, 0.002))) if version else 0,
        total_values=3_550_000,
    )


def _example(rng: random.Random, stage: str, episode: int) -> PairExample:
    a, b = rng.randrange(100, 999), rng.randrange(100, 999)
    right = a + b
    return PairExample(
        stage=stage,
        episode=episode,
        id=f"{stage}/e{episode}/p{a}-{b}",
        prompt=f"What is {a} + {b}? <b>Answer</b> with a number & show your work.",
        messages=[
            {"role": "system", "content": "You are a patient teacher of arithmetic."},
            {"role": "user", "content": "Good morning!"},
            {"role": "assistant", "content": "Good morning. What shall we add?"},
            {"role": "user", "content": f"What is {a} + {b}? <b>Answer</b> with a number."},
        ],
        chosen_about="14 tokens",
        rejected_about="27 tokens, cut",
        versions="3",
        chosen=f"{a} + {b} = {right}. The answer is {right}.",
        rejected=f"{a} + {b} = {right + 10}. The answer is {right + 10}, I think. " + "hmm " * 8,
        chosen_score=1.41,
        rejected_score=-0.72,
        parts={"model": (0.41, -0.72), "checker": (1.0, 0.0)},
        metadata={"skill": "add", "answer": str(right)},
    )


def evaluation(rng: random.Random, policy: str) -> Evaluated:
    """Accuracies that climb from stage to stage."""
    level = {"pretrain": 0.02, "sft": 0.31, "offline_dpo": 0.41, "online_dpo": 0.49}[policy]
    skills = {}
    for place, name in enumerate(SKILLS):
        outside = name in OUTSIDE_PREFERENCES
        own = (0.3 if outside and level > 0.3 else level) + 0.08 * math.sin(place * 2.1)
        sampled = min(1.0, max(0.0, own + rng.gauss(0, 0.02)))
        skills[name] = SkillAccuracy(
            sampled=sampled,
            sampled_n=128,
            greedy=min(1.0, sampled + 0.1),
            greedy_n=32,
            in_preferences=not outside,
        )
    return Evaluated(
        stage=f"{policy}-evaluation",
        policy=policy,
        sampled=level,
        sampled_n=1024,
        greedy=level + 0.09,
        greedy_n=256,
        skills=skills,
        lm_loss=2.31 + 0.02 * level,
        lm_tokens=50_000,
        seconds=12.0,
    )
