"""The memory plan: what each process holds by its model and settings, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks.memory_check import Room, check_memory, memory_table
from orchestrator.checks.memory_plan import StageMemory, object_store_bytes, plan_memory
from orchestrator.config.ray import RaySettings
from orchestrator.jobs.job import Job
from orchestrator.jobs.registry import validated
from orchestrator.stages.cluster import store_room
from services.errors import ResourceError
from services.learner.memory import Training, learner_memory
from services.learner.settings import TrainSettings
from services.memory_plan import GIB, Part, ProcessMemory
from services.model_size import ModelSize
from services.queues.memory import redis_bytes
from services.queues.settings import EpisodeSettings, QueueSettings
from services.reward.memory import reward_memory
from services.reward.settings import ModelReward, RewardSettings
from services.rollout.memory import engine_memory
from services.rollout.settings import EngineSettings

CONFIG: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
"""Qwen2-0.5B's."""
OMO = {"kind": "ondare", "alpha": 1e-6}


def size(**changes: Any) -> ModelSize:
    found = ModelSize.of(CONFIG | changes)
    assert found is not None
    return found


def parts(process: ProcessMemory) -> dict[str, int]:
    return {part.name: part.bytes for part in process.parts}


def learner(dpo: bool = True, of: ModelSize | None = None, **train: Any) -> ProcessMemory:
    settings = TrainSettings.model_validate({"batch_size": 8, **train})
    return learner_memory(of or size(), settings, Training(256, 2 if dpo else None))


