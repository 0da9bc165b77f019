import json
from pathlib import Path

import pytest

from orchestrator.artifacts.lineage import Lineage, check_alignment
from orchestrator.artifacts.links import check_links, resolve
from orchestrator.artifacts.store import (
    Artifact,
    finish,
    finished_artifacts,
    read_artifact,
)
from orchestrator.jobs.recipe import Recipe, with_seed
from orchestrator.jobs.sft import SFT
from services.errors import ArtifactError, ConfigError, LineageError


def make(folder: Path, kind: str, mark: str, **parents: str) -> str:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True)
    finish(partial, folder, Artifact(kind=kind, fingerprint=mark, parents=parents))
    return str(folder)


def sft(policy: str, **more: object) -> SFT:
    given = {"policy": policy, "demonstrations": {"path": "nowhere.jsonl"}}
    return SFT.model_validate(given | more)


def test_a_finished_artifact_is_found_in_another_run_and_a_half_one_is_not(tmp_path: Path) -> None:
    make(tmp_path / "one" / "sft", "sft", "m1")
    (tmp_path / "two" / "sft").mkdir(parents=True)
    assert finished_artifacts(tmp_path, tmp_path / "three") == {"m1": tmp_path / "one" / "sft"}


def test_of_two_equal_artifacts_the_runs_own_is_taken(tmp_path: Path) -> None:
    make(tmp_path / "one" / "sft", "sft", "m1")
    make(tmp_path / "two" / "tuned", "sft", "m1")
    assert finished_artifacts(tmp_path, tmp_path / "two") == {"m1": tmp_path / "two" / "tuned"}


def test_a_damaged_artifact_stops_its_own_run_alone(tmp_path: Path) -> None:
    make(tmp_path / "one" / "sft", "sft", "m1")
    (broken := tmp_path / "two" / "sft").mkdir(parents=True)
    (broken / "artifact.json").write_text("{")
    assert finished_artifacts(tmp_path, tmp_path / "one") == {"m1": tmp_path / "one" / "sft"}
    with pytest.raises(ArtifactError, match=r"two/sft/artifact\.json is damaged"):
        finished_artifacts(tmp_path, tmp_path / "two")


def test_what_stood_under_the_final_name_is_kept(tmp_path: Path) -> None:
    make(tmp_path / "sft", "sft", "m1")
    make(tmp_path / "sft", "sft", "m2")
    old = json.loads((tmp_path / ".replaced" / "sft-1" / "artifact.json").read_text())
    new = json.loads((tmp_path / "sft" / "artifact.json").read_text())
    assert (old["fingerprint"], new["fingerprint"]) == ("m1", "m2")


def test_the_reference_is_the_policy_before_any_training_on_preferences(tmp_path: Path) -> None:
    base = make(tmp_path / "pretrain", "pretrain", "1")
    tuned = make(tmp_path / "sft", "sft", "2", policy=base)
    offline = make(tmp_path / "offline", "offline_dpo", "3", policy=tuned, reference=tuned)
    online = make(tmp_path / "online", "online_dpo", "4", policy=offline, reference=tuned)
    of_hub = make(tmp_path / "hub", "offline_dpo", "5", policy="owner/model")
    find = Lineage().reference
    assert [find(each, None) for each in (online, offline)] == [tuned, tuned]
    assert find(online, None).source == "lineage"
    assert find(of_hub, None) == "owner/model"
    assert [(find(each, None), find(each, None).source) for each in (tuned, base, "a/b")] == [
        (tuned, "policy"),
        (base, "policy"),
        ("a/b", "policy"),
    ]
    assert (find(online, "given/one"), find(online, "given/one").source) == ("given/one", "given")


