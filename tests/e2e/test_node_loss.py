"""A machine is lost under a running loop: a second raylet, with all that ran on it.

Both nodes are of this machine, with real Ray, Redis and learner; engines have no model.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.chaos.checker import check
from tests.chaos.command import Command
from tests.chaos.job import PROMPTS, config
from tests.chaos.storm import artifact_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

EPISODES = 12


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that has no room for the workers of a run."""
    head = {"num_cpus": 0.1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def until(true: Callable[[], bool], run: Command, log: Path, limit_s: float = 240) -> None:
    ends = time.monotonic() + limit_s
    while not true():
        assert run.process.poll() is None, log.read_text()
        assert time.monotonic() < ends, log.read_text()
        time.sleep(0.1)


def test_what_ran_on_a_lost_machine_is_started_on_another(cluster: Cluster, tmp_path: Path) -> None:
    job = config(tmp_path, 0, EPISODES, 0)
    log, words = tmp_path / "run.log", ["-m", "tests.chaos.driver", str(job), "name=run"]
    lost = cluster.add_node(num_cpus=16, node_ip_address="127.0.0.1")
    run = Command([*words, f"ray.address={cluster.address}"], log)
    try:
        until(lambda: "episode 3/" in log.read_text(), run, log)
        cluster.add_node(num_cpus=16, node_ip_address="127.0.0.1")
        cluster.remove_node(lost, allow_graceful=False)
        assert run.process.wait(300) == 0, log.read_text()
    finally:
        run.kill()
    print(log.read_text(), check(artifact_of(tmp_path / "run"), EPISODES, PROMPTS, []))