def test_the_models_of_the_report_have_their_published_sizes() -> None:
    assert size().parameters == 494_032_768  # Qwen/Qwen2-0.5B's safetensors header
    seven = size(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    assert seven.parameters == 7_615_616_512  # Qwen/Qwen2-7B's
    assert size(tie_word_embeddings=False).parameters - size().parameters == 151_936 * 896
    # Grouped queries: two heads of 64 keep keys and values, in 24 layers.
    assert size().key_values == 2 * 24 * 2 * 64
    assert size(num_key_value_heads=None).key_values == 2 * 24 * 14 * 64


def test_a_model_of_another_make_is_counted_by_its_tensors() -> None:
    counted = size().with_tensors([(10, 4), (4,), (3, 2, 2)])
    assert (counted.parameters, counted.matrices) == (56, 52)
    assert ModelSize.of({"n_embd": 768}) is None


def test_the_learner_holds_16_bytes_a_parameter_and_2_more_in_bfloat16() -> None:
    n = size().parameters
    held = parts(learner())
    assert held["float32 weights"] == held["gradients"] == 4 * n
    assert held["float32 moments"] == 8 * n
    assert held["reference's file"] == 2 * n
    assert "bfloat16 copies" not in held
    assert parts(learner(dtype="bfloat16"))["bfloat16 copies"] == 2 * size().matrices
    assert "reference's file" not in parts(learner(dpo=False))


def test_moments_in_8_bits_are_a_quarter() -> None:
    n = size().parameters
    for kind in (OMO, {"kind": "adamw"}):
        held = parts(learner(optimizer={**kind, "moments": "int8"}))
        assert held["int8 moments"] == 2 * n + n // 32
        assert "float32 moments" not in held


def test_tau_is_held_on_a_gpu_alone() -> None:
    n = size().parameters
    assert "tau" not in parts(learner(optimizer={**OMO, "kind": "onties"}))
    assert parts(learner(num_gpus=1, optimizer=OMO))["tau"] == 4 * n
    assert parts(learner(num_gpus=1, optimizer={**OMO, "tau_dtype": "bfloat16"}))["tau"] == 2 * n
    assert "tau" not in parts(learner(num_gpus=1, optimizer={**OMO, "alpha": 0.0}))
    assert parts(learner(optimizer={**OMO, "merge_every": 4}))["weights at the last merge"] == 4 * n


def test_activations_grow_with_the_pass_and_end_with_the_batch() -> None:
    def activations(**train: Any) -> int:
        return next(p.bytes for p in learner(**train).parts if p.name.startswith("activations"))

    assert activations(micro_batch_tokens=1000) == 2 * activations(micro_batch_tokens=500)
    assert activations(micro_batch_tokens=500, dtype="bfloat16") < activations(
        micro_batch_tokens=500
    )
    # No more than eight examples of 256 tokens.
    assert activations(micro_batch_tokens=10**6) == activations(micro_batch_tokens=2048)
    assert activations(micro_batch_tokens=10**6, workers=2) == activations(micro_batch_tokens=1024)
    # Rows that are all longer than a pass go through alone.
    few = TrainSettings(micro_batch_tokens=64)
    short, long = (
        learner_memory(size(), few, Training(256, always=each)) for each in (False, True)
    )
    assert [p.name for p in short.parts][-3:-2] == ["activations of 64 tokens"]
    assert [p.name for p in long.parts][-3:-2] == ["activations of 256 tokens"]


def test_on_a_gpu_weights_lie_there_and_the_process_here() -> None:
    process = learner(num_gpus=1, dtype="bfloat16", workers=2)
    host = {part.name for part in process.parts if not part.on_gpu}
    assert host == {"process"}
    assert process.on_gpu > 18 * size().parameters
    assert (process.count, process.gpus) == (2, 1.0)
    engine = engine_memory(size(), EngineSettings(num_gpus=2, tensor_parallel_size=2))
    on_gpu = {part.name: part.bytes for part in engine.parts if part.on_gpu}
    assert on_gpu["weights"] == 4 * size().parameters // 2


def test_a_cpu_engine_packs_a_copy_of_the_head() -> None:
    settings = EngineSettings(dtype="bfloat16", kv_cache_gib=0.5)
    tied, own = (
        parts(engine_memory(of, settings)) for of in (size(), size(tie_word_embeddings=False))
    )
    assert tied["packed head"] == 2 * 151_936 * 896
    assert own["packed head"] == tied["packed head"]
    assert own["weights"] - tied["weights"] == 2 * 151_936 * 896
    assert tied["KV cache"] == GIB // 2
    wide = parts(engine_memory(size(), EngineSettings()))
    assert wide["weights"] == 2 * tied["weights"]


def test_a_reward_of_rules_needs_no_torch() -> None:
    model = ModelReward(path="reward", dtype="bfloat16")
    rules = RewardSettings.model_validate({"parts": [{"kind": "length"}]})
    both = RewardSettings.model_validate({"parts": [{"kind": "length"}, model], "replicas": 2})
    assert set(parts(reward_memory(rules, []))) == {"process"}
    process = reward_memory(both, [(model, size())])
    assert parts(process)["reward model"] == 2 * size().parameters
    assert process.count == 2


def recipe(tmp_path: Path, **engine: Any) -> Job:
    """A model on disk is trained, sampled, then trained again."""
    folder = tmp_path / "policy"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    rows = {"path": str(tmp_path / "rows.jsonl")}
    reward = {"parts": [{"kind": "length"}]}
    train = {"dtype": "bfloat16", "optimizer": {"kind": "adamw"}, "batch_size": 8}
    shared = {"engine": {"dtype": "bfloat16", **engine}, "reward": reward}
    return validated(
        {
            "job": "recipe",
            "stages": {
                "sft": {
                    "job": "sft",
                    "policy": str(folder),
                    "demonstrations": rows,
                    "train": train,
                },
                "preferences": {"job": "preferences", "policy": "@sft", "prompts": rows, **shared},
                "offline_dpo": {
                    "job": "offline_dpo",
                    "policy": "@sft",
                    "pairs": rows,
                    "train": train,
                },
                "online_dpo": {
                    "job": "online_dpo",
                    "policy": "@offline_dpo",
                    "prompts": rows,
                    "train": train,
                    **shared,
                },
            },
        }
    )


def processes(plan: StageMemory) -> list[str]:
    return [process.name for process in plan.processes]


def test_engines_stay_from_one_stage_to_the_next(tmp_path: Path) -> None:
    plans = plan_memory(recipe(tmp_path).expand())
    assert [processes(plan) for plan in plans] == [
        ["learner", "the rest"],
        ["engine", "reward", "the rest"],
        ["learner", "engine", "the rest"],
        ["learner", "engine", "snapshot", "reward", "the rest"],
    ]
    assert max(plans, key=lambda plan: plan.host).key == "online_dpo"
    # What is reused starts no engine.
    rest = plan_memory(recipe(tmp_path).expand(), done=["sft", "preferences"])
    assert processes(rest[0]) == ["learner", "the rest"]


def test_pretraining_is_planned_for_its_longest_rows(tmp_path: Path) -> None:
    def activations(**more: Any) -> int:
        job = validated(
            {
                "job": "pretrain",
                "texts": {"path": str(tmp_path / "texts.jsonl")},
                "model": {"hidden_size": 64, "heads": 2, "kv_heads": 1, "layers": 2},
                "sequence_length": 32,
                "train": {"batch_size": 2},
                **more,
            }
        )
        (plan,) = plan_memory(job.expand())
        return next(p.bytes for p in plan.processes[0].parts if p.name.startswith("activations"))

    longer = activations(context_extension={"sequence_length": 128, "rope_theta": 1e6})
    assert longer == 4 * activations()


def test_a_learner_on_a_gpu_ends_the_engines_first(tmp_path: Path) -> None:
    stages = dict(recipe(tmp_path).expand())
    on_gpu = stages["offline_dpo"].train.model_copy(  # type: ignore[attr-defined]
        update={"num_gpus": 1.0}
    )
    stages["offline_dpo"] = stages["offline_dpo"].model_copy(update={"train": on_gpu})
    plans = {plan.key: plan for plan in plan_memory(stages)}
    assert processes(plans["offline_dpo"]) == ["learner", "the rest"]


def test_the_object_store_has_room_for_one_snapshot(tmp_path: Path) -> None:
    n = size().parameters
    assert object_store_bytes(recipe(tmp_path).expand()) == 3 * n
    wide = recipe(tmp_path, dtype="float32")
    assert object_store_bytes(wide.expand()) == 6 * n
    assert object_store_bytes({"sft": recipe(tmp_path).expand()["sft"]}) == 0


def test_the_stores_room_is_a_power_of_two_unless_it_is_set() -> None:
    assert store_room(RaySettings(), 0) == GIB // 2
    assert store_room(RaySettings(), GIB // 3) == GIB // 2
    assert store_room(RaySettings(), 1_200 * 2**20) == 2 * GIB
    assert store_room(RaySettings(object_store_gib=0.75), GIB) == 3 * GIB // 4


def test_what_does_not_fit_is_refused_with_what_to_lower(tmp_path: Path) -> None:
    job = recipe(tmp_path)
    plans = plan_memory(job.expand())
    fullest = max(plan.needed for plan in plans)
    with pytest.raises(ResourceError) as caught:
        check_memory(plans[3:], Room(8 * GIB, None), job.place)
    said = str(caught.value)
    assert said.startswith("online_dpo would take ")
    assert "GiB of memory, this machine has 8.0: learner " in said
    assert "stages.online_dpo.train.micro_batch_tokens" in said
    assert len(said) < 300
    # Exactly what is needed is enough, with a warning; a tenth more, without.
    assert len(check_memory(plans, Room(fullest, None), job.place)) >= 1
    assert check_memory(plans, Room(round(fullest * 1.12), None), job.place) == []
    assert check_memory(plans, Room(None, None), job.place) == []


def test_what_is_held_in_turn_counts_once() -> None:
    first = ProcessMemory("learner", (Part("weights", 4), Part("reference", 3, passing=True)))
    second = ProcessMemory("engine", (Part("weights", 2), Part("load", 2, passing=True)), count=2)
    plan = StageMemory("online_dpo", (first, second))
    # Two engines load at once: 4, and the learner's 3 are not there then.
    assert plan.host == plan.needed == 4 + 2 * 2 + 2 * 2
    # A file's pages may go: what passes beside them counts all the same.
    file = replace(first, parts=(Part("weights", 4), Part("file", 9, mapped=True, passing=True)))
    plan = StageMemory("online_dpo", (file, second))
    assert (plan.host, plan.needed) == (4 + 2 * 2 + 9, 4 + 2 * 2 + 2 * 2)


def test_a_files_pages_are_no_reason_to_refuse() -> None:
    held = ProcessMemory("learner", (Part("weights", 4), Part("file", 100, mapped=True)))
    plan = StageMemory("sft", (held,))
    assert (plan.host, plan.needed) == (104, 4)
    assert check_memory([plan], Room(5, None), lambda _, key: key) == []


def test_a_gpu_that_is_too_small_is_refused() -> None:
    process = replace(learner(num_gpus=1, dtype="bfloat16"), count=4)
    plan = StageMemory("sft", (process,))
    with pytest.raises(ResourceError, match=r"sft: the learner would take \d+\.\d GiB of each GPU"):
        check_memory([plan], Room(None, 8 * GIB), lambda _, key: key)
    assert check_memory([plan], Room(None, 80 * GIB), lambda _, key: key) == []


def test_a_hub_model_that_is_not_here_has_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    rows = {"path": str(tmp_path / "rows.jsonl")}
    job = validated({"job": "sft", "policy": "Qwen/Qwen2-0.5B", "demonstrations": rows})
    plans = plan_memory(job.expand())
    assert check_memory(plans, Room(GIB, None), job.place) == []
    table = memory_table(plans, Room(GIB, None), [1])
    assert table[-1] == " 1 sft  not known before Qwen/Qwen2-0.5B is fetched"
    cached = tmp_path / "models--Qwen--Qwen2-0.5B" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert plan_memory(job.expand())[0].host > 16 * size().parameters


def test_the_table_names_the_fullest_stage_part_by_part(tmp_path: Path) -> None:
    plans = plan_memory(recipe(tmp_path).expand())
    lines = memory_table(plans, Room(24 * GIB, None), [1, 2, 3, 4])
    assert lines[0] == "Memory of each stage at its fullest, GiB (this machine has 24.0):"
    assert lines[1].split() == [
        "stage", "all", "learner", "engine", "snapshot", "reward", "the", "rest",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines[2:6]] == [plan.key for plan in plans]
    assert lines[3].split()[3] == "-"  # nothing trains while preferences are made
    assert lines[6] == "online_dpo, part by part:"
    assert lines[7].startswith("   learner ")
    assert "float32 moments 3.7" in lines[7]


def test_redis_is_bounded_by_what_may_be_in_flight() -> None:
    def held(prompts: int, *, credits: int = 512, staleness: int = 0, **queues: Any) -> int:
        """Payloads at most, by what a byte more of each makes."""
        episodes = EpisodeSettings(
            count=100, prompts=prompts, max_staleness=staleness, in_flight=64, max_failed=0.25
        )
        sizes = [
            redis_bytes(QueueSettings(credits=credits, inline_bytes=n, **queues), episodes, n)
            for n in (0, 4000)
        ]
        return (sizes[1] - sizes[0]) // 5000

    # One episode that is not archived yet, one that is sampled, and 4 calls of 64 at a time.
    assert held(128) == 2 * 128 + 4 * 64
    assert held(128, staleness=1, payloads="redis") == 3 * 128 + 4 * 64
    # Credits bound it, but for dead letters, which have given theirs back.
    assert held(512) == 512 + 2 * (128 + 64) + 4 * 64
    assert held(8) == 2 * 8 + 4 * 2 * 8


def test_what_redis_holds_is_said_and_counts_where_it_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    stages = recipe(tmp_path).expand()
    own = plan_memory(stages)
    assert [plan.redis for plan in own] == ["", "", "", "at most 49 MiB"]
    lines = memory_table(own, Room(None, None), [1, 2, 3, 4])
    assert lines[-1] == "Redis holds at most 49 MiB of online_dpo"
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    elsewhere = plan_memory(stages)
    assert elsewhere[3].redis == own[3].redis
    assert own[3].host - elsewhere[3].host == parts(own[3].processes[-1])["Redis"] > 48 * 2**20
