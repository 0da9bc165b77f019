"""What several nodes need and one does not: addresses, and a folder, that all of them reach."""

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.checks.placement import check_placement
from orchestrator.jobs.job import Job
from services.errors import ConfigError
from services.queues.endpoint import endpoint_of

_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_ANSWER_S = 30.0
_LOOK_S = 5.0


def check_nodes(stages: Sequence[Job], folder: Path) -> list[str]:
    """Warnings about this cluster; none on a single node.

    Raises ConfigError when a service of a stage would listen where other nodes cannot reach it,
    ResourceError when the nodes have no room for its parts.
    """
    found = ray.nodes()
    nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in found if n["Alive"]}
    refuse_loopback(stages, len(set(nodes.values())))
    check_placement(stages, found)
    blind = _blind(nodes, folder) if len(nodes) > 1 else []
    if not blind:
        return []
    return [
        f"{', '.join(blind)} of {len(nodes)} nodes do not see {folder.resolve()}: workers there"
        " will find no model; set output to a folder that every node shares"
    ]


def refuse_loopback(stages: Sequence[Job], machines: int) -> None:
    """ConfigError when Redis or a gateway would answer on one machine of several."""
    if machines < 2:
        return
    for stage in stages:
        queues = stage.redis()
        url = queues.configured_url if queues else None
        hosts = [host for host, _ in endpoint_of(url).hosts] if url else ["localhost"]
        if queues is not None and any(host in _LOOPBACK for host in hosts):
            raise ConfigError(
                f"'queues.url': the cluster has {machines} machines and Redis would answer on this"
                " one alone; set REDIS_URL to one that every node reaches"
            )
        for listener in stage.listeners():
            if listener.every_node and listener.host in _LOOPBACK:
                key = listener.key.removesuffix("port") + "host"
                raise ConfigError(
                    f"'{key}': the cluster has {machines} machines and workers on the others would"
                    f" not reach {listener.host}; inside a network you trust set it to 0.0.0.0"
                )


def _blind(nodes: dict[str, str], folder: Path) -> list[str]:
    """The addresses of nodes that do not see the run's folder."""
    mark, text = folder.resolve() / ".seen", uuid.uuid4().hex
    mark.write_text(text, encoding="utf-8")
    look = ray.remote(num_cpus=0, max_retries=0)(_sees)
    seen = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(mark), text
        ): address
        for node, address in nodes.items()
    }
    done, _ = ray.wait(list(seen), num_returns=len(seen), timeout=_ANSWER_S)
    mark.unlink()
    return sorted(seen[answer] for answer in done if not ray.get(answer))


def _sees(mark: str, text: str) -> bool:
    """Whether the file is here; a network file system may take a moment."""
    until = time.monotonic() + _LOOK_S
    while time.monotonic() < until:
        try:
            return Path(mark).read_text(encoding="utf-8") == text
        except OSError:
            time.sleep(0.2)
    return False
