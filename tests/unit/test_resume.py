"""Offline jobs that are killed at every step, and end with the bytes of one that was not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from services.errors import ArtifactError
from services.learner.jobs.lm import train_base, train_sft
from services.learner.jobs.offline_dpo import train_offline_dpo
from services.learner.jobs.reward_model import train_reward_model
from services.learner.jobs.settings import (
    OfflineDPOSettings,
    Place,
    PretrainSettings,
    RewardModelSettings,
    SFTSettings,
)
from services.learner.model.load import new_model
from services.learner.model.policy import Policy
from services.learner.train.checkpoint import latest, number_of
from services.learner.train.distributed import Worker
from services.learner.train.loop import PhaseResult
from services.learner.train.resume import StepCheckpoints
from services.telemetry.record.events import Event, Note, TrainProgress
from tests.unit import learner_parts as parts

STEPS = 4


class Killed(BaseException):
    """As abrupt as it gets inside one process: nothing catches it."""


def killed_at(step: int) -> Callable[[Event], None]:
    """A reporter that ends the job after a step was taken and before its checkpoint."""

    def report(event: Event) -> None:
        if isinstance(event, Note) and event.text.endswith(f"/step-{step:06d}"):
            raise Killed

    return report


def rows(path: Path, found: list[dict[str, Any]]) -> dict[str, str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return {"path": str(path)}


def job(kind: str, at: Path, **train: object) -> Callable[[Place, Any], dict[str, float]]:
    """A job of four steps that keeps a model and writes a checkpoint at each."""
    shared = {"max_steps": STEPS, "batch_size": 4, "keep_every": 1, "checkpoint_minutes": 0}
    adam = {"kind": "adamw", "lr": 1e-2}
    how: dict[str, object] = {**shared, "optimizer": adam, **train}
    policy = str(at / "policy")
    if not Path(policy).exists():
        parts.policy(at / "policy", seed=1)
        parts.policy(at / "base", seed=2)
    texts = rows(at / "texts.jsonl", [{"text": " ".join(parts.WORDS[n:] * 3)} for n in range(6)])
    pairs = rows(
        at / "pairs.jsonl",
        [{"prompt": w, "chosen": w, "rejected": f"{w} one"} for w in parts.WORDS * 2],
    )
    dialogues = rows(at / "sft.jsonl", [{"prompt": w, "completion": w} for w in parts.WORDS * 2])
    settings: Any
    if kind.startswith("pretrain"):
        extension: dict[str, object] = {}
        if kind == "pretrain, extended":
            how["max_steps"] = STEPS - 2
            extension["context_extension"] = {"sequence_length": 32, "max_steps": 2}
        settings = PretrainSettings.model_validate(
            {
                "model": parts.SHAPE.model_copy(update={"rope_theta": 200.0}),
                "tokenizer": policy,
                "texts": texts,
                "heldout": texts,
                "sequence_length": 16,
                "train": how,
            }
            | extension
        )
        return lambda place, report: train_base(settings, place, report)
    if kind == "sft":
        given = {"policy": policy, "demonstrations": dialogues, "train": how}
        settings = SFTSettings.model_validate(given)
        return lambda place, report: train_sft(settings, place, report)
    if kind == "reward_model":
        given = {"policy": policy, "pairs": pairs, "heldout": pairs, "train": how}
        settings = RewardModelSettings.model_validate(given)
        return lambda place, report: train_reward_model(settings, place, report)
    merging: dict[str, object] = {
        "kind": "ondare",
        "lr": 1e-2,
        "reserve": 0.3,
        "rescale": True,
        "alpha": 1e-3,
    }
    if "8-bit" in kind:
        merging |= {"moments": "int8", "merge_every": 2}
        how["dtype"] = "bfloat16"
    settings = OfflineDPOSettings.model_validate(
        {
            "policy": policy,
            "reference": policy,
            "base": str(at / "base"),
            "pairs": pairs,
            "heldout": pairs,
            "train": how | {"optimizer": merging},
        }
    )
    return lambda place, report: train_offline_dpo(settings, place, report)


def place(at: Path, name: str) -> Place:
    return Place(
        stage=name,
        seed=5,
        out=str(at / name / "out"),
        kept=str(at / name / "kept"),
        folder=str(at / name / "learner"),
    )


def weights(at: Path, name: str) -> dict[str, np.ndarray]:
    return dict(load_file(at / name / "out" / "model.safetensors"))


@pytest.mark.parametrize(
    "kind",
    [
        *("pretrain", "pretrain, extended", "sft", "reward_model", "offline_dpo"),
        "offline_dpo, 8-bit moments between merges, bfloat16",
    ],
)
def test_a_job_killed_at_every_step_ends_with_the_same_bytes_and_metrics(
    kind: str, tmp_path: Path
) -> None:
    run = job(kind, tmp_path)
    expected = run(place(tmp_path, "whole"), lambda _: None)
    for step in range(1, STEPS + 1):
        with pytest.raises(Killed):
            run(place(tmp_path, "cut"), killed_at(step))
    events: list[Event] = []
    metrics = run(place(tmp_path, "cut"), events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert f"goes on from step {STEPS - 1} of {STEPS}" in notes
    assert sum("kept a model" in text for text in notes) == 1
    last = [event for event in events if isinstance(event, TrainProgress)][-1]
    assert (last.step, last.tokens) == (STEPS, metrics["tokens"])
    expected.pop("seconds"), metrics.pop("seconds")
    # Whether the changed values of a step are counted is the clock's to say.
    for name in ("changed_fraction", "following_tau"):
        expected.pop(name, None), metrics.pop(name, None)
    assert metrics == expected
    whole, cut = weights(tmp_path, "whole"), weights(tmp_path, "cut")
    assert whole.keys() == cut.keys()
    assert all(np.array_equal(cut[name], value) for name, value in whole.items())
    start = load_file(tmp_path / "policy" / "model.safetensors")
    assert any(not np.array_equal(start[name], cut[name]) for name in start if name in cut)


def test_a_finished_phase_trains_nothing_again(tmp_path: Path) -> None:
    run = job("sft", tmp_path)
    first = run(place(tmp_path, "a"), lambda _: None)
    before = weights(tmp_path, "a")
    # Killed after the last checkpoint, while it exported.
    events: list[Event] = []
    second = run(place(tmp_path, "a"), events.append)
    assert [event.text for event in events if isinstance(event, Note)] == [
        f"goes on from step {STEPS} of {STEPS}"
    ]
    assert second == first
    assert all(np.array_equal(before[name], v) for name, v in weights(tmp_path, "a").items())


def test_the_reference_is_asked_once_and_its_answers_are_in_the_artifact(tmp_path: Path) -> None:
    run = job("offline_dpo", tmp_path)
    expected = run(place(tmp_path, "whole"), lambda _: None)
    kept = sorted((tmp_path / "whole" / "out" / "reference").iterdir())
    # The held-out pairs are the same ones here.
    assert [path.name for path in kept] == [
        path.name for path in (tmp_path / "whole" / "learner" / "reference").iterdir()
    ]
    # Whatever stands there under the right key is believed: it was not computed again.
    (stated,) = kept
    moved = load_file(stated)["chosen_rejected"] + np.array([3.0, 0.0], dtype=np.float32)
    (tmp_path / "other" / "learner" / "reference").mkdir(parents=True)
    path = tmp_path / "other" / "learner" / "reference" / stated.name
    save_file({"chosen_rejected": moved}, path)
    found = run(place(tmp_path, "other"), lambda _: None)
    assert found["heldout_chosen_reward"] < expected["heldout_chosen_reward"]


def test_other_examples_are_refused(tmp_path: Path) -> None:
    job("sft", tmp_path)(place(tmp_path, "a"), lambda _: None)
    with pytest.raises(ArtifactError, match=r"left by a training on other examples; begin"):
        job("sft", tmp_path, batch_size=3)(place(tmp_path, "a"), lambda _: None)


def test_without_a_folder_nothing_is_kept(tmp_path: Path) -> None:
    at = place(tmp_path, "a").model_copy(update={"folder": None})
    job("sft", tmp_path)(at, lambda _: None)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["kept", "out"]


class Clock:
    """Read once as a step ends, and once more when its checkpoint, which takes `cost_s`, is."""

    def __init__(self, cost_s: float) -> None:
        self.now, self._cost_s, self._read = 0.0, cost_s, False

    def tick(self, seconds: float) -> None:
        self.now, self._read = self.now + seconds, False

    def __call__(self) -> float:
        self.now += self._cost_s if self._read else 0.0
        self._read = True
        return self.now


@pytest.mark.parametrize(
    ("minutes", "cost_s", "written"),
    [
        (1.0, 0.0, [6, 12, 18, 24, 30]),
        # Each takes 6 s: none within 120 s of it.
        (1.0, 6.0, [6, 18, 30]),
        (0.0, 6.0, list(range(1, 31))),
    ],
)
def test_checkpoints_take_a_twentieth_of_the_time(
    minutes: float, cost_s: float, written: list[int], tmp_path: Path
) -> None:
    clock, model = Clock(cost_s), Policy(new_model(parts.SHAPE, parts.tokenizer(), 0), "float32")
    optimizer = torch.optim.AdamW(model.named_parameters().values())
    checkpoints = StepCheckpoints(tmp_path, [[0]], minutes, Worker(), clock)
    found = []
    for step in range(1, 31):
        clock.tick(10.0)
        checkpoints.after_step(step, model, optimizer, PhaseResult())
        if (path := latest(tmp_path)) is not None and number_of(path) == step:
            found.append(step)
    assert found == written
