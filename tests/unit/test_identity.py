"""What enters a fingerprint and what does not; inputs by their content."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.artifacts.content import ContentIndex
from orchestrator.artifacts.identity import (
    differences,
    extent_of,
    fingerprint,
    identity_of,
    trunk,
)
from orchestrator.artifacts.inputs import Input, inputs_of
from orchestrator.artifacts.store import Artifact, finish
from orchestrator.jobs.job import Job
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.jobs.registry import JOBS, job_class
from orchestrator.jobs.sft import SFT
from services.inputs import Function, Model, Rows
from services.settings import Settings, is_operational, settings_in

OPERATIONAL = {
    *("name", "output", "ray", "metrics", "trackers", "log", "tracing"),
    *("micro_batch_tokens", "gradient_checkpointing", "workers", "num_cpus", "num_gpus", "threads"),
    *("max_num_seqs", "kv_cache_gib", "gpu_memory_utilization", "tensor_parallel_size"),
    *("enforce_eager", "start_timeout_s", "concurrency"),
    *(
        "replicas",
        "max_batch_groups",
        "batch_wait_s",
        "timeout_s",
        "outage_s",
        "host",
        "port",
        "max_failed",
        "keep_every",
        "checkpoint_minutes",
        "stop_s",
        "record",
        "tokens",
    ),
    *("in_flight", "queues", "sync", "admin", "restarts", "measures"),
    # Of a job that is measured before and after; an online job's engine samples, and is identity.
    *("evaluate", "engine"),
}
"""Every operational key: a new field is identity until it is marked and written here."""


def online(**changes: object) -> OnlineDPO:
    given = {
        "policy": "some/policy",
        "prompts": {"path": "prompts.jsonl"},
        "reward": {"parts": [{"kind": "checker"}]},
    }
    return OnlineDPO.model_validate(given | changes)


def by_name(each: Input) -> str:
    return each.value


def identity(job: Job) -> dict[str, Any]:
    return identity_of(job, by_name)


def operational_keys(settings: type[Settings]) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        if is_operational(field):
            yield name
        else:
            for inner in settings_in(field.annotation):
                yield from operational_keys(inner)


def test_what_is_operational_is_known_by_name() -> None:
    found = {key for name in JOBS for key in operational_keys(job_class(name))}
    assert found == OPERATIONAL


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"output": "elsewhere"},
        {"ray": {"num_cpus": 3}},
        {"episodes": {"timeout_s": 5}},
        {"episodes": {"in_flight": 3}},
        {"engine": {"kv_cache_gib": 0.5}},
        {"engine": {"workers": 3}},
        {"engine": {"max_num_seqs": 9}},
        {"engine": {"start_timeout_s": 900}},
        {"pairs": {"workers": 2}},
        {"train": {"workers": 2}},
        {"train": {"micro_batch_tokens": 64}},
        {"train": {"threads": 7}},
        {"reward": {"parts": [{"kind": "checker"}], "timeout_s": 7, "replicas": 2}},
        {"queues": {"reclaim_idle_s": 9, "fsync": "always"}},
        {"sync": {"timeout_s": 7, "canary_tolerance": 0.5}},
        {"admin": {"port": 0}},
        {"metrics": {"port": 0}},
        {"log": {"format": "json"}},
        {"tracing": {"endpoint": "file:spans.jsonl", "sample_ratio": 0.1}},
        {"trackers": {"tensorboard": False, "mlflow": {}}},
    ],
)
def test_operation_changes_no_fingerprint(change: dict[str, object]) -> None:
    assert fingerprint(identity(online(**change))) == fingerprint(identity(online()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed 0 -> 1"),
        ({"dpo": {"beta": 0.2}}, "dpo.beta 0.1 -> 0.2"),
        ({"train": {"dtype": "bfloat16"}}, "train.dtype float32 -> bfloat16"),
        ({"engine": {"dtype": "bfloat16"}}, "engine.dtype float32 -> bfloat16"),
        ({"pairs": {"min_margin": 0.5}}, "pairs.min_margin 0.0 -> 0.5"),
        ({"base": "some/base"}, "base nothing -> some/base"),
        ({"episodes": {"max_staleness": 1}}, "episodes.max_staleness 0 -> 1"),
        ({"sampling": {"temperature": 0.7}}, "sampling.temperature 1.0 -> 0.7"),
    ],
)
def test_what_changes_the_result_changes_the_fingerprint(
    change: dict[str, object], said: str
) -> None:
    before, after = identity(online()), identity(online(**change))
    assert fingerprint(before) != fingerprint(after)
    assert [str(each) for each in differences(before, after)] == [said]


def test_inputs_differ_in_words_and_not_in_checksums() -> None:
    before = {"policy": "artifact 12ab", "pairs.path": "file 3f", "base": "owner/base"}
    after = {"policy": "artifact 34cd", "pairs.path": "file 4e", "base": "artifact 56ef"}
    assert [str(each) for each in differences(before, after)] == [
        "base owner/base -> artifact 56ef",
        "pairs.path (other content)",
        "policy (another artifact)",
    ]


def test_an_added_reward_part_differs_in_its_keys_alone() -> None:
    parts = [{"kind": "checker"}, {"kind": "missing_eos", "weight": 2}]
    found = differences(identity(online()), identity(online(reward={"parts": parts})))
    assert [str(each) for each in found] == [
        "reward.parts.1.kind nothing -> missing_eos",
        "reward.parts.1.weight nothing -> 2.0",
    ]


def test_more_episodes_are_the_same_trunk_and_another_fingerprint() -> None:
    marks, stems = [], []
    for count in (8, 12):
        job = online(episodes={"count": count})
        assert extent_of(job) == {"episodes.count": count}
        marks.append(fingerprint(identity(job)))
        stems.append(trunk(identity(job), extent_of(job)))
    assert marks[0] != marks[1]
    assert stems[0] == stems[1]
    assert not extent_of(SFT(policy="a/b", demonstrations={"path": "x.jsonl"}))  # type: ignore[arg-type]


def test_every_input_is_found_with_its_key_and_role() -> None:
    parts = [{"kind": "model", "path": "a/rm"}, {"kind": "function", "path": "math:sqrt"}]
    found = list(inputs_of(online(reward={"parts": parts}, base="@base")))
    assert [(each.key, each.mark, each.value, each.role, each.linked) for each in found] == [
        ("policy", Model(), "some/policy", "policy", ""),
        ("base", Model(), "@base", "base", "base"),
        ("prompts.path", Rows("prompts"), "prompts.jsonl", "prompts", ""),
        ("reward.parts.0.path", Model("reward model"), "a/rm", "reward.parts.0", ""),
        ("reward.parts.1.path", Function(), "math:sqrt", "reward.parts.1", ""),
    ]


def rows(path: Path | str) -> Input:
    return Input("prompts.path", Rows("prompts"), str(path))


def test_a_copied_file_is_the_same_input_and_a_changed_one_is_not(tmp_path: Path) -> None:
    index = ContentIndex(tmp_path / "cache.json")
    (first := tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
    second = Path(shutil.copy(first, tmp_path / "b.jsonl"))
    before = index.token(rows(first))
    assert before.startswith("file ")
    assert index.token(rows(second)) == before
    second.write_text('{"prompt": "y"}\n')
    assert index.token(rows(second)) != before


def test_a_folder_counts_by_names_and_bytes_and_not_by_its_own_name(tmp_path: Path) -> None:
    index = ContentIndex(tmp_path / "cache.json")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.jsonl").write_text("1")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert index.token(rows(tmp_path / "one")) == index.token(rows(tmp_path / "two"))
    (tmp_path / "two" / "x.jsonl").rename(tmp_path / "two" / "y.jsonl")
    assert index.token(rows(tmp_path / "one")) != index.token(rows(tmp_path / "two"))


def test_hashes_are_kept_by_path_size_and_time(tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    (data := tmp_path / "a.jsonl").write_text("12")
    first = ContentIndex(cache)
    token = first.token(rows(data))
    first.save()
    # The cache is believed: what stands in it for this path, size and time is not read again.
    cache.write_text(cache.read_text().replace(token.removeprefix("file "), "kept"))
    assert ContentIndex(cache).token(rows(data)) == "file kept"
    data.write_text("123")
    assert ContentIndex(cache).token(rows(data)) not in ("file kept", token)
    cache.write_text("{")
    data.write_text("12")
    assert ContentIndex(cache).token(rows(data)) == token


def test_an_artifact_counts_by_its_fingerprint_wherever_it_lies(tmp_path: Path) -> None:
    index = ContentIndex(tmp_path / "cache.json")
    for place in ("here", "there"):
        (partial := tmp_path / f"{place}.partial").mkdir()
        (partial / "pairs.jsonl").write_text(place)
        finish(partial, tmp_path / place, Artifact(kind="preferences", fingerprint="m1"))
    assert index.token(rows(tmp_path / "here")) == "artifact m1"
    assert index.token(rows(tmp_path / "there" / "pairs.jsonl")) == "artifact m1/pairs.jsonl"


def test_a_functions_source_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    index = ContentIndex(tmp_path / "cache.json")
    function = Input("reward.parts.0.path", Function(), "identity_reward:score")
    source = tmp_path / "identity_reward.py"
    source.write_text("def score(p, a, m): return 1.0\n")
    before = index.token(function)
    source.write_text("def score(p, a, m): return 0.25\n")
    assert before.startswith("identity_reward:score ")
    assert index.token(function) != before


def test_a_hub_name_is_itself(tmp_path: Path) -> None:
    assert ContentIndex(tmp_path / "c.json").token(rows("owner/set")) == "owner/set"
