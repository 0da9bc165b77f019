"""MLflow and W&B for real, where their packages are installed: two attempts are one run."""

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from services.telemetry.trackers.mlflow import Mlflow
from services.telemetry.trackers.settings import MlflowSettings, WandbSettings
from services.telemetry.trackers.wandb import Wandb
from tests.unit.test_trackers import attempt, episode, started, step


def test_two_attempts_are_one_run_in_mlflow_s_local_store(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install mlflow-skinny")
    store = str(tmp_path / "mlflow")
    settings = MlflowSettings(experiment="tests")
    assert not attempt(tmp_path, [started(), step(1), step(2, 0.5)], Mlflow(settings))
    again = [started(), step(2), step(3, 0.25), episode(1, 0.75)]
    assert not attempt(tmp_path, again, Mlflow(settings))
    client = mlflow.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("tests").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.run_name, run.info.status) == ("demo", "FINISHED")
    losses = client.get_metric_history(run.info.run_id, "sft/train/loss")
    assert [(each.step, each.value) for each in losses] == [(1, 1.0), (2, 0.5), (3, 0.25)]
    rewards = client.get_metric_history(run.info.run_id, "online/episode/reward_mean")
    assert [(each.step, each.value) for each in rewards] == [(1, 0.75)]


def test_two_attempts_have_one_id_in_wandb_s_offline_files(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="pip install wandb")
    settings = WandbSettings(mode="offline")
    assert not attempt(tmp_path, [started(), step(1), step(2, 0.5)], Wandb(settings), end_s=60)
    first = time.strftime("%S")
    while time.strftime("%S") == first:  # W&B names a folder by the second it was begun in
        time.sleep(0.05)
    assert not attempt(tmp_path, [started(), step(2), step(3, 0.25)], Wandb(settings), end_s=60)
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len({file.stem for file in files}) == 1
    rows = [row for file in files for row in history(file)]
    assert [(r["sft/train/step"], r["sft/train/loss"]) for r in rows] == [
        (1, 1.0), (2, 0.5), (3, 0.25),
    ]  # fmt: skip


def history(file: Path) -> list[dict[str, Any]]:
    """Rows of an offline run: its file is LevelDB's log format behind 7 bytes of W&B's own."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, record, rows = file.read_bytes(), 7, b"", []
    while at < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768  # what is left of a block has no room for a header
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            items = Record.FromString(record).history.item
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            rows += [row] if row else []
            record = b""
    return rows
