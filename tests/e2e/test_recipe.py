"""The whole recipe by its command, on real vLLM, Ray Train, Ray Serve, Redis and gRPC."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.queues.ledger import LedgerEvent, ledger_audit

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "model.safetensors"
PAUSED = messages.EPISODE_STATE_PAUSED
# gRPC waits up to two minutes between attempts to connect: longer than the loop of this test runs.
IMPATIENT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def start(output: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml"]
    command += [f"output={output}", f"stages.online_dpo.admin.port={port}"]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(run: "subprocess.Popen[str]") -> str:
    printed, _ = run.communicate(timeout=600)
    assert run.returncode == 0, printed
    return printed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def pause_and_resume(run: "subprocess.Popen[str]", port: int) -> None:
    """Pause the first episode there is, see that it holds for a while, resume it."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", IMPATIENT) as channel:
        admin = AdminServiceStub(channel)
        deadline = time.monotonic() + 500
        while True:
            assert time.monotonic() < deadline
            assert run.poll() is None, run.communicate()[0]
            try:
                request = messages.PauseEpisodeRequest(reason="a test", request_id="p", actor="t")
                number = admin.PauseEpisode(request, timeout=5).episode.number
                break
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                time.sleep(0.1)
        asked = messages.GetEpisodeRequest(number=number)
        while (episode := admin.GetEpisode(asked, timeout=5).episode).state != PAUSED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        held = episode
        time.sleep(3)
        # Services still come up meanwhile; a held episode does not move.
        assert admin.GetEpisode(asked, timeout=5).episode == held
        assert held.in_flight == 0
        assert held.last_change.reason == "a test"
        resume = messages.ResumeEpisodeRequest(reason="seen", request_id="r", actor="t")
        assert admin.ResumeEpisode(resume, timeout=5).episode.number == number


def ledger_of(artifact: Path) -> list[LedgerEvent]:
    return [LedgerEvent(**json.loads(line)) for line in (artifact / "ledger.jsonl").open()]


def trained(artifact: Path) -> list[str]:
    return [event.id for event in ledger_of(artifact) if event.kind == "trained"]


def test_the_recipe_runs_whole_holds_when_paused_and_repeats(tmp_path: Path) -> None:
    run = start(tmp_path, port := free_port())
    pause_and_resume(run, port)
    finish(run)

    folder = tmp_path / "tiny"
    summary = json.loads((folder / "summary.json").read_text())
    for name in ("pretrain", "sft", "offline_dpo", "online_dpo"):
        evaluation = summary["stages"][name]["evaluation"]
        assert (evaluation["sampled_n"], evaluation["greedy_n"]) == (48, 24)
        assert evaluation["lm_tokens"] > 0
        assert 0 < evaluation["lm_loss"] < 20
    online = summary["stages"]["online_dpo"]["online"]
    assert online["prompts"] == 24
    assert online["pairs"] + sum(online["dropped"].values()) == 24
    weights = online["weights"]
    assert (weights["published"], weights["attestations"], weights["repaired"]) == (3, 3, 0)
    assert weights["max_canary_difference"] < 5e-4
    assert [episode["version"] for episode in online["episodes"]] == [1, 2]
    assert all(episode["metrics"]["sampler_gap"] < 1e-3 for episode in online["episodes"])

    artifact = folder / "online_dpo"
    assert ledger_audit(ledger_of(artifact)) == []
    model = AutoModelForCausalLM.from_pretrained(artifact)
    assert len(AutoTokenizer.from_pretrained(artifact)) <= model.config.vocab_size
    report = (folder / "report.html").read_text()
    assert "http://" not in report.replace("http://www.w3.org", "")
    assert "<svg" in report

    # What is finished is reused. What was removed is made anew, not gone on with; and the same
    # seed gives the same weights and ids.
    first = tmp_path / "first"
    artifact.rename(first)
    again = finish(start(tmp_path, port))
    assert again.count(": reused") == 6
    assert "episode 2/2: done" in again
    assert (artifact / WEIGHTS).read_bytes() == (first / WEIGHTS).read_bytes()
    assert sorted(trained(artifact)) == sorted(trained(first))


def test_a_config_error_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml", "evaluate.sample=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "pairloop: override 'evaluate.sample=3': unknown key 'evaluate.sample';"
        " did you mean 'samples'?"
    ]
    assert not (tmp_path / "tiny").exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (taken := tmp_path / "file").touch()
    command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml", f"output={taken}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"pairloop: 'output': nothing can be written to {taken}/tiny (Not a directory);"
        " take another folder"
    ]


def test_a_dry_run_prints_a_config_that_reads_back(tmp_path: Path) -> None:
    for name in ("demo", "qwen2-0.5b", "qwen2-7b"):
        command = [sys.executable, "orchestrator/run.py", f"configs/{name}.yaml", "--dry-run"]
        first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert first.returncode == 0, first.stderr
        (tmp_path / "resolved.yaml").write_text(first.stdout)
        command[2] = str(tmp_path / "resolved.yaml")
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert second.stdout == first.stdout
