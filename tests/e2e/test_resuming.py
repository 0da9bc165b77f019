"""A training job killed by SIGKILL in the middle of its steps, then held, then stopped: the same
command ends as if not.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
import torch

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.learner.jobs.lm import train_sft
from services.learner.jobs.settings import Place, SFTSettings
from tests.unit import learner_parts as parts

ROOT = Path(__file__).resolve().parents[2]
STEPS = 400

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def kill(run: subprocess.Popen[str]) -> None:
    """It and all that it has started, as a machine that goes down does."""
    everything = [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]
    for process in everything:
        process.send_signal(signal.SIGKILL)
    run.communicate()
    psutil.wait_procs(everything, timeout=30)


def held_and_stopped(command: list[str]) -> None:
    """Between two steps, by its admin API; no checkpoint is due by the clock."""
    options = ["admin.port=0", "admin.console_port=0", "train.checkpoint_minutes=60"]
    run = subprocess.Popen(
        [*command, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    line = next(line for line in run.stdout if line.startswith("admin API at "))
    change = {"reason": "a look", "request_id": "1"}
    with grpc.insecure_channel(line.split()[3].rstrip(";")) as channel:
        admin = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        admin.PauseRun(messages.PauseRunRequest(**change), timeout=20)
        held = next(line for line in run.stdout if "is held after step" in line)
        assert admin.GetRun(messages.GetRunRequest()).run.state == messages.RUN_STATE_PAUSED
        change["request_id"] = "2"
        admin.ResumeRun(messages.ResumeRunRequest(**change), timeout=20)
        assert any("sft: goes on" in line for line in run.stdout)
        change["request_id"] = "3"
        admin.StopRun(messages.StopRunRequest(**change), timeout=20)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert ", which is in a checkpoint" in held


def steps_kept(folder: Path) -> set[int]:
    found = folder.glob(".work/sft-*/learner/checkpoints/step-*")
    return {int(path.name.removeprefix("step-")) for path in found}


def test_sft_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    rows = [{"prompt": word, "completion": word} for word in parts.WORDS * 8]
    data = tmp_path / "sft.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {
        "optimizer": {"kind": "adamw", "lr": 1e-3},
        "batch_size": 8,
        "max_steps": STEPS,
        "checkpoint_minutes": 0,
        "threads": 1,
    }
    given = {
        "policy": parts.policy(tmp_path / "policy"),
        "demonstrations": {"path": str(data)},
        "train": train,
    }
    config = tmp_path / "sft.yaml"
    config.write_text(json.dumps({"job": "sft", "output": str(tmp_path / "runs"), **given}))
    command = [sys.executable, "orchestrator/run.py", str(config)]
    folder = tmp_path / "runs" / "sft"
    run = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not list(folder.glob(".work/sft-*/learner/checkpoints/step-*[1-9]?")):
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.005)
    kill(run)
    assert not (folder / "sft").exists()
    before = max(steps_kept(folder))
    held_and_stopped(command)
    assert before < max(steps_kept(folder)) < STEPS

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert again.returncode == 0, again.stderr
    printed = again.stdout.replace("\n", " ")
    assert f"of {STEPS}" in printed, printed
    assert "goes on from step" in printed

    torch.set_num_threads(1)
    whole = Place(stage="sft", seed=0, out=str(tmp_path / "whole"))
    metrics = train_sft(SFTSettings.model_validate(given), whole, lambda _: None)
    weights = [path / "model.safetensors" for path in (folder / "sft", tmp_path / "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    made = json.loads((folder / "sft" / "artifact.json").read_text())["metrics"]
    metrics.pop("seconds"), made.pop("seconds")
    assert made == metrics
    assert not list(folder.glob(".work/sft-*")), os.listdir(folder)
