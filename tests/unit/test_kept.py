"""Which kept Ray a run takes: none of another's, none that has ended, none started otherwise."""

import fcntl
import json
import os
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError

from orchestrator.config.ray import RaySettings
from orchestrator.stages.kept import kept_ray, mark_of, stop

OPTIONS = {"num_cpus": 16, "include_dashboard": False}


def write(output: Path, *, pid: int, created: float, mark: str) -> None:
    place = output / ".ray"
    place.mkdir(parents=True)
    told = {"address": "127.0.0.1:1234", "pid": pid, "created": created, "mark": mark}
    (place / "cluster.json").write_text(json.dumps(told))


def test_one_that_lives_and_was_started_the_same_is_found(tmp_path: Path) -> None:
    mark = mark_of(OPTIONS, os.environ, str(Path.cwd()))
    here = psutil.Process()
    write(tmp_path, pid=here.pid, created=here.create_time(), mark=mark)
    with kept_ray(tmp_path, OPTIONS) as address:
        assert address == "127.0.0.1:1234"


def test_a_second_run_at_once_gets_none(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    with (tmp_path / ".ray" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with kept_ray(tmp_path, OPTIONS) as address:
            assert address is None


def test_a_process_of_the_same_id_is_not_the_keeper(tmp_path: Path) -> None:
    write(tmp_path, pid=os.getpid(), created=1.0, mark="")
    assert not stop(tmp_path)
    assert not stop(tmp_path / "elsewhere")


def test_the_mark_is_of_all_that_workers_take_over_and_of_nothing_else() -> None:
    environment = {"REDIS_URL": "redis://a", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    mark = mark_of(OPTIONS, environment, "/work")
    assert mark == mark_of(OPTIONS, environment | {"COLUMNS": "120", "PWD": "/"}, "/work")
    others = [
        mark_of(OPTIONS | {"num_cpus": 8}, environment, "/work"),
        mark_of(OPTIONS, environment | {"OMP_NUM_THREADS": "2"}, "/work"),
        mark_of(OPTIONS, environment, "/elsewhere"),
    ]
    assert len({mark, *others}) == 4


def test_a_cluster_of_somebody_else_is_not_kept() -> None:
    with pytest.raises(ValidationError, match=r"ray\.keep keeps a local Ray"):
        RaySettings(address="10.0.0.1:6379", keep=True)
