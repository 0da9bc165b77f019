"""Redis and the admin API as the deployments start them, as processes on loopback."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.docker import health
from scripts.deploy import compose
from scripts.deploy.documents import KUBERAY, base, pods
from services.errors import UnreachableError
from services.queues.client import look
from services.queues.embedded import _binary
from services.queues.probe import answers
from tests.integration.redis_servers import free_port

PASSWORD = "0123456789abcdef"  # noqa: S105
TOKEN = "fedcba9876543210"  # noqa: S105


def _container(name: str) -> dict[str, Any]:
    (pod,) = [pod for pod in pods(base()) if pod.where == name]
    return pod.containers[0]


def _until(true: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    ends = time.monotonic() + 60
    while not true():
        assert process.poll() is None
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    """Of the Redis of Kubernetes and of compose, which start one alike."""
    container, port = _container("StatefulSet pairloop-redis"), free_port()
    conf = (KUBERAY / "base" / "redis.conf").read_text().replace("dir /data", f"dir {tmp_path}")
    (tmp_path / "redis.conf").write_text(conf)
    (script,) = container["args"]
    script = script.replace("/etc/pairloop", str(tmp_path))
    script = script.replace("redis-server - ", f"redis-server - --port {port} ")
    path = f"{Path(_binary()).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [*container["command"], script],
        env={"PATH": path, container["env"][0]["name"]: PASSWORD},
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    try:
        _until(lambda: answers(url, 1.0), process)
        yield url
    finally:
        process.terminate()
        assert process.wait(30) == 0  # the shell is replaced: Redis itself hears of its end


async def test_a_run_relies_on_the_deployed_redis(redis_url: str) -> None:
    assert await look(redis_url, 5.0) == []
    with pytest.raises(UnreachableError):
        await look(redis_url.replace(f":{PASSWORD}@", ""), 5.0)


def test_the_deployed_admin_api_answers_its_probe_and_asks_for_a_token(
    redis_url: str, tmp_path: Path
) -> None:
    container = _container("Deployment pairloop-admin")
    service = compose.read()["services"]["admin"]
    assert service["command"] == container["command"]
    (tokens := tmp_path / "tokens").write_text(f"me write {TOKEN}\n")
    program, *words = container["command"]
    assert shutil.which(program, path=str(Path(sys.executable).parent)), "make setup installs it"
    port = free_port()
    words[words.index("--host") + 1] = "127.0.0.1"
    words[words.index("--port") + 1] = str(port)
    console_port = free_port()
    words[words.index("--console-port") + 1] = str(console_port)
    given = {each["name"]: each.get("value", "") for each in container["env"]}
    assert given.keys() - {"REDIS_PASSWORD"} <= service["environment"].keys()
    given |= {"REDIS_URL": redis_url, "PAIRLOOP_TOKENS_FILE": str(tokens)}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / program), *words],
        env={**os.environ, **given},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert container["readinessProbe"]["grpc"]["port"] == container["ports"][0]["containerPort"]
        _until(lambda: health.main([f"grpc://127.0.0.1:{port}"]) == 0, process)
        asked = [
            str(Path(sys.executable).parent / program),
            "runs",
            "--address",
            f"127.0.0.1:{port}",
        ]
        refused, taken = (
            subprocess.run(asked, env={**os.environ, "PAIRLOOP_TOKEN": token}, capture_output=True)
            for token in ("", TOKEN)
        )
        assert refused.returncode == 1
        assert b"token" in refused.stderr
        assert (taken.returncode, taken.stderr) == (0, b"")
        assert health.main([f"http://127.0.0.1:{console_port}/"]) == 0
    finally:
        process.terminate()
        assert process.wait(30) == 0
