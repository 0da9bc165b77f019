"""The whole recipe by its command, on real vLLM, Ray Train, Ray Serve, Redis and gRPC."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2 import Episode
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.learner.online.rollouts import read_rollouts
from services.queues.ledger import LedgerEvent, ledger_audit
from services.queues.ledger_file import LEDGER, read_ledger_file

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "model.safetensors"
PAUSED = messages.EPISODE_STATE_PAUSED
COMPLETED = messages.EPISODE_STATE_COMPLETED
# gRPC waits up to two minutes between attempts to connect: longer than the loop of this test runs.
IMPATIENT = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def start(output: Path, port: int, *overrides: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml", *overrides]
    command += [f"output={output}", f"admin.port={port}"]
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


def first_answer(run: "subprocess.Popen[str]", call: Callable[[], Episode]) -> Episode:
    """What `call` gives once the admin API is up, and the online stage has begun."""
    deadline = time.monotonic() + 500
    while True:
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()[0]
        try:
            return call()
        except grpc.RpcError as error:
            begun = "has not begun" not in (error.details() or "")  # type: ignore[attr-defined]
            if error.code() != grpc.StatusCode.UNAVAILABLE and begun:
                raise
            time.sleep(0.1)


def pause_and_resume(run: "subprocess.Popen[str]", port: int, events: Path) -> Episode:
    """Pause the first episode there is until its weights are on the engines, then resume it."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", IMPATIENT) as channel:
        admin = AdminServiceStub(channel)
        deadline = time.monotonic() + 500
        request = messages.PauseEpisodeRequest(reason="a test", request_id="p", actor="t")
        number = first_answer(run, lambda: admin.PauseEpisode(request, timeout=5).episode).number
        asked = messages.GetEpisodeRequest(number=number)
        while (episode := admin.GetEpisode(asked, timeout=5).episode).state != PAUSED:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        held = episode
        # The services come up meanwhile, and the loop with them: it would sample now.
        while "weights_published" not in events.read_text():
            assert time.monotonic() < deadline
            assert run.poll() is None, run.communicate()[0]
            time.sleep(0.05)
        assert admin.GetEpisode(asked, timeout=5).episode == held
        assert held.in_flight == 0
        assert held.last_change.reason == "a test"
        resume = messages.ResumeEpisodeRequest(reason="seen", request_id="r", actor="t")
        resumed = admin.ResumeEpisode(resume, timeout=5).episode
        assert resumed.number == number
        return resumed


def ledger_of(artifact: Path) -> list[LedgerEvent]:
    return list(read_ledger_file(artifact / LEDGER))


def planned(episodes: int, prompts: int, ledger: list[LedgerEvent]) -> dict[int, list[str]]:
    """As the loop names its prompts; run and trunk are those that the ledger shows."""
    (run,) = {event.id.split("/")[0] for event in ledger if event.id}
    return {
        episode: [f"{run}/e{episode:05d}/p{index:05d}" for index in range(prompts)]
        for episode in range(1, episodes + 1)
    }


def held_until(resumed: Episode, ledger: list[LedgerEvent]) -> bool:
    """Whether nothing of the episode was dispatched before its resume."""
    began = [
        int(event.entry_id.split("-")[0])
        for event in ledger
        if (event.kind, event.episode) == ("dispatched", resumed.number)
    ]
    return min(began) >= resumed.last_change.time.ToMilliseconds()


def trained(artifact: Path) -> list[str]:
    return [event.id for event in ledger_of(artifact) if event.kind == "trained"]


