"""A process of a real Ray that is killed is a death, by name, in one line."""

import os
import signal

import psutil
import pytest

from orchestrator.online.supervision import heartbeat
from services.errors import WorkerDiedError
from services.weights.version_store import start_version_store


def pid_of(title: str) -> int:
    for process in psutil.Process().children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                return process.pid
        except psutil.Error:  # ended meanwhile
            continue
    raise AssertionError(f"no process is called {title}")


async def test_a_killed_actor_is_seen_by_its_heartbeat(cluster: None) -> None:
    store = start_version_store()
    await store.ping()
    os.kill(pid_of("ray::VersionStore"), signal.SIGKILL)
    with pytest.raises(WorkerDiedError) as caught:
        await heartbeat(store.name, store.ping, silence_s=60.0, every_s=0.1)
    assert str(caught.value) == (
        "the weight version store died: its process was killed or crashed;"
        " the same command goes on where it stood"
    )
    # Whoever asks it from now on hears the same at once.
    with pytest.raises(WorkerDiedError, match="the weight version store died"):
        await store.wait(1, timeout_s=60.0)
