"""What a run says it will do before it does it, and what it keeps."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.store import Artifact, finish
from orchestrator.jobs.recipe import Recipe
from orchestrator.stages.outlook import outlook
from orchestrator.stages.plan import PlannedStage, begin, notices, plan_stages
from services.errors import ConfigError


def recipe(folder: Path, changes: dict[str, Any] | None = None) -> Recipe:
    """Base -> sft -> online_dpo, on data that is there; `changes` are laid over the stages."""
    folder.mkdir(exist_ok=True)
    data = folder / "data.jsonl"
    if not data.exists():
        data.write_text('{"prompt": "a", "completion": "b", "answer": "b"}\n')
    stages: dict[str, dict[str, Any]] = {
        "pretrain": {"job": "pretrain", "texts": {"path": str(data)}},
        "sft": {"job": "sft", "policy": "@pretrain", "demonstrations": {"path": str(data)}},
        "online_dpo": {
            "job": "online_dpo",
            "policy": "@sft",
            "prompts": {"path": str(data)},
            "reward": {"parts": [{"kind": "checker"}]},
            "episodes": {"count": 8},
        },
    }
    for key, change in (changes or {}).items():
        stages[key] |= change
    return Recipe.model_validate({"name": "run", "output": str(folder / "runs"), "stages": stages})


def made(stage: PlannedStage) -> None:
    """As a run leaves a finished stage."""
    begin(stage)
    (out := stage.scratch / "out").mkdir()
    artifact = Artifact(
        kind=stage.job.job,
        fingerprint=stage.fingerprint,
        trunk=stage.trunk,
        extent=dict(stage.extent),
        identity=dict(stage.identity),
    )
    finish(out, stage.scratch.parent.parent / stage.key, artifact)
    (stage.scratch / "stage.json").unlink()
    stage.scratch.rmdir()


def outlooks(job: Recipe) -> dict[str, str]:
    return {stage.key: stage.outlook for stage in plan_stages(job)}


def test_a_new_run_makes_everything_and_says_nothing(tmp_path: Path) -> None:
    planned = plan_stages(recipe(tmp_path))
    assert [stage.outlook for stage in planned] == ["will be made"] * 3
    assert notices(planned) == []
    assert not (tmp_path / "runs" / "run").exists()


def test_a_finished_run_is_reused_whole_whatever_operation_changed(tmp_path: Path) -> None:
    for stage in plan_stages(recipe(tmp_path)):
        made(stage)
    other = recipe(
        tmp_path,
        {
            "sft": {"train": {"workers": 2, "micro_batch_tokens": 64}},
            "online_dpo": {
                "episodes": {"count": 8, "timeout_s": 5},
                "engine": {"kv_cache_gib": 0.5, "workers": 2},
            },
        },
    )
    planned = plan_stages(other)
    assert [stage.found for stage in planned] == [
        tmp_path / "runs" / "run" / key for key in ("pretrain", "sft", "online_dpo")
    ]
    assert notices(planned) == []


def test_what_changed_is_named_with_what_follows_from_it(tmp_path: Path) -> None:
    for stage in plan_stages(recipe(tmp_path)):
        made(stage)
    changed = {"sft": {"train": {"batch_size": 32, "optimizer": {"kind": "adamw", "lr": 0.5}}}}
    planned = plan_stages(recipe(tmp_path, changed))
    assert planned[0].found is not None
    sft = tmp_path / "runs" / "run" / "sft"
    assert notices(planned) == [
        "sft begins anew: train.batch_size 64 -> 32, train.optimizer.lr 1e-05 -> 0.5;"
        f" {sft} moves to .replaced/ when it is done",
        "made anew with it: online_dpo; the old ones are kept too",
    ]
    assert sft.is_dir()


def test_other_data_is_another_input_and_a_copy_is_not(tmp_path: Path) -> None:
    for stage in plan_stages(recipe(tmp_path)):
        made(stage)
    (copy := tmp_path / "copy.jsonl").write_bytes((tmp_path / "data.jsonl").read_bytes())
    moved = {"sft": {"demonstrations": {"path": str(copy)}}}
    assert all(stage.found for stage in plan_stages(recipe(tmp_path, moved)))
    copy.write_text('{"prompt": "a", "completion": "c", "answer": "c"}\n')
    said = notices(plan_stages(recipe(tmp_path, moved)))
    assert said[0].startswith("sft begins anew: demonstrations.path (other content); ")


def test_unfinished_work_goes_on_and_unfinished_other_work_stays(tmp_path: Path) -> None:
    *before, online = plan_stages(recipe(tmp_path))
    for stage in before:
        made(stage)
    begin(online)
    assert outlooks(recipe(tmp_path))["online_dpo"] == "goes on where it stood"
    slower = {"online_dpo": {"episodes": {"count": 8, "timeout_s": 7200}}}
    assert notices(plan_stages(recipe(tmp_path, slower))) == ["online_dpo goes on where it stood"]
    other = outlooks(recipe(tmp_path, {"online_dpo": {"dpo": {"beta": 0.3}}}))["online_dpo"]
    assert other == (f"begins anew: dpo.beta 0.1 -> 0.3; what was begun stays in {online.scratch}")
    assert json.loads((online.scratch / "stage.json").read_text())["kind"] == "online_dpo"


def test_more_episodes_go_on_from_what_is_there(tmp_path: Path) -> None:
    *before, online = plan_stages(recipe(tmp_path))
    for stage in before:
        made(stage)
    begin(online)
    longer = recipe(tmp_path, {"online_dpo": {"episodes": {"count": 12}}})
    assert outlooks(longer)["online_dpo"] == "goes on where it stood: episodes.count 8 -> 12"
    made_online = plan_stages(recipe(tmp_path))[-1]
    (made_online.scratch / "stage.json").unlink()
    made_online.scratch.rmdir()
    made(made_online)
    again = plan_stages(longer)[-1]
    folder = tmp_path / "runs" / "run" / "online_dpo"
    assert (again.extends, again.trunk) == (folder, online.trunk)
    assert notices(plan_stages(longer)) == [
        f"online_dpo goes on from {folder}: episodes.count 8 -> 12"
    ]
    with pytest.raises(ConfigError, match=r"'episodes\.count': online_dpo went on to 8 already"):
        plan_stages(recipe(tmp_path, {"online_dpo": {"episodes": {"count": 4}}}))


def test_an_artifact_of_another_version_is_not_compared_key_by_key(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    (folder / "partial").mkdir(parents=True)
    finish(folder / "partial", folder / "pretrain", Artifact(kind="pretrain", fingerprint="old"))
    said = outlooks(recipe(tmp_path))["pretrain"]
    assert said.startswith("begins anew: another version made it;")


def test_a_dry_run_says_it_all_in_comments(tmp_path: Path) -> None:
    online = {"train": {"optimizer": {"kind": "ondare"}}, "episodes": {"prompts": 1}}
    text = outlook(recipe(tmp_path, {"online_dpo": online}))
    lines = text.splitlines()
    assert all(line.startswith("#") for line in lines[1:])
    assert lines[8].startswith("# Memory of each stage at its fullest, GiB (this machine has ")
    assert lines[:7] == [
        "",
        "# What a run does (3 stages):",
        "#  1 pretrain: will be made",
        "#  2 sft: will be made",
        "#  3 online_dpo: will be made",
        "#      reference: @sft (the policy itself)",
        "#      base: @pretrain (by lineage)",
    ]
