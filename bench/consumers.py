"""Consumers of the data plane in several processes, and what they and their Redis cost."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import redis

from bench import measure
from services.queues.embedded import EmbeddedRedis

PROCESSES = 4
"""That the consumers are spread over at most."""
Arm = Literal["ours", "raw"]


@contextmanager
def fresh_redis() -> Iterator[str]:
    """The address of an embedded server with nothing on it."""
    with tempfile.TemporaryDirectory(prefix="pairloop-bench-") as folder:
        server = EmbeddedRedis.start(folder, "everysec")
        try:
            yield server.url
        finally:
            server.stop()


@dataclass
class Consumers:
    """So many of either stream, working."""

    children: list["subprocess.Popen[str]"] = field(default_factory=list)

    def stop(self) -> float:
        """End them; the CPU seconds that they took while they worked."""
        return sum(_ended(child) for child in self.children)


@contextmanager
def consumers(
    arm: Arm, url: str, run: str, width: int, samples: int, tokens: int
) -> Iterator[Consumers]:
    """`width` that take prompts and `width` that take rollouts, ready."""
    all_of_them = [f"{stream}:{n}" for n in range(width) for stream in ("prompts", "rollouts")]
    spread = min(PROCESSES, len(all_of_them))
    started = Consumers()
    with ExitStack() as stack:
        for place in range(spread):
            child = subprocess.Popen(
                [sys.executable, "bench/data_plane_child.py", arm, run,
                 *all_of_them[place::spread], f"--samples={samples}", f"--tokens={tokens}"],
                cwd=measure.ROOT,
                env=os.environ | {"PYTHONPATH": _path(), "BENCH_REDIS": url},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )  # fmt: skip
            stack.callback(child.kill)
            started.children.append(child)
        for child in started.children:
            if child.stdout is None or child.stdout.readline() != "ready\n":
                raise SystemExit(f"a process of the consumers ended with {child.wait()}")
        yield started


@dataclass(frozen=True)
class Counted:
    """What a server has done since it was started."""

    scripts: int
    commands: int
    received: int
    sent: int
    """Bytes."""
    cpu_seconds: float
    memory: int
    """Bytes that are in use now."""

    @classmethod
    def of(cls, url: str) -> "Counted":
        """By now."""
        with redis.Redis.from_url(url, protocol=2) as client:
            calls = {
                name.removeprefix("cmdstat_"): row["calls"]
                for name, row in client.info("commandstats").items()
            }
            stats, cpu = client.info("stats"), client.info("cpu")
            memory = client.info("memory")["used_memory"]
        return cls(
            scripts=calls.get("evalsha", 0) + calls.get("eval", 0),
            commands=stats["total_commands_processed"],
            received=stats["total_net_input_bytes"],
            sent=stats["total_net_output_bytes"],
            cpu_seconds=cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            memory=memory,
        )


def _path() -> str:
    return os.pathsep.join([str(measure.ROOT), str(Path(measure.ROOT) / "protos")])


def _ended(child: "subprocess.Popen[str]") -> float:
    printed, _ = child.communicate("stop\n", timeout=60)
    if child.returncode:
        raise SystemExit(f"a process of the consumers ended with {child.returncode}")
    return float(json.loads(printed.splitlines()[-1])["cpu_seconds"])
