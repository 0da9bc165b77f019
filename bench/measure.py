"""What the benchmarks share: arms in processes of their own, their memory, ratios with spread."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / ".venv" / "bin" / "python"
THEIRS = ROOT / ".venv-trl" / "bin" / "python"
KEEP_FREED_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""For a process's environment: what our learner sets for itself (services/allocator.py)."""
_SAMPLE_S = 0.2
_SAMPLING_SHARE = 0.05
"""Of the time that watching memory may take: a large process's pages are slow to count."""

Spread = dict[str, float]


@dataclass
class Outcome:
    """One arm, once."""

    result: dict[str, Any]
    """The last line it printed."""
    peak_pss_bytes: int
    """Proportional set size of all its processes, at its highest."""
    seconds: float
    processes: dict[str, int] = field(default_factory=dict)
    """At that moment, bytes by command."""


def run_arm(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Outcome:
    """Run a command in the repository's root, watch the memory of all its processes.

    Its last line is its result, if that is JSON. Its errors go to ours. Raises SystemExit when it
    fails.
    """
    more = {
        "PYTHONPATH": str(ROOT),
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
        **(environment or {}),
    }
    began = time.perf_counter()
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | more,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        watch = _Memory(child.pid)
        watch.start()
        printed, _ = child.communicate()
        watch.stop()
    if child.returncode:
        words = " ".join(str(word) for word in command)
        raise SystemExit(f"{words}\nended with {child.returncode}; it printed:\n{printed[-3000:]}")
    last = printed.strip().rpartition("\n")[2]
    result = json.loads(last) if last.startswith("{") else {}
    return Outcome(result, watch.peak, time.perf_counter() - began, watch.at_peak)


def alternate(
    arms: Mapping[str, Callable[[int], Outcome]], repeats: int
) -> dict[str, list[Outcome]]:
    """Every arm `repeats` times, one after the other, the order turned round each time."""
    found: dict[str, list[Outcome]] = {name: [] for name in arms}
    for repeat in range(repeats):
        for name in list(arms) if repeat % 2 == 0 else list(reversed(arms)):
            say(f"{name}, {repeat + 1} of {repeats}; load {os.getloadavg()[0]:.1f}")
            outcome = arms[name](repeat)
            say(f"{name}: {json.dumps(outcome.result)}, {gib(outcome.peak_pss_bytes):.2f} GiB")
            found[name].append(outcome)
    return found


def spread(values: Sequence[float]) -> Spread:
    """Least, median and greatest, to four digits."""
    ways: Mapping[str, Callable[[Sequence[float]], float]] = {
        "min": min,
        "median": median,
        "max": max,
    }
    return {name: float(f"{way(values):.4g}") for name, way in ways.items()}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, repeat by repeat, as spread."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def medians(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every part over steps; a step without the part counts as 0."""
    names = sorted({name for step in steps for name in step})
    return {name: median([step.get(name, 0.0) for step in steps]) for name in names}


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines of columns, the first to the left, the others to the right."""
    cells = [[_shown(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines) + "\n"


def _shown(cell: object) -> str:
    if isinstance(cell, dict):
        return f"{cell['median']:.3g} ({cell['min']:.3g} to {cell['max']:.3g})"
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def require_trl() -> None:
    """SystemExit where TRL's environment is not there."""
    if not THEIRS.is_file():
        raise SystemExit("TRL is not set up; run make bench-setup")


def gib(size: float) -> float:
    """Bytes as GiB."""
    return size / 2**30


def peak_rss() -> int:
    """The most memory this process has held, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status names no VmHWM; memory is measured on Linux")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    memory = gib(psutil.virtual_memory().total)
    return {"cpu": name, "cores": os.cpu_count(), "memory_gib": round(memory, 1)}


def say(text: str) -> None:
    """A line of progress, to stderr."""
    sys.stderr.write(f"== {text}\n")


def finish(lines: str, result: Mapping[str, Any]) -> None:
    """The readable part, and the last line."""
    whole = {"machine": machine(), **result}
    sys.stdout.write(f"{lines}{json.dumps(whole)}\n")


class _Memory(threading.Thread):
    """Watches a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self.peak = 0
        self.at_peak: dict[str, int] = {}

    def run(self) -> None:
        took = 0.0
        while not self._over.wait(max(_SAMPLE_S, took / _SAMPLING_SHARE)):
            began = time.perf_counter()
            seen: dict[str, int] = {}
            try:
                for process in [self._root, *self._root.children(recursive=True)]:
                    _add_pss(process, seen)
            except psutil.Error:
                continue
            took = time.perf_counter() - began
            if (total := sum(seen.values())) > self.peak:
                self.peak, self.at_peak = total, seen

    def stop(self) -> None:
        self._over.set()
        self.join()


def _add_pss(process: psutil.Process, seen: dict[str, int]) -> None:
    try:
        words = [word.strip().rpartition("/")[2] for word in process.cmdline()[:3]]
        name = " ".join(words)[:40].strip() or process.name()
        size = process.memory_full_info().pss
    except (psutil.Error, OSError):  # it has ended
        return
    seen[name] = seen.get(name, 0) + size
