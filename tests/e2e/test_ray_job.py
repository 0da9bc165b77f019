"""The demo, small, as a Ray job on a cluster that was there before: stopped and submitted again,
paused from the web console and resumed by gRPC, of a server that is no part of it. Meanwhile a
machine is lost: a raylet, with all that ran on it.

Both nodes are of this machine; all else is what a user has.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ray.cluster_utils import Cluster
from ray.job_submission import JobStatus, JobSubmissionClient

from orchestrator.cli.main import main
from orchestrator.interrupts import INTERRUPTED
from services.queues.embedded import EmbeddedRedis
from tests.chaos.checker import check
from tests.chaos.command import ROOT
from tests.chaos.storm import artifact_of, weights_of
from tests.integration.redis_servers import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

EPISODES, PROMPTS = 4, 12
RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that has no room for the workers of a run, and takes jobs."""
    # The nodes' processes have it from here.
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    # As a user's: the job's code comes with it.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_port()}
    cluster = Cluster(True, head_node_args=head)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """The URL of an outside Redis."""
    redis = EmbeddedRedis.start(tmp_path / "redis", "everysec")
    yield redis.url
    redis.stop()


class Served(NamedTuple):
    """`pairloop serve`."""

    address: str
    console: str
    """URL; with a slash at its end."""


@pytest.fixture
def served(redis: str) -> Iterator[Served]:
    """On that Redis."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--port", "0"]
    command += ["--console-port", "0"]
    environment = {**os.environ, "REDIS_URL": redis}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as server:
        assert server.stdout is not None
        yield Served(*(server.stdout.readline().split(" at ")[1].split()[0] for _ in range(2)))
        server.terminate()


def machine(cluster: Cluster, name: str) -> Any:
    """A node with room; on one machine each needs its own place to unpack the job's code."""
    return cluster.add_node(num_cpus=16, runtime_env_dir_name=name)


class Jobs:
    """What a user does with `ray job`."""

    def __init__(self, cluster: Cluster, environment: dict[str, str]) -> None:
        self._address = f"http://{cluster.head_node.address_info['webui_url']}"
        self._environment = json.dumps({"env_vars": environment})
        self._client = JobSubmissionClient(self._address)

    def submit(self, name: str, *words: str) -> None:
        """A job of this name; returns once the cluster has it."""
        self._ray(
            "submit", "--no-wait", "--submission-id", name, "--working-dir", str(ROOT),
            "--runtime-env-json", self._environment, "--", *words,
        )  # fmt: skip

    def stop(self, name: str) -> None:
        """Returns once its process has ended."""
        self._ray("stop", name)
        assert self._client.get_job_status(name) == JobStatus.STOPPED

    def until(self, name: str, true: Callable[[str], bool]) -> None:
        """Wait for something in what it wrote."""
        ends = time.monotonic() + 300
        while not true(log := self.log(name)):
            state = self._client.get_job_info(name)
            assert state.status in (JobStatus.PENDING, JobStatus.RUNNING), (state.message, log)
            assert time.monotonic() < ends, log
            time.sleep(0.2)

    def succeeded(self, name: str) -> None:
        """Wait for its end."""
        ends = time.monotonic() + 300
        while not (status := self._client.get_job_status(name)).is_terminal():
            assert time.monotonic() < ends, self.log(name)
            time.sleep(0.2)
        assert status == JobStatus.SUCCEEDED, self.log(name)

    def log(self, name: str) -> str:
        """What it wrote."""
        return self._client.get_job_logs(name)

    def _ray(self, command: str, *words: str) -> None:
        line, ends = (
            [RAY, "job", command, "--address", self._address, *words],
            time.monotonic() + 90,
        )
        while True:
            done = subprocess.run(line, capture_output=True, text=True, timeout=180, check=False)
            # What Ray answers while a new cluster comes up, and may be asked again after.
            if "No available agent" not in done.stderr or time.monotonic() > ends:
                break
            time.sleep(1)
        assert done.returncode == 0, done.stdout + done.stderr


def pause(console: str, reason: str) -> None:
    """The episode that is under way, as a click in the web console does."""
    body = json.dumps({"reason": reason, "request_id": "a click"}).encode()
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{console}api/v1/PauseEpisode", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        paused = json.load(answer)["episode"]
    assert paused["last_change"]["actor"].startswith("console at ")


def test_the_demo_is_stopped_submitted_again_paused_and_loses_a_machine(
    cluster: Cluster, redis: str, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pairloop(*words: str) -> str:
        assert main(["--address", served.address, *words]) == 0
        return capsys.readouterr().out

    folder = tmp_path / "tiny"
    command = ["python", "orchestrator/run.py", "tests/e2e/tiny.yaml", f"output={tmp_path}"]
    command.append(f"stages.online_dpo.episodes.count={EPISODES}")
    lost = machine(cluster, "code-1")
    # By default Ray ends a job's process 3 s after it was told to stop.
    jobs = Jobs(cluster, {"REDIS_URL": redis, "RAY_JOB_STOP_WAIT_TIME_S": "120"})

    jobs.submit("first", *command)
    jobs.until("first", lambda log: "sft: started" in log)
    jobs.stop("first")
    assert INTERRUPTED in jobs.log("first")  # in order, within its time
    (sent,) = Path(cluster.head_node.get_runtime_env_dir_path()).glob("*/_ray_pkg_*/")
    assert (sent / "orchestrator").is_dir()
    assert not (sent / ".git").exists()
    assert not (sent / ".venv").exists()

    jobs.submit("second", *command)
    jobs.until("second", lambda log: f"episode 1/{EPISODES}: done" in log)
    assert "pretrain: reused" in jobs.log("second")
    pause(served.console, "a node is drained")
    jobs.until("second", lambda log: "(a node is drained)" in log)
    cluster.remove_node(lost, allow_graceful=False)
    jobs.until("second", lambda log: "; it is replaced" in log)
    pairloop("episodes", "resume")
    machine(cluster, "code-2")
    jobs.succeeded("second")

    found = check(artifact_of(folder), EPISODES, PROMPTS, [])
    assert (found["lost"], found["doubled"], found["stale"]) == (0, 0, 0)
    assert found["trained_not_in_checkpoint"] == 0
    assert pairloop("ledger", "verify", str(folder)).split()[-1] == "clean"
    (listed,) = json.loads(pairloop("runs", "--json"))
    assert (listed["name"], listed["state"]) == ("tiny", "RUN_STATE_COMPLETED")

    jobs.submit("calm", *command, "--fresh", "online_dpo")
    jobs.succeeded("calm")
    assert found["weights"] == weights_of(folder)
