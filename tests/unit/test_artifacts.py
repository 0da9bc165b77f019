import json
from pathlib import Path

import pytest

from orchestrator.artifacts.links import resolve, with_seed
from orchestrator.artifacts.store import (
    Artifact,
    ancestor,
    find_reusable,
    fingerprint,
    finish,
    read_artifact,
)
from orchestrator.config.settings import SFTJob
from services.data.settings import DataSource
from services.errors import ArtifactError


def make(folder: Path, kind: str, mark: str, **parents: str) -> str:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True)
    finish(partial, folder, Artifact(kind=kind, fingerprint=mark, parents=parents))
    return str(folder)


def sft(policy: str, lr: float = 1e-3, **more: object) -> SFTJob:
    return SFTJob.model_validate(
        {
            "job": "sft",
            "policy": policy,
            "demonstrations": {"path": "nowhere.jsonl"},
            "train": {"optimizer": {"kind": "adamw", "lr": lr}},
            **more,
        }
    )


def test_equal_work_has_equal_fingerprints_wherever_its_parents_lie(tmp_path: Path) -> None:
    here = make(tmp_path / "a" / "base", "pretrain", "m1")
    there = make(tmp_path / "b" / "base", "pretrain", "m1")
    other = make(tmp_path / "c" / "base", "pretrain", "m2")
    marks = [fingerprint(sft(p), {"policy": p}) for p in (here, there, other)]
    assert marks[0] == marks[1] != marks[2]


def test_config_and_seed_change_the_fingerprint_and_placement_does_not(tmp_path: Path) -> None:
    base = make(tmp_path / "base", "pretrain", "m1")

    def mark(**more: object) -> str:
        return fingerprint(sft(base, **more), {"policy": base})  # type: ignore[arg-type]

    assert mark() == mark(output="elsewhere") == mark(ray={"num_cpus": 3})
    assert len({mark(), mark(lr=2e-3), mark(seed=1)}) == 3


def test_an_input_file_that_changes_changes_the_fingerprint(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("1")
    job = sft("hub/model").model_copy(update={"demonstrations": DataSource(path=str(data))})
    before = fingerprint(job, {"demonstrations": str(data)})
    data.write_text("12")
    assert fingerprint(job, {"demonstrations": str(data)}) != before


def test_a_finished_artifact_is_found_in_another_run_and_a_half_one_is_not(tmp_path: Path) -> None:
    make(tmp_path / "one" / "sft", "sft", "m1")
    (tmp_path / "two" / "sft").mkdir(parents=True)
    first = tmp_path / "three" / "sft"
    assert find_reusable(tmp_path, first, "m1") == tmp_path / "one" / "sft"
    assert find_reusable(tmp_path, first, "m2") is None


def test_what_stood_under_the_final_name_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "sft", "sft", "m1")
    make(tmp_path / "sft", "sft", "m2")
    old = json.loads((tmp_path / ".replaced" / "sft-1" / "artifact.json").read_text())
    new = json.loads((tmp_path / "sft" / "artifact.json").read_text())
    assert (old["fingerprint"], new["fingerprint"]) == ("m1", "m2")


def test_the_nearest_ancestor_of_a_kind(tmp_path: Path) -> None:
    base = make(tmp_path / "pretrain", "pretrain", "1")
    tuned = make(tmp_path / "sft", "sft", "2", policy=base)
    offline = make(tmp_path / "offline", "offline_dpo", "3", policy=tuned, reference=tuned)
    assert ancestor(offline, "sft") == tuned
    assert ancestor(offline, "pretrain") == base
    assert ancestor(base, "sft") is None
    assert ancestor(str(tmp_path), "sft") is None


def test_lineage_survives_a_move_of_the_whole_run(tmp_path: Path) -> None:
    base = make(tmp_path / "run" / "pretrain", "pretrain", "1")
    make(tmp_path / "run" / "sft", "sft", "2", policy=base, reference="owner/model")
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = read_artifact(tmp_path / "moved" / "sft")
    assert moved is not None
    assert moved.parents == {
        "policy": str(tmp_path / "moved" / "pretrain"),
        "reference": "owner/model",
    }


def test_a_damaged_artifact_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"artifact\.json is damaged"):
        ancestor(str(tmp_path), "sft")


def test_references_become_paths_and_defaults_stay_unset() -> None:
    job = sft("@pretrain", demonstrations={"path": "@data/x.jsonl"})
    ready = resolve(job, {"pretrain": Path("runs/a/pretrain"), "data": Path("runs/a/data")})
    assert ready.policy == "runs/a/pretrain"
    assert ready.demonstrations.path == "runs/a/data/x.jsonl"
    assert with_seed(ready, 7).seed == 7
    assert with_seed(sft("x", seed=0), 7).seed == 0
