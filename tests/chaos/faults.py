"""What a storm does to a run: one fault a function, which returns once it is over.

False: there was nothing to hit.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import psutil

from pairloop.admin.v1 import admin_pb2 as admin
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from tests.chaos.command import Command, send
from tests.chaos.network import Network
from tests.chaos.weather import weather

HEAL_S = 120.0
"""Longest time until a part is there again."""
_ROOM = 1 << 16
"""Bytes that a file of the learner may hold while its disk is full: less than its weights."""


@dataclass
class Sky:
    """What the faults of one storm share."""

    folder: Path
    """Of the run called "storm"."""
    begin: Callable[[], Command]
    """Give the command, the first time or again."""
    rng: random.Random
    admin_port: int = 0
    network: Network | None = None
    run: Command = field(init=False)
    paused: list[tuple[int, int, int]] = field(default_factory=list)
    """Episode, first and last millisecond, of each pause."""

    def __post_init__(self) -> None:
        self.run = self.begin()

    def until_back(self, part: str, before: set[int]) -> None:
        """Until there is a process of a part that was not there before."""
        until = time.monotonic() + HEAL_S
        while time.monotonic() < until and self.run.process.poll() is None:
            if {each.pid for each in self.run.processes(part)} - before:
                return
            time.sleep(0.05)


def kill(part: str, sky: Sky) -> bool:
    """SIGKILL of one process, and another is there again."""
    if not (found := sky.run.processes(part)):
        return False
    send(sky.rng.choice(found), signal.SIGKILL)
    sky.until_back(part, {each.pid for each in found})
    return True


def kill_orchestrator(sky: Sky) -> bool:
    """With all it has started; the command is given again."""
    sky.run.kill()
    sky.run = sky.begin()
    until = time.monotonic() + HEAL_S
    while time.monotonic() < until and not sky.run.up():
        time.sleep(0.05)
    return True


def stop(part: str, sky: Sky) -> bool:
    """SIGSTOP of one process, SIGCONT some seconds later."""
    if not (found := sky.run.processes(part)):
        return False
    hit = sky.rng.choice(found)
    send(hit, signal.SIGSTOP)
    time.sleep(sky.rng.uniform(0.5, 8.0))
    send(hit, signal.SIGCONT)
    return True


def roll_back(sky: Sky) -> bool:
    """Redis dies, and what it wrote last is not in its file when it comes back."""
    file = sky.folder / "storm" / "redis" / "appendonly.aof"
    found = sky.run.processes("redis")
    if not found or not file.is_file():
        return False
    size = file.stat().st_size
    time.sleep(sky.rng.uniform(0.1, 1.0))
    whole = sky.run.everything()[0]
    send(whole, signal.SIGSTOP)  # lest it starts a server on a file that is being cut
    try:
        for each in found:
            send(each, signal.SIGKILL)
        psutil.wait_procs(found, timeout=5)
        os.truncate(file, min(size, file.stat().st_size))
    finally:
        send(whole, signal.SIGCONT)
    sky.until_back("redis", {each.pid for each in found})
    return True


def cut_network(sky: Sky) -> bool:
    """Between Redis and an engine, a pairing worker, the learner or the orchestrator."""
    part = sky.rng.choice(["engine", "pairing worker", "learner", "orchestrator"])
    found = sky.run.everything()[:1] if part == "orchestrator" else sky.run.processes(part)
    if not found or sky.network is None:
        return False
    kind = sky.rng.choice(["torn", "silent"])
    sky.network.cut(sky.rng.choice(found), kind, sky.rng.uniform(0.3, 8.0))
    return True


def fill_disk(sky: Sky) -> bool:
    """No file of the learner may grow: the system refuses it as it does on a full disk."""
    if not (found := sky.run.processes("learner")):
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        hit = sky.rng.choice(found)
        before, hard = hit.rlimit(psutil.RLIMIT_FSIZE)
        hit.rlimit(psutil.RLIMIT_FSIZE, (_ROOM, hard))
        time.sleep(sky.rng.uniform(1.0, 5.0))
        hit.rlimit(psutil.RLIMIT_FSIZE, (before, hard))
    return True


def slow_reward(sky: Sky) -> bool:
    """So slow that a few groups at once pass its deadline."""
    with weather(sky.folder, "slow"):
        time.sleep(sky.rng.uniform(2.0, 8.0))
    return True


def failing_reward(sky: Sky) -> bool:
    """It raises on every answer."""
    with weather(sky.folder, "failing"):
        time.sleep(sky.rng.uniform(0.2, 2.0))
    return True


def pause(sky: Sky) -> bool:
    """Pause what is sampled, look for a while, resume."""
    try:
        with grpc.insecure_channel(f"127.0.0.1:{sky.admin_port}") as channel:
            stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
            asked = {"actor": "storm", "reason": "chaos"}
            request = admin.PauseEpisodeRequest(request_id=str(time.time()), **asked)
            number = stub.PauseEpisode(request, timeout=10).episode.number
            paused = time.time()
            time.sleep(sky.rng.uniform(0.2, 2.0))
            resumed = time.time()
            resume = admin.ResumeEpisodeRequest(number=number, request_id=str(time.time()), **asked)
            stub.ResumeEpisode(resume, timeout=10)
            sky.paused.append((number, int(paused * 1000) + 1, int(resumed * 1000) - 1))
            return True
    except grpc.RpcError:
        return False


Fault = Callable[[Sky], bool]
DEATHS: dict[str, tuple[float, Fault]] = {
    "engine": (5, partial(kill, "engine")),
    "pairing worker": (4, partial(kill, "pairing worker")),
    "learner": (2, partial(kill, "learner")),
    "redis": (2, partial(kill, "redis")),
    "redis rolled back": (2, roll_back),
    "reward gateway": (2, partial(kill, "reward gateway")),
    "reward replica": (1, partial(kill, "reward replica")),
    "version store": (2, partial(kill, "version store")),
    "event sink": (1, partial(kill, "event sink")),
    "orchestrator": (1, kill_orchestrator),
}
"""How often each, beside the others, and what it does."""
TROUBLES: dict[str, tuple[float, Fault]] = {
    "engine stopped": (2, partial(stop, "engine")),
    "pairing worker stopped": (1, partial(stop, "pairing worker")),
    "learner stopped": (1, partial(stop, "learner")),
    "version store stopped": (1, partial(stop, "version store")),
    "network cut": (3, cut_network),
    "disk full": (1, fill_disk),
    "reward slow": (1, slow_reward),
    "reward failing": (1, failing_reward),
    "pause": (2, pause),
}
"""Those after which everybody is still there."""
