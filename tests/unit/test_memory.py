"""Limits and kills as the kernel writes them, and what is said of a death by them."""

import time
from pathlib import Path

import psutil
import pytest

from orchestrator.checks.memory import MemoryWatch, kernel_kills, memory_limit
from services.errors import OutOfMemoryError, WorkerDiedError
from services.out_of_memory import GIB, Usage, out_of_memory

ENGINE = Usage("ray::RolloutActor.run", 3 * GIB)
LEARNER = Usage("ray::_RayTrainWorker__execute", 5 * GIB)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_smallest_limit_above_the_process_counts(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/memory.max": "max\n",
            "sys/fs/cgroup/pod/memory.max": f"{2**20}\n",
            "sys/fs/cgroup/memory.max": f"{2**30}\n",
        },
    )
    assert memory_limit(root) == 2**20


def test_a_container_sees_its_limit_at_the_top_and_version_1_is_read(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/self/cgroup": "9:cpu:/x\n4:memory:/host/path\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**21}\n",
            "sys/fs/cgroup/memory/memory.oom_control": "under_oom 0\noom_kill 2\n",
            "proc/vmstat": "pgfault 7\noom_kill 5\n",
        },
    )
    assert memory_limit(root) == 2**21
    assert kernel_kills(root) == 7


def test_without_a_limit_the_machine_is_it(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) == psutil.virtual_memory().total
    assert kernel_kills(tmp_path) == 0


def test_the_largest_process_at_the_peak_is_remembered() -> None:
    watch = MemoryWatch()
    watch.see([ENGINE, LEARNER])
    watch.see([ENGINE, Usage("small", 7)])
    assert (watch.peak_bytes, watch.largest) == (8 * GIB, LEARNER)


def test_a_death_after_a_kernel_kill_names_the_largest_process_and_its_settings() -> None:
    watch = MemoryWatch()
    watch.see([ENGINE, LEARNER])
    died = WorkerDiedError("rollout-0 died: its process was killed or crashed; go on")
    before = kernel_kills()
    found = watch.killed(died, limit=100 * GIB, kills=before + 1)
    assert isinstance(found, OutOfMemoryError)
    assert str(found) == (
        "rollout-0 was killed for lack of memory: the learner was the largest process and held"
        " 5.0 of its machine's 100.0 GiB; lower train.micro_batch_tokens or train.max_length"
    )
    assert watch.killed(died, limit=100 * GIB, kills=before) is None
    assert watch.killed(died, limit=8 * GIB, kills=before) is not None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("ray::RolloutActor.run", "a rollout engine .* engine.kv_cache_gib"),
        ("ray::ServeReplica:reward-x:reward", "a reward replica .* reward.replicas"),
        ("/usr/bin/python3 notebook", "python3 .* end it"),
        ("", "another process .* end it"),
    ],
)
def test_each_part_has_its_settings(command: str, words: str) -> None:
    error = out_of_memory("rollout-0", Usage(command, GIB), 4 * GIB)
    with pytest.raises(OutOfMemoryError, match=words):
        raise error


def test_a_watch_sees_this_process() -> None:
    with MemoryWatch(every_s=0.01) as watch:
        while not watch.peak_bytes:
            time.sleep(0.01)
    assert watch.largest is not None
    assert watch.largest.bytes > 2**20
