"""A single job that is measured before and after: its stages, their identity, their keys."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.artifacts.identity import identity_of
from orchestrator.checks.preflight import check
from orchestrator.jobs.evaluate import Evaluate
from orchestrator.jobs.job import Job
from orchestrator.jobs.registry import validated
from orchestrator.stages.outlook import outlook
from orchestrator.stages.plan import plan_stages
from services.errors import DataError
from services.learner.model.export import export_model
from services.learner.model.load import new_model
from tests.unit import learner_parts as parts
from tests.unit.test_plan import made


def job(kind: str, folder: Path, **changes: Any) -> Job:
    """One that makes a policy, measured on what is there."""
    rows = folder / "rows.jsonl"
    if not rows.exists():
        rows.write_text('{"prompt": "one", "completion": "a", "answer": "b", "text": "red blue"}\n')
        shape = parts.SHAPE.model_copy(update={"heads": 1, "kv_heads": 1})
        export_model(new_model(shape, parts.tokenizer(), 0), parts.tokenizer(), folder / "policy")
    source, own = {"path": str(rows)}, {"policy": str(folder / "policy")}
    online = {"prompts": source, "reward": {"parts": [{"kind": "checker"}]}}
    online |= {"sampling": {"max_tokens": 8}, "episodes": {"prompts": 1}}
    engine = {"max_model_len": 128, "kv_cache_gib": 0.1}
    given: dict[str, dict[str, Any]] = {
        "pretrain": {"texts": source},
        "sft": own | {"demonstrations": source},
        "offline_dpo": own | {"pairs": source},
        "online_dpo": own | online | {"engine": engine},
    }
    common = {"job": kind, "output": str(folder / "runs"), "seed": 3}
    measured = {"evaluate": {"prompts": source, "samples": 2, "max_tokens": 8}, "engine": engine}
    return validated(given[kind] | common | measured | changes)


@pytest.mark.parametrize("kind", ["sft", "offline_dpo", "online_dpo"])
def test_a_policy_is_measured_before_and_after(tmp_path: Path, kind: str) -> None:
    single = job(kind, tmp_path)
    stages = single.expand()
    assert list(stages) == ["policy-evaluation", kind, f"{kind}-evaluation"]
    assert stages[kind] is single
    before, _, after = stages.values()
    assert isinstance(before, Evaluate)
    assert isinstance(after, Evaluate)
    assert (before.policy, before.measures) == (str(tmp_path / "policy"), "")
    assert (after.policy, after.measures) == (f"@{kind}", kind)
    for each in (before, after):
        assert (each.evaluation.samples, each.engine.max_model_len, each.seed) == (2, 128, 3)
        # Skills that the preference data holds: of the prompts an online job trains on.
        assert len(each.preferences_from) == (1 if kind == "online_dpo" else 0)


def test_what_is_made_from_nothing_is_measured_after(tmp_path: Path) -> None:
    assert list(job("pretrain", tmp_path).expand()) == ["pretrain", "pretrain-evaluation"]


def test_without_evaluate_a_job_is_one_stage(tmp_path: Path) -> None:
    assert list(job("online_dpo", tmp_path, evaluate=None).expand()) == ["online_dpo"]


@pytest.mark.parametrize("kind", ["pretrain", "sft", "offline_dpo", "online_dpo"])
def test_an_evaluation_is_no_part_of_what_is_trained(tmp_path: Path, kind: str) -> None:
    measured = identity_of(job(kind, tmp_path), lambda each: each.value)
    keys = {key.split(".")[0] for key in measured}
    assert "evaluate" not in keys
    assert ("engine" in keys) == (kind == "online_dpo")
    bare: dict[str, Any] = {"evaluate": None}
    bare |= {} if kind == "online_dpo" else {"engine": None}
    assert identity_of(job(kind, tmp_path, **bare), lambda each: each.value) == measured


def test_an_evaluation_added_later_reuses_the_trained_model(tmp_path: Path) -> None:
    (stage,) = plan_stages(job("sft", tmp_path, evaluate=None, engine=None))
    made(stage)
    lines = outlook(job("sft", tmp_path)).splitlines()
    made_of = lines.index("# What a run does (3 stages):")
    assert lines[made_of : made_of + 4] == [
        "# What a run does (3 stages):",
        "#  1 policy-evaluation: will be made",
        f"#  2 sft: is reused from {tmp_path / 'runs' / 'sft' / 'sft'}",
        "#  3 sft-evaluation: will be made",
    ]


def test_a_wrong_key_is_named_where_the_user_wrote_it(tmp_path: Path) -> None:
    check(job("sft", tmp_path), addresses=False)
    nowhere = {"prompts": {"path": str(tmp_path / "nowhere.jsonl")}}
    with pytest.raises(DataError, match=r"^'evaluate\.prompts\.path': "):
        check(job("sft", tmp_path, evaluate=nowhere), addresses=False)
    with pytest.raises(DataError, match=r"^'demonstrations\.path': "):
        check(job("sft", tmp_path, demonstrations=nowhere["prompts"]), addresses=False)
    recipe = {
        "job": "recipe",
        "stages": {"base": {"job": "pretrain", "texts": {"path": str(tmp_path / "rows.jsonl")}}},
    }
    with pytest.raises(DataError, match=r"^'evaluate\.texts\.path': "):
        check(validated(recipe | {"evaluate": {"texts": nowhere["prompts"]}}), addresses=False)
    base = {"job": "pretrain", "texts": nowhere["prompts"]}
    with pytest.raises(DataError, match=r"^'stages\.base\.texts\.path': "):
        check(validated(recipe | {"stages": {"base": base}}), addresses=False)


def test_a_stage_of_a_recipe_is_measured_by_the_recipe(tmp_path: Path) -> None:
    stage = job("sft", tmp_path).model_dump(exclude_unset=True, exclude={"output"})
    with pytest.raises(ValidationError, match=r"stages\.tuned\.evaluate: a recipe measures every"):
        validated({"job": "recipe", "stages": {"tuned": stage}})


def test_settings_without_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="'engine' is for evaluation, and there is none"):
        job("sft", tmp_path, evaluate=None)
    with pytest.raises(ValidationError, match="there is nothing to measure on; set prompts, texts"):
        job("sft", tmp_path, evaluate={"samples": 2})
