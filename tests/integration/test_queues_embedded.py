"""The embedded server: it survives kill -9, ends with its owner, and is alone on its data."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1.admin_pb2 import Change, EpisodeState
from services.errors import UnreachableError
from services.queues.address import redis_of_run
from services.queues.embedded import EmbeddedRedis
from services.queues.probe import answers
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.test_queues import prompts, rollout_of

OWNER = """
import os, subprocess, sys
from services.queues.embedded import EmbeddedRedis
server = EmbeddedRedis.start(sys.argv[1], "everysec")
child = 0
if sys.argv[2] == "child-holds-the-pipe":
    pipe = os.dup(server._guard.stdin.fileno())
    os.set_inheritable(pipe, True)
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(["sleep", "60"], close_fds=False, **silent).pid
print(server.url, server.pid, child, flush=True)
os.kill(os.getpid(), 9)
"""


def killed_owner(folder: Path, how: str = "") -> tuple[str, int, int]:
    done = subprocess.run(
        [sys.executable, "-c", OWNER, str(folder), how], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    url, pid, child = done.stdout.split()
    return url, int(pid), int(child)


def eventually(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


async def test_work_survives_kill_9_of_the_server(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path, "always")
    settings = QueueSettings(reclaim_idle_s=0.001)
    store = await EpisodeStore.open(server.url, "r", 5.0)
    queues = await RunQueues.open(server.url, "r", settings)
    await store.create(1, 3)
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts("r", 3))
    done, held = await queues.take("prompts", "a", 2, 0.0)
    await queues.commit_rollout(done, rollout_of(done))
    await store.pause(1, Change(request_id="x", reason="kill it", actor="me"))
    before = await queues.ledger(1)

    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: not server.alive)
    server.stop()
    again = EmbeddedRedis.start(tmp_path, "always")
    try:
        assert again.url == server.url  # so that these clients find it
        assert await queues.ledger(1) == before
        episode = await store.get(1)
        assert episode.state == EpisodeState.EPISODE_STATE_PAUSING
        assert episode.last_change.reason == "kill it"
        assert episode.in_flight == 3
        assert not await queues.commit_rollout(done, rollout_of(done))
        items = await queues.take("prompts", "b", 5, 0.0)
        assert {i.entry_id: i.deaths for i in items}[held.entry_id] == 1
        assert len(items) == 2
    finally:
        await queues.close()
        await store.close()
        again.stop()


def test_the_server_ends_with_its_owner_and_keeps_the_data(tmp_path: Path) -> None:
    url, _, _ = killed_owner(tmp_path)
    assert eventually(lambda: not answers(url, 1.0))
    server = EmbeddedRedis.start(tmp_path, "everysec")
    assert answers(server.url, 1.0)
    server.stop()
    assert not server.alive
    server.stop()


def test_a_server_left_by_a_killed_owner_is_ended_first(tmp_path: Path) -> None:
    url, left, child = killed_owner(tmp_path, "child-holds-the-pipe")
    try:
        assert answers(url, 1.0)
        server = EmbeddedRedis.start(tmp_path, "everysec")
        assert server.pid != left
        assert not Path(f"/proc/{left}").exists()
        server.stop()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    server = EmbeddedRedis.start(tmp_path, "everysec")
    with pytest.raises(UnreachableError, match="in use by another run"):
        EmbeddedRedis.start(tmp_path, "everysec")
    assert answers(server.url, 1.0)
    server.stop()


def test_the_password_is_in_a_private_file_alone(tmp_path: Path) -> None:
    folder = tmp_path / 'a "run" of mine'
    server = EmbeddedRedis.start(folder, "everysec")
    password = server.url.split(":")[2].split("@")[0]
    assert len(password) >= 32
    assert (folder / "redis.conf").stat().st_mode & 0o777 == 0o600
    assert password in (folder / "redis.conf").read_text()
    assert password not in (folder / "redis.log").read_text()
    for pid in (server.pid, os.getppid()):
        assert password.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert not answers(f"redis://127.0.0.1:{server.url.rsplit(':', 1)[1]}", 1.0)
    assert (folder / "appendonly.aof").exists()
    server.stop()


def test_a_port_taken_meanwhile_is_replaced(tmp_path: Path) -> None:
    first = EmbeddedRedis.start(tmp_path / "a", "everysec")
    (tmp_path / "b").mkdir()
    config = (tmp_path / "a" / "redis.conf").read_text()
    (tmp_path / "b" / "redis.conf").write_text(config.replace("requirepass ", "requirepass x"))
    second = EmbeddedRedis.start(tmp_path / "b", "everysec")
    assert second.url.rsplit(":", 1) != first.url.rsplit(":", 1)
    assert answers(first.url, 1.0)
    assert answers(second.url, 1.0)
    first.stop()
    second.stop()


def test_a_given_address_comes_before_the_embedded_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://env:1")
    with redis_of_run(QueueSettings(url="redis://mine:1"), tmp_path) as redis:
        assert redis.url == "redis://mine:1"
    with redis_of_run(QueueSettings(), tmp_path) as redis:
        assert redis.url == "redis://env:1"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("REDIS_URL")
    with redis_of_run(QueueSettings(), tmp_path) as redis:
        assert answers(redis.url, 1.0)
    assert not answers(redis.url, 1.0)