def test_the_recipe_runs_whole_holds_when_paused_and_repeats(output: Path) -> None:
    run = start(output, port := free_port())
    folder = output / "tiny"
    resumed = pause_and_resume(run, port, folder / "metrics.jsonl")
    finish(run)

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
    ledger = ledger_of(artifact)
    assert ledger_audit(ledger, planned(2, 12, ledger)) == []
    assert held_until(resumed, ledger_of(artifact))
    model = AutoModelForCausalLM.from_pretrained(artifact)
    assert len(AutoTokenizer.from_pretrained(artifact)) <= model.config.vocab_size
    report = (folder / "report.html").read_text()
    # Nothing is fetched: what stands there is text, such as the console's address.
    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?\s*https?:""", report)
    assert "<svg" in report

    # Every version was kept as a model of its own; the last one is the artifact's.
    kept = artifact / "checkpoints"
    assert sorted(path.name for path in kept.iterdir()) == ["episode-0001", "episode-0002"]
    assert (kept / "episode-0002" / WEIGHTS).read_bytes() == (artifact / WEIGHTS).read_bytes()
    AutoModelForCausalLM.from_pretrained(kept / "episode-0001")

    # What is finished is reused. What is to be fresh is made anew, not gone on with; and the same
    # seed gives the same weights and ids.
    again = finish(start(output, port, "--fresh", "online_dpo"))
    first = folder / ".replaced" / "online_dpo-1"
    assert again.count(": reused") == 10  # all but one, the evaluations of equal policies too
    assert f"online_dpo begins anew, as --fresh asks: {artifact} moves to .replaced/" in again
    assert "came out other than" not in again
    assert "episode 2/2: done" in again
    assert (artifact / WEIGHTS).read_bytes() == (first / WEIGHTS).read_bytes()
    assert sorted(trained(artifact)) == sorted(trained(first))

    # A finished recipe computes nothing, and starts no cluster for it.
    nothing = finish(start(output, port))
    assert nothing.count(": reused") == 11
    assert "online_dpo-evaluation: reused, sampled" in nothing


OPERATION = (
    "episodes.timeout_s=90",
    "episodes.in_flight=3",
    "engine.kv_cache_gib=0.2",
    "engine.max_num_seqs=32",
    "engine.workers=2",
    "pairs.workers=2",
    "pairs.concurrency=3",
    "reward.timeout_s=50",
    "sync.timeout_s=200",
    "train.micro_batch_tokens=256",
    "train.threads=1",
    "queues.reclaim_idle_s=200",
)


def test_a_run_goes_on_in_its_episode_with_other_operation_and_then_with_more_episodes(
    output: Path,
) -> None:
    port = free_port()
    longer = ("name=longer", "stages.online_dpo.episodes.count=4")
    run = start(output, port, *longer)
    with grpc.insecure_channel(f"127.0.0.1:{port}", IMPATIENT) as channel:
        admin = AdminServiceStub(channel)
        request = messages.PauseEpisodeRequest(number=3, reason="hold", request_id="h", actor="t")
        held = first_answer(run, lambda: admin.PauseEpisode(request, timeout=5).episode)
        assert (held.number, held.state) == (3, PAUSED)
        deadline = time.monotonic() + 300
        done = messages.GetEpisodeRequest(number=2)
        while admin.GetEpisode(done, timeout=5).episode.state != COMPLETED:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    run.send_signal(signal.SIGTERM)
    printed, _ = run.communicate(timeout=120)
    assert run.returncode == 130, printed
    assert "episode 2/4: done" in printed

    changed = [f"stages.online_dpo.{each}" for each in OPERATION]
    run = start(output, port, *longer, *changed)
    with grpc.insecure_channel(f"127.0.0.1:{port}", IMPATIENT) as channel:
        admin = AdminServiceStub(channel)
        resume = messages.ResumeEpisodeRequest(number=3, reason="seen", request_id="r", actor="t")
        resumed = first_answer(run, lambda: admin.ResumeEpisode(resume, timeout=5).episode)
        assert resumed.number == 3
    printed = finish(run)
    assert "online_dpo goes on where it stood" in printed
    assert "anew" not in printed
    assert [f"episode {n}/4: done" in printed for n in (1, 2, 3, 4)] == [False, False, True, True]

    artifact = output / "longer" / "online_dpo"
    before = trained(artifact)
    printed = finish(start(output, port, "name=longer", "stages.online_dpo.episodes.count=5"))
    assert "goes on from" in printed
    assert "episodes.count 4 -> 5" in printed
    assert ["episode 4/5: done" in printed, "episode 5/5: done" in printed] == [False, True]
    assert trained(artifact)[: len(before)] == before
    ledger = ledger_of(artifact)
    assert ledger_audit(ledger, planned(5, 12, ledger)) == []
    assert {event.episode for event in ledger if event.kind == "trained"} == {1, 2, 3, 4, 5}
    # What it recorded outlived the interruption and the end of the shorter run.
    of_episode = [read_rollouts(artifact / "rollouts", episode) for episode in range(1, 6)]
    assert sorted(pair.id for pairs in of_episode for pair in pairs) == sorted(trained(artifact))
    kept = json.loads(
        (output / "longer" / ".replaced" / "online_dpo-1" / "artifact.json").read_text()
    )
    assert kept["extent"] == {"episodes.count": 4}


def test_a_config_error_is_one_line_before_anything_starts(tmp_path: Path) -> None:
    command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml", "evaluate.sample=3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "pairloop: override 'evaluate.sample=3': unknown key 'evaluate.sample';"
        " did you mean 'evaluate.samples'?"
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
