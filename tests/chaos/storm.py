"""`make chaos KILLS=200 SEED=0`: a run of many short episodes, whose parts are killed meanwhile.

    .venv/bin/python -m tests.chaos.storm [--kills 200] [--seed 0] [--output runs/chaos]

By the seed, one after the other: SIGKILL of an engine, a pairing worker, the learner, Redis, the
orchestrator with all it has started; SIGSTOP of an engine, and SIGCONT some seconds later; Redis
killed and its last second cut off its file; a pause and a resume by the admin API. The command is
given again when the orchestrator was killed, and counted when it ended otherwise. Then
tests/chaos/checker.py reads what is there, and the same run in a calm must give the same weights.
The last line is one JSON object; exit status 1 when a promise is broken.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import grpc
import psutil

from pairloop.admin.v1 import admin_pb2 as admin
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.shape import ModelShape
from tests.chaos.checker import check
from tests.unit import learner_parts

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = 12
SHAPE = ModelShape(
    hidden_size=64, layers=2, heads=2, kv_heads=2, intermediate_size=64, max_positions=256
)
PROCESSES = {
    "engine": "ray::RolloutActor",
    "pairing": "ray::PairActor",
    "learner": "RayTrainWorker",
    "redis": "redis-server",
}
"""By what a process calls itself."""
WEIGHTS = {
    "engine": 5, "pairing": 4, "learner": 2, "redis": 2, "redis rolled back": 2,
    "engine stopped": 2, "pause": 2, "orchestrator": 1,
}  # fmt: skip
HEAL_S = 120.0
"""Longest time until a part is there again."""


def config(folder: Path, seed: int, episodes: int, port: int) -> Path:
    """A job of a tiny policy, rewarded by rules."""
    tokenizer = learner_parts.tokenizer()
    policy, base = folder / "policy", folder / "base"
    for path, start in ((policy, 0), (base, 1)):
        export_model(new_model(SHAPE, tokenizer, start), tokenizer, path)
    draw = random.Random(seed)
    rows = []
    for _ in range(64):
        words = draw.choices(learner_parts.WORDS, k=draw.randint(2, 5))
        rows.append({"prompt": " ".join(words), "metadata": {"answer": " ".join(words)}})
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = {"workers": 2, "num_cpus": 0.1, "max_model_len": 256, "kv_cache_gib": 0.05}
    job: dict[str, Any] = {
        "job": "online_dpo",
        "seed": seed,
        "output": str(folder),
        "policy": str(policy),
        "base": str(base),
        "prompts": {"path": str(folder / "prompts.jsonl")},
        "reward": {"parts": [{"kind": "checker"}], "num_cpus": 0.1},
        "pairs": {"workers": 2},
        "sampling": {"n": 4, "max_tokens": 24},
        "episodes": {
            "count": episodes, "prompts": PROMPTS, "in_flight": 6, "timeout_s": 180,
            "max_failed": 1.0,
        },
        "engine": engine,
        "train": {
            "optimizer": {"kind": "ondare", "lr": 1e-4, "reserve": 0.5, "alpha": 1e-3},
            "batch_size": 4, "max_length": 128, "num_cpus": 0.1, "threads": 1,
        },
        "queues": {"reclaim_idle_s": 5, "lease_s": 5, "max_deaths": 10},
        "restarts": {"count": 100000, "backoff_s": 0},
        "admin": {"port": port},
    }  # fmt: skip
    path = folder / "chaos.yaml"
    path.write_text(json.dumps(job))
    return path


class Orchestrator:
    """The command, in a session of its own; its lines go to a file."""

    def __init__(self, config: Path, name: str, log: Path) -> None:
        self._file = log.open("a")
        self._log, self._begins = log, log.stat().st_size
        words = [sys.executable, "-m", "tests.chaos.driver", str(config), f"name={name}"]
        self.process = subprocess.Popen(
            words, cwd=ROOT, stdout=self._file, stderr=subprocess.STDOUT, start_new_session=True
        )

    def processes(self, part: str) -> list[psutil.Process]:
        """Those of a part that live."""
        found = []
        for each in self.everything()[1:]:
            try:
                if PROCESSES[part] in " ".join(each.cmdline()) and each.status() != "zombie":
                    found.append(each)
            except psutil.NoSuchProcess:
                continue
        return found

    def everything(self) -> list[psutil.Process]:
        """The orchestrator, then all that it has started."""
        try:
            whole = psutil.Process(self.process.pid)
            return [whole, *whole.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def up(self) -> bool:
        """Whether the loop has begun: who dies while it starts, ends the start."""
        return "services up after" in self._log.read_text()[self._begins :]

    def kill(self) -> None:
        """As the loss of the machine."""
        everything = self.everything()
        for each in everything:
            _signal(each, signal.SIGKILL)
        psutil.wait_procs(everything, timeout=30)
        self.process.wait(30)


@dataclass
class Storm:
    """What was done to a run, and what came of it."""

    config: Path
    folder: Path
    rng: random.Random
    port: int
    kills: Counter[str] = field(default_factory=Counter)
    recovery: list[float] = field(default_factory=list)
    paused: list[tuple[int, int, int]] = field(default_factory=list)
    restarts_needed: int = 0
    """The command ended by itself, in an error."""

    def blow(self, count: int) -> None:
        """Until so many parts were hit and the run has ended."""
        log = self.folder / "storm.log"
        run = Orchestrator(self.config, "storm", log)
        try:
            while True:
                ended = run.process.poll()
                if ended == 0:
                    return
                if ended is not None:
                    self.restarts_needed += 1
                    if self.restarts_needed > 5:
                        raise SystemExit(f"the run ended {self.restarts_needed} times: see {log}")
                    run = Orchestrator(self.config, "storm", log)
                elif self.kills.total() < count and run.up():
                    time.sleep(self.rng.uniform(0.2, 2.0))
                    run = self.hit(run, log)
                else:
                    time.sleep(0.1)
        finally:
            run.kill()

    def hit(self, run: Orchestrator, log: Path) -> Orchestrator:
        """One part, and wait until it is there again."""
        part = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        began = time.monotonic()
        if part == "orchestrator":
            run.kill()
            run = Orchestrator(self.config, "storm", log)
            until = time.monotonic() + HEAL_S
            while time.monotonic() < until and not run.up():
                time.sleep(0.05)
        elif part == "pause":
            if not self._pause():
                return run
        elif part == "redis rolled back":
            if not self._roll_back(run):
                return run
        elif part == "engine stopped":
            if not (found := run.processes("engine")):
                return run
            hit = self.rng.choice(found)
            _signal(hit, signal.SIGSTOP)
            time.sleep(self.rng.uniform(0.5, 4.0))
            _signal(hit, signal.SIGCONT)
        else:
            if not (found := run.processes(part)):
                return run
            hit = self.rng.choice(found)
            _signal(hit, signal.SIGKILL)
            self._until(run, part, {each.pid for each in found})
        self.kills[part] += 1
        if part not in ("pause", "engine stopped"):
            self.recovery.append(time.monotonic() - began)
        return run

    def _until(self, run: Orchestrator, part: str, before: set[int]) -> None:
        until = time.monotonic() + HEAL_S
        while time.monotonic() < until and run.process.poll() is None:
            if {each.pid for each in run.processes(part)} - before:
                return
            time.sleep(0.05)

    def _roll_back(self, run: Orchestrator) -> bool:
        """Redis dies, and what it wrote last is not in its file when it comes back."""
        file = self.folder / "storm" / "redis" / "appendonly.aof"
        found = run.processes("redis")
        if not found or not file.is_file():
            return False
        size = file.stat().st_size
        time.sleep(self.rng.uniform(0.1, 1.0))
        whole = run.everything()[0]
        _signal(whole, signal.SIGSTOP)  # lest it starts a server on a file that is being cut
        try:
            for each in found:
                _signal(each, signal.SIGKILL)
            psutil.wait_procs(found, timeout=5)
            os.truncate(file, min(size, file.stat().st_size))
        finally:
            _signal(whole, signal.SIGCONT)
        self._until(run, "redis", {each.pid for each in found})
        return True

    def _pause(self) -> bool:
        """Pause what is sampled, look for a while, resume."""
        try:
            with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
                asked = {"actor": "storm", "reason": "chaos"}
                pause = admin.PauseEpisodeRequest(request_id=str(time.time()), **asked)
                number = stub.PauseEpisode(pause, timeout=10).episode.number
                paused = time.time()
                time.sleep(self.rng.uniform(0.2, 2.0))
                resumed = time.time()
                resume = admin.ResumeEpisodeRequest(
                    number=number, request_id=str(time.time()), **asked
                )
                stub.ResumeEpisode(resume, timeout=10)
                self.paused.append((number, int(paused * 1000) + 1, int(resumed * 1000) - 1))
                return True
        except grpc.RpcError:
            return False


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def main() -> int:
    """Run it; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/chaos"))
    options = parser.parse_args()
    folder = (options.output / f"seed-{options.seed}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    episodes = 4 + 3 * options.kills // 2  # so many that the run does not end before the storm
    job = config(folder, options.seed, episodes, port)
    began = time.monotonic()
    storm = Storm(job, folder, random.Random(options.seed), port)
    storm.blow(options.kills)
    found = check(_artifact(folder / "storm"), episodes, PROMPTS, storm.paused)
    calm_weights = _calm(job, folder)
    found["weights_as_in_a_calm_run"] = found.pop("weights") == calm_weights
    times = sorted(storm.recovery) or [0.0]
    result = {
        "seed": options.seed,
        "kills": dict(sorted(storm.kills.items())),
        "episodes": episodes,
        **found,
        "pauses": len(storm.paused),
        "restarts_of_the_run_needed": storm.restarts_needed,
        "recovery_s_median": round(median(times), 2),
        "recovery_s_p95": round(quantiles(times, n=20)[-1] if len(times) > 1 else times[0], 2),
        "seconds": round(time.monotonic() - began),
    }
    broken = ("lost", "unplanned", "doubled", "stale", "trained_not_in_checkpoint",
              "dispatched_while_paused", "restarts_of_the_run_needed")  # fmt: skip
    whole = found["weights_as_in_a_calm_run"] or "DEAD_LETTER" in found["dropped"]
    sys.stdout.write(json.dumps(result) + "\n")
    return int(any(result[name] for name in broken) or not whole)


def _artifact(run: Path) -> Path:
    (artifact,) = (path.parent for path in run.glob("*/ledger.jsonl.gz"))
    return artifact


def _calm(job: Path, folder: Path) -> str:
    """The weights of the same run, with nothing done to it; its artifact must not be reused."""
    import hashlib

    shutil.move(folder / "storm", folder.parent / f"{folder.name}-storm")
    run = Orchestrator(job, "storm", folder / "calm.log")  # ids of prompts have the run's name
    try:
        if run.process.wait(1800):
            raise SystemExit(f"the calm run failed: see {folder / 'calm.log'}")
    finally:
        run.kill()
    whole = _artifact(folder / "storm") / "model.safetensors"
    return hashlib.sha256(whole.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
