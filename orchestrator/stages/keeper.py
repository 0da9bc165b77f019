"""The process that owns a kept Ray: starts it, says where it is, ends it when nobody came for long.

Started by orchestrator/stages/kept.py, with the options of `ray.init` on standard input. Ends on
SIGTERM, when Ray has ended, and when no run took the lock for an hour.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import IO

import psutil
import ray

IDLE_S = 3600.0
"""How long it waits for the next run."""
_LOOK_S = 2.0


def main(place: Path, mark: str) -> None:
    """Keep a Ray until told to end it."""
    signal.signal(signal.SIGTERM, _leave)
    ray.init(**json.load(sys.stdin))
    signal.signal(signal.SIGTERM, _leave)  # Ray has put its own in place
    told = place / "cluster.json"
    own = psutil.Process()
    written = {
        "address": ray.get_runtime_context().gcs_address,
        "pid": own.pid,
        "created": own.create_time(),
        "mark": mark,
    }
    (place / "cluster.json.partial").write_text(json.dumps(written), encoding="utf-8")
    (place / "cluster.json.partial").rename(told)
    servers = [each for each in own.children() if each.name() in ("gcs_server", "raylet")]
    used = time.monotonic()
    with (place / "lock").open("a") as lock:
        while all(server.is_running() for server in servers):
            time.sleep(_LOOK_S)
            if not _taken(lock):
                used = time.monotonic()
            elif time.monotonic() - used > IDLE_S:
                told.unlink(missing_ok=True)  # under the lock: no run is about to read it
                break
            else:
                fcntl.flock(lock, fcntl.LOCK_UN)
    ray.shutdown()


def _taken(lock: IO[str]) -> bool:
    """The lock, when no run has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leave(number: int, frame: FrameType | None) -> None:
    ray.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