def test_an_ancestor_that_was_replaced_is_found_where_it_went(tmp_path: Path) -> None:
    base = make(tmp_path / "pretrain", "pretrain", "1")
    tuned = make(tmp_path / "sft", "sft", "2", policy=base)
    make(tmp_path / "pretrain", "pretrain", "another")
    moved = str(tmp_path / ".replaced" / "pretrain-1")
    assert Lineage().base(tuned, None, "ondare") == moved
    (tmp_path / ".replaced").rename(tmp_path / "gone")
    with pytest.raises(LineageError, match=r"sft, its policy: .* holds another artifact by now"):
        Lineage().base(tuned, None, "ondare")


def test_lineage_reads_stages_that_are_still_to_be_made() -> None:
    recipe = Recipe.model_validate(
        {
            "stages": {
                "pre": {"job": "pretrain", "texts": {"path": "t.jsonl"}},
                "tuned": {
                    "job": "sft",
                    "policy": "@pre",
                    "demonstrations": {"path": "d.jsonl"},
                },
                "aligned": {
                    "job": "offline_dpo",
                    "policy": "@tuned",
                    "pairs": {"path": "p.jsonl"},
                    "train": {"optimizer": {"kind": "ondare"}},
                },
            }
        }
    )
    stages = recipe.expand()
    found = stages["aligned"].parents(Lineage(stages))
    assert found == {"reference": "@tuned", "base": "@pre"}
    assert [found[role].source for role in ("reference", "base")] == ["policy", "lineage"]
    shape = Lineage(stages).new_shape("@aligned")
    assert shape is not None
    assert (shape[0], shape[1].hidden_size) == ("pre", 896)


@pytest.mark.parametrize(
    ("reference", "given", "base", "source"),
    [
        ("Qwen/Qwen2-7B-Instruct", None, "Qwen/Qwen2-7B", "hub"),
        ("Qwen/Qwen2-7B-Instruct", "some/base", "some/base", "given"),
    ],
)
def test_the_base_of_a_hub_model(reference: str, given: str | None, base: str, source: str) -> None:
    found = Lineage().base(reference, given, "ondare")
    assert (found, found.source) == (base, source)
    with pytest.raises(
        ConfigError,
        match=r"'base' is missing: onties needs .*'some/model' has no"
        r" lineage \(there is no such folder here\)",
    ):
        Lineage().base("some/model", None, "onties")


def test_models_still_to_be_made_fit_each_other_until_they_are_made() -> None:
    found = {"reference": Lineage().reference("@sft", None)}
    assert found["reference"].source == "policy"
    check_alignment("@sft", found)


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


def test_the_parents_of_a_folder_behind_a_link_are_those_beside_the_folder(tmp_path: Path) -> None:
    base = make(tmp_path / "runs" / "pretrain", "pretrain", "a")
    make(tmp_path / "runs" / "sft", "sft", "b", policy=base)
    make(tmp_path / "pretrain", "pretrain", "another")
    (tmp_path / "policy").symlink_to(tmp_path / "runs" / "sft")
    linked = read_artifact(tmp_path / "policy")
    assert linked is not None
    assert linked.parents == {"policy": base}


def test_a_damaged_artifact_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"artifact\.json is damaged"):
        Lineage().reference(str(tmp_path), None)


def test_links_become_paths_and_defaults_stay_unset() -> None:
    job = sft("@pretrain", demonstrations={"path": "@data/x.jsonl"})
    ready = resolve(job, {"pretrain": Path("runs/a/pretrain"), "data": Path("runs/a/data")})
    assert ready.policy == "runs/a/pretrain"
    assert ready.demonstrations.path == "runs/a/data/x.jsonl"
    assert with_seed(ready, 7).seed == 7
    assert with_seed(sft("x", seed=0), 7).seed == 0


def test_a_link_to_no_earlier_stage_names_its_key() -> None:
    job = sft("@pretrain", demonstrations={"path": "@data/x.jsonl"})
    check_links(job, ["pretrain", "data"])
    with pytest.raises(
        ConfigError,
        match=r"'stages\.sft\.demonstrations\.path': '@data/x\.jsonl' names no earlier stage",
    ):
        check_links(job, ["pretrain"], "stages.sft.{}".format)
