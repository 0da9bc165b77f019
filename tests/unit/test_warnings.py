"""What is legal in a config and likely a mistake: said by a dry run as well."""

import json
from pathlib import Path

import pytest

from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.sft import SFT
from orchestrator.stages.outlook import outlook
from services.learner.optim.schedule import lr_factor
from services.learner.settings import ScheduleSettings


def rows(path: Path, count: int) -> str:
    line = json.dumps({"prompt": "a", "completion": "b", "answer": "c"})
    path.write_text(f"{line}\n\n" * count)
    return str(path)


def sft(folder: Path, examples: int, **train: object) -> SFT:
    demonstrations = {"path": rows(folder / "d.jsonl", examples)}
    given = {"batch_size": 64, "epochs": 2} | train
    return SFT.model_validate({"policy": "a/b", "demonstrations": demonstrations, "train": given})


def test_a_warmup_longer_than_the_run(tmp_path: Path) -> None:
    schedule = {"warmup_steps": 100}
    assert sft(tmp_path, 60, schedule=schedule).warnings() == [
        "train.schedule.warmup_steps 100 is more than half of the run's 2 steps, which ends at 2%"
        " of the learning rate: lower it, or set train.schedule.warmup_ratio=0.1 instead"
    ]
    (text,) = sft(tmp_path, 60, schedule=schedule, max_steps=150).warnings()
    assert text.startswith(
        "train.schedule.warmup_steps 100 is more than half of the run's 150 steps:"
    )
    assert sft(tmp_path, 60, schedule=schedule, max_steps=200).warnings() == []
    assert sft(tmp_path, 60, schedule={"warmup_ratio": 0.1}).warnings() == []


def online(folder: Path, prompts: int, **changes: object) -> OnlineDPO:
    given = {
        "policy": "a/b",
        "prompts": {"path": rows(folder / "p.jsonl", prompts)},
        "reward": {"parts": [{"kind": "checker"}]},
        "episodes": {"count": 4, "prompts": 32},
        "train": {"optimizer": {"kind": "adamw"}, "batch_size": 16},
    }
    return OnlineDPO.model_validate(given | changes)


def test_prompts_that_repeat_inside_an_episode(tmp_path: Path) -> None:
    (text,) = online(tmp_path, 20).warnings()
    assert text.startswith("episodes.prompts 32 is more than the 20 prompts of ")
    assert online(tmp_path, 32).warnings() == []


def test_an_online_warmup_is_held_against_all_episodes(tmp_path: Path) -> None:
    train = {"optimizer": {"kind": "adamw"}, "batch_size": 16}
    # 4 episodes of 2 steps.
    assert online(tmp_path, 32, train=train | {"schedule": {"warmup_steps": 4}}).warnings() == []
    (text,) = online(tmp_path, 32, train=train | {"schedule": {"warmup_steps": 5}}).warnings()
    assert "more than half of the run's 8 steps" in text


def test_a_dry_run_says_them_and_what_is_sought_on_the_hub(tmp_path: Path) -> None:
    job = online(tmp_path, 20, output=str(tmp_path / "runs"))
    lines = outlook(job).splitlines()
    assert "#      policy: no folder a/b here: a name on the hub" in lines
    assert any(line.startswith("#      warning: episodes.prompts 32 is more") for line in lines)


def test_a_warmup_ratio_is_a_share_of_all_steps() -> None:
    ratio, steps = ScheduleSettings(warmup_ratio=0.2), ScheduleSettings(warmup_steps=2)
    assert [lr_factor(ratio, at, 10) for at in range(10)] == [
        lr_factor(steps, at, 10) for at in range(10)
    ]
    with pytest.raises(ValueError, match="both set"):
        ScheduleSettings(warmup_ratio=0.2, warmup_steps=2)
