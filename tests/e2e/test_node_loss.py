"""A machine is lost under a running loop: a raylet, with all that ran on it. Meanwhile the run is
paused and resumed by a server that is no part of it.

Both nodes are of this machine, with real Ray, Redis and learner; engines have no model.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from orchestrator.cli.main import main
from services.queues.embedded import EmbeddedRedis
from tests.chaos.checker import check
from tests.chaos.command import Command
from tests.chaos.job import PROMPTS, config
from tests.chaos.storm import artifact_of, calm, weights_of
from tests.chaos.weather import FOLDER

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EPISODES = 12


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that has no room for the workers of a run."""
    monkeypatch.setenv(FOLDER, str(tmp_path))  # the nodes' processes have it from here
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An outside Redis, which runs find by REDIS_URL, and the address of `pairloop serve` on it."""
    redis = EmbeddedRedis.start(tmp_path / "redis", "everysec")
    monkeypatch.setenv("REDIS_URL", redis.url)
    command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split(" at ")[1].split()[0]
        server.terminate()
    redis.stop()


def test_what_ran_on_a_lost_machine_is_started_on_another(
    cluster: Cluster, served: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pairloop(*words: str) -> str:
        assert main(["--address", served, *words]) == 0
        return capsys.readouterr().out

    (folder := tmp_path / "runs").mkdir()
    job = config(folder, 0, EPISODES, 0)
    log, words = tmp_path / "run.log", ["-m", "tests.chaos.driver", str(job), "name=run"]

    def until(true: Callable[[str], bool]) -> None:
        ends = time.monotonic() + 240
        while not true(log.read_text()):
            assert run.process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.1)

    lost = cluster.add_node(num_cpus=16)
    run = Command([*words, f"ray.address={cluster.address}"], log)
    try:
        until(lambda text: f"episode 3/{EPISODES}" in text)
        pairloop("episodes", "pause", "--reason", "a node is drained")
        until(lambda text: "(a node is drained)" in text)
        cluster.remove_node(lost, allow_graceful=False)
        until(lambda text: "; it is replaced" in text)
        pairloop("episodes", "resume")
        cluster.add_node(num_cpus=16)
        calm(run, 300)
    finally:
        run.kill()
    found = check(artifact_of(folder / "run"), EPISODES, PROMPTS, [])
    assert (found["lost"], found["doubled"], found["stale"]) == (0, 0, 0)
    assert found["trained_not_in_checkpoint"] == 0
    assert pairloop("ledger", "verify", str(folder / "run")).split()[-1] == "clean"
    (listed,) = json.loads(pairloop("runs", "--json"))
    assert (listed["name"], listed["state"]) == ("run", "RUN_STATE_COMPLETED")
    (folder / "run").rename(tmp_path / "aside")  # lest its artifact is taken for the next run's
    calm(Command(words, log), 300)
    assert found["weights"] == weights_of(folder / "run")
