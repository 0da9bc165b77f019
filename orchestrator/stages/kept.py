"""A local Ray that stays when its run ends (`ray.keep`), and is found again by the next one.

    python -m orchestrator.stages.kept [OUTPUT]     ends the one of an output folder (make stop-ray)

There is one an output folder; its files lie in <output>/.ray: `lock`, held by the run that uses
it, `cluster.json`, which tells where it is, and `keeper.log`. It is used by one run at a time, and
by a run alone that would have started the same: same code, interpreter, folder, settings and
environment. Else it is ended and another one started. The process that owns it is
orchestrator/stages/keeper.py.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from services.errors import UnreachableError

ROOT = Path(__file__).resolve().parent.parent.parent
_START_S = 120.0
_STOP_S = 20.0
_OF_THE_TERMINAL = ("_", "PWD", "OLDPWD", "SHLVL", "TERM", "COLUMNS", "LINES", "PS1", "LS_COLORS")
"""Differ from shell to shell and mean nothing to a worker."""


class Kept(NamedTuple):
    """What cluster.json tells."""

    address: str
    pid: int
    """Of the keeper."""
    created: float
    """When that process was: ids are used again."""
    mark: str
    """Of what it was started with."""


@contextlib.contextmanager
def kept_ray(output: Path, options: Mapping[str, Any]) -> Iterator[str | None]:
    """Its address, started with these options of `ray.init` where there is none to be found.

    None while another run uses it. Raises UnreachableError when it does not start.
    """
    place = output / ".ray"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (place / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield _found_or_started(place, options)


def stop(output: Path) -> bool:
    """End it, whoever uses it; whether there was one."""
    found = _read(output / ".ray")
    if found is None:
        return False
    _end(found)
    return True


def mark_of(options: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> str:
    """A digest of all that processes of a local Ray take over from whoever starts it."""
    kept = {name: value for name, value in environment.items() if name not in _OF_THE_TERMINAL}
    versions = [sys.executable, sys.version, importlib.metadata.version("ray"), str(ROOT)]
    text = json.dumps([dict(options), kept, folder, versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _found_or_started(place: Path, options: Mapping[str, Any]) -> str:
    mark = mark_of(options, os.environ, str(Path.cwd()))
    found = _read(place)
    if found is not None and found.mark == mark:
        return found.address
    if found is not None:
        _end(found)
    return _start(place, options, mark).address


def _start(place: Path, options: Mapping[str, Any], mark: str) -> Kept:
    log = place / "keeper.log"
    with log.open("w") as written:
        # A session of its own: Ctrl-C is for the run.
        keeper = subprocess.Popen(  # noqa: S603  our own interpreter and arguments
            [sys.executable, "-m", "orchestrator.stages.keeper", str(place.resolve()), mark],
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
            start_new_session=True,
            text=True,
        )
        assert keeper.stdin is not None  # noqa: S101  it was started with a pipe
        with keeper.stdin as told:
            told.write(json.dumps(dict(options)))
    deadline = time.monotonic() + _START_S
    while keeper.poll() is None and time.monotonic() < deadline:
        found = _read(place)
        if found is not None and found.pid == keeper.pid:
            return found
        time.sleep(0.02)
    keeper.kill()
    raise UnreachableError(f"the local Ray that ray.keep asks for did not start; its log is {log}")


def _read(place: Path) -> Kept | None:
    """None when there is none, or its keeper has ended."""
    try:
        found = Kept(**json.loads((place / "cluster.json").read_text(encoding="utf-8")))
        if abs(psutil.Process(found.pid).create_time() - found.created) < 0.1:
            return found
    except (OSError, ValueError, TypeError, psutil.Error):
        pass  # no file, or of another version of this code; or the process is gone
    return None


def _end(found: Kept) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(found.pid)
        below = keeper.children(recursive=True)
        keeper.terminate()
        _, left = psutil.wait_procs([keeper, *below], timeout=_STOP_S)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


if __name__ == "__main__":
    asked = Path(sys.argv[1] if len(sys.argv) > 1 else "runs")
    ended = stop(asked)
    sys.stdout.write(f"{'ended the Ray kept' if ended else 'no Ray is kept'} under {asked}\n")
