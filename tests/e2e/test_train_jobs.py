"""Every offline job through real Ray Train, one after the other, on a tiny model."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.data.settings import DataSource
from services.errors import DataError, WorkerDiedError, WorkerError
from services.learner.jobs.evaluate_lm import evaluate_texts
from services.learner.jobs.lm import train_base, train_sft
from services.learner.jobs.reward_model import train_reward_model
from services.learner.jobs.settings import (
    OfflineDPOSettings,
    Place,
    PretrainSettings,
    RewardModelSettings,
    SFTSettings,
)
from services.learner.settings import AdamWSettings, OnDARESettings, TrainSettings
from services.learner.train.background import start
from services.learner.train.ray_train import fit
from tests.unit import learner_parts as parts

pytestmark = pytest.mark.e2e


def silent(event: Any) -> None:
    """A reporter that can travel."""


def rows(path: Path, found: list[dict[str, Any]]) -> DataSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return DataSource(path=str(path))


def broken(report: Any) -> dict[str, float]:
    raise ValueError("first line\nsecond line")


def test_the_recipe_of_offline_jobs(cluster: None, tmp_path: Path) -> None:
    storage = tmp_path / "train"
    held = parts.tokenizer()
    held.save_pretrained(tmp_path / "tokenizer")
    train = TrainSettings(
        optimizer=AdamWSettings(lr=3e-3), batch_size=8, epochs=4, threads=1, workers=2
    )
    longer = train.model_copy(update={"max_steps": 60})
    texts = rows(tmp_path / "texts.jsonl", [{"text": " ".join(parts.WORDS)}] * 40)

    def place(name: str) -> Place:
        return Place(stage=name, out=str(tmp_path / name))

    pretrain = PretrainSettings(
        model=parts.SHAPE,
        tokenizer=str(tmp_path / "tokenizer"),
        texts=texts,
        heldout=texts,
        sequence_length=32,
        train=longer,
    )
    metrics = fit(train_base, (pretrain, place("base")), longer, storage, silent, "pretrain")
    assert metrics["loss"] < 4.0
    loss, tokens = evaluate_texts(str(tmp_path / "base"), texts)
    assert metrics["heldout_loss"] == pytest.approx(loss, abs=1e-4)
    assert metrics["heldout_tokens"] == tokens

    single = train.model_copy(update={"workers": 1})
    dialogues = [{"prompt": word, "completion": word} for word in parts.WORDS for _ in range(8)]
    sft = SFTSettings(
        policy=place("base").out,
        demonstrations=rows(tmp_path / "sft.jsonl", dialogues),
        train=single,
    )
    assert fit(train_sft, (sft, place("sft")), single, storage, silent, "sft")["steps"] == 24

    preferred = [
        {"prompt": word, "chosen": word, "rejected": word + " one"}
        for word in parts.WORDS
        for _ in range(8)
    ]
    pairs = rows(tmp_path / "pairs.jsonl", preferred)
    reward = RewardModelSettings(
        policy=place("sft").out,
        pairs=pairs,
        heldout=pairs,
        train=single,
    )
    metrics = fit(train_reward_model, (reward, place("reward")), single, storage, silent, "reward")
    assert metrics["heldout_accuracy"] > 0.9

    merging = single.model_copy(
        update={"optimizer": OnDARESettings(lr=3e-3, reserve=0.3, rescale=True)}
    )
    dpo = OfflineDPOSettings(
        policy=place("sft").out,
        reference=place("sft").out,
        base=place("base").out,
        pairs=pairs,
        heldout=pairs,
        train=merging,
    )
    metrics = start(
        "services.learner.jobs.offline_dpo:train_offline_dpo",
        (dpo, place("dpo")),
        merging,
        storage,
        silent,
        "dpo",
    ).result(300)
    assert metrics["heldout_accuracy"] > 0.9
    assert metrics["heldout_dpo_margin"] > 0


def test_a_workers_error_is_one_line(cluster: None, tmp_path: Path) -> None:
    settings = TrainSettings(threads=1)
    with pytest.raises(WorkerError) as caught:
        fit(broken, (), settings, tmp_path, silent, "broken")
    assert str(caught.value) == "broken: worker 0: ValueError: first line second line"
    empty = DataSource(path=str(tmp_path / "nothing.jsonl"))
    sft = SFTSettings(policy=parts.policy(tmp_path / "p"), demonstrations=empty)
    with pytest.raises(DataError, match=r"nothing\.jsonl"):
        fit(
            train_sft,
            (sft, Place(stage="sft", out="x")),
            settings,
            tmp_path,
            silent,
            "sft",
        )


def hangs(report: object) -> dict[str, float]:
    """Stands still as a whole, as if on a machine that does."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def test_a_worker_that_hangs_is_taken_for_dead_and_ended(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "5")
    before = workers()
    with pytest.raises(WorkerDiedError, match="learner worker 0 died: it did not answer for 5 s"):
        fit(hangs, (), TrainSettings(), tmp_path, silent, "hangs")
    until = time.monotonic() + 60
    while workers() - before and time.monotonic() < until:
        time.sleep(0.1)
    assert not workers() - before


def workers() -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(process.cmdline()) and process.status() != "zombie":
                found.add(process.pid)
    return found
