"""What every process of a run holds, looked at from outside while it runs.

    watched = run([sys.executable, "orchestrator/run.py", "config.yaml"], floor_gib=3)

Memory is the proportional set size (a page shared by n processes counts once in all), split into
private pages, files that are mapped, and shared memory, which is Ray's object store.
"""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GIB = 2**30
ROLES = (
    ("learner", r"RayTrainWorker"),
    ("learner's controller", r"TrainController"),
    ("engine", r"RolloutActor|VLLM"),
    ("pairing", r"PairActor"),
    ("reward", r"ServeReplica"),
    ("Serve's controller", r"ServeController"),
    ("version store", r"VersionStore"),
    ("event sink", r"EventSink"),
    ("idle workers", r"ray::IDLE|default_worker"),
    ("Ray's servers", r"raylet|gcs_server|log_monitor|runtime_env|dashboard|keeper\.py"),
    ("Redis", r"redis-server"),
    ("driver", r"orchestrator/run\.py"),
)
"""What a process is, by its command line; the first that matches."""
_LOOK_S = 0.25


@dataclass
class Held:
    """Bytes, of one process or of several."""

    private: int = 0
    files: int = 0
    shared: int = 0

    @property
    def all(self) -> int:
        """Proportional set size."""
        return self.private + self.files + self.shared


@dataclass
class WatchedRun:
    """A run that has ended."""

    status: int
    seconds: float = 0.0
    peak: int = 0
    """Bytes of all processes at one moment."""
    at_peak: dict[str, Held] = field(default_factory=dict)
    """By role, at that moment."""
    own_peak: dict[str, Held] = field(default_factory=dict)
    """By role, each at its own fullest moment (private pages)."""
    shared_peak: int = 0
    """Of the object store."""
    stopped_for_memory: bool = False


def run(command: Sequence[str], *, floor_gib: float = 3.0, limit_s: float = 900.0) -> WatchedRun:
    """Run it to its end. Interrupted once the machine has less than `floor_gib` available."""
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=Path(__file__).resolve().parent.parent)
    found = WatchedRun(0)
    while process.poll() is None:
        time.sleep(_LOOK_S)
        _take(found, _held_by_role(process.pid))
        if psutil.virtual_memory().available < floor_gib * GIB or (
            time.monotonic() - started > limit_s
        ):
            found.stopped_for_memory = time.monotonic() - started <= limit_s
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
    found.status, found.seconds = process.wait(), time.monotonic() - started
    return found


def table(found: WatchedRun) -> Iterable[str]:
    """Lines: GiB by role, at the peak of all and at its own."""
    yield f"{'process':<22}{'private':>9}{'files':>8}{'shared':>8}{'own peak':>10}   GiB"
    for role in sorted(found.own_peak, key=lambda role: -found.own_peak[role].private):
        at, own = found.at_peak.get(role, Held()), found.own_peak[role]
        yield (
            f"{role:<22}{at.private / GIB:>9.2f}{at.files / GIB:>8.2f}{at.shared / GIB:>8.2f}"
            f"{own.private / GIB:>10.2f}"
        )
    yield f"all at once {found.peak / GIB:.2f} GiB, object store {found.shared_peak / GIB:.2f}"


def _take(found: WatchedRun, now: dict[str, Held]) -> None:
    total = sum(held.all for held in now.values())
    if total > found.peak:
        found.peak, found.at_peak = total, now
    for role, held in now.items():
        if role not in found.own_peak or held.private > found.own_peak[role].private:
            found.own_peak[role] = held
    found.shared_peak = max(found.shared_peak, sum(held.shared for held in now.values()))


def _held_by_role(pid: int) -> dict[str, Held]:
    found: dict[str, Held] = {}
    try:
        top = psutil.Process(pid)
        processes = [top, *top.children(recursive=True)]
    except psutil.Error:
        return found
    for process in processes:
        try:
            words = " ".join(process.cmdline())
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
        except (psutil.Error, OSError):  # ended meanwhile
            continue
        kib = dict(re.findall(r"^(Pss_\w+): +(\d+) kB", lines, re.M))
        if not kib:
            continue
        role = next((name for name, sign in ROLES if re.search(sign, words)), "other")
        held = found.setdefault(role, Held())
        held.private += int(kib["Pss_Anon"]) * 1024
        held.files += int(kib["Pss_File"]) * 1024
        held.shared += int(kib["Pss_Shmem"]) * 1024
    return found


if __name__ == "__main__":
    ended = run(sys.argv[1:])
    print("\n".join(table(ended)))
    print(f"exit status {ended.status}, {ended.seconds:.0f} s")
