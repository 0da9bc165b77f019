"""Start-up of an online run: seconds to its first sample, and what each process imports for it.

    .venv/bin/python bench/startup.py [--repetitions 3] [--reward rules|model] [--keep]
        [--no-imports] [key=value ...]

Makes a tiny policy once (the first stages of tests/e2e/tiny.yaml, kept under runs/startup), then
starts `orchestrator/run.py` on an online job as a user would, and ends it once the first group is
sampled, scored and paired or dropped. One more start, whose times do not count, lets Python print
every import (PYTHONPROFILEIMPORTTIME). With --keep the job has `ray.keep: true`, and all but the
first start find a local cluster that runs; it is ended at the end. Further words override keys of
the job.

The last line is one JSON object: for each moment the seconds since the command (least, median,
greatest), for each process its CPU seconds until then (the same) and the packages it imported.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import yaml

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT / "runs" / "startup"
RUN = [sys.executable, str(ROOT / "orchestrator" / "run.py")]
HEAVY = (
    "torch", "vllm", "transformers", "tokenizers", "numpy", "pandas", "pyarrow", "datasets", "ray",
    "ray.train", "ray.serve", "ray.data", "grpc", "fastapi", "aiohttp", "sympy", "torch._dynamo",
    "torch._inductor", "rich", "jinja2", "redis", "pydantic",
)  # fmt: skip
LONGEST_S = 300.0
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Start:
    """One start, seen from outside."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Since the command, by moment."""
    cpu: dict[str, float] = field(default_factory=dict)
    """CPU seconds until the first sample, by process; of one name summed."""
    names: dict[int, str] = field(default_factory=dict)
    """Of processes, by id."""


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--reward", choices=("rules", "model"), default="rules")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--no-imports", action="store_true", help="leave that start out")
    parser.add_argument("words", nargs="*", metavar="key=value")
    options = parser.parse_args()
    job = online_job(options.reward)
    words = [*options.words, *(["ray.keep=true"] if options.keep else [])]
    # Short, as Ray's sockets lie in it.
    with tempfile.TemporaryDirectory(prefix="su-", dir="/tmp") as place:
        folder = Path(place)
        config = folder / "startup.yaml"
        config.write_text(yaml.safe_dump(job), encoding="utf-8")
        environment = os.environ | {"RAY_TMPDIR": str(folder)}
        try:
            imported = {}
            if not options.no_imports:
                seen = start(config, folder, [*words, "name=imports"], environment, imports=True)
                imported = dict(imports(folder, seen))
            if options.keep:
                stop_ray(folder / "runs")
                start(config, folder, [*words, "name=first"], environment)
            starts = [
                start(config, folder, [*words, f"name=n{number}"], environment)
                for number in range(options.repetitions)
            ]
        finally:
            if options.keep:
                stop_ray(folder / "runs")
    sys.stdout.write(json.dumps(result(starts, imported)) + "\n")


def online_job(reward: str) -> dict[str, Any]:
    """The last stage of the tiny recipe as a job of its own, on what its first stages made."""
    recipe = yaml.safe_load((ROOT / "tests" / "e2e" / "tiny.yaml").read_text(encoding="utf-8"))
    stages = recipe["stages"]
    online = stages.pop("online_dpo") | {"policy": str(MADE / "sft"), "episodes": {}}
    stages.pop("offline_dpo")
    parts = [{"kind": "checker"}, {"kind": "missing_eos"}]
    wanted = ["data", "pretrain", "sft"]
    if reward == "model":
        parts.append({"kind": "model", "path": str(MADE / "reward_model")})
        wanted += ["preferences", "reward_model"]
    online["prompts"] = {"path": str(MADE / "data" / "prompts.jsonl")}
    online["reward"] = {"parts": parts}
    online["episodes"] = {"count": 100, "prompts": 12, "in_flight": 4, "timeout_s": 120}
    if not all((MADE / name).is_dir() for name in wanted):
        made = {name: stages[name] for name in wanted}
        MADE.mkdir(parents=True, exist_ok=True)
        config = MADE / "stages.yaml"
        whole = {"job": "recipe", "name": MADE.name, "output": str(MADE.parent), "stages": made}
        config.write_text(yaml.safe_dump(whole), encoding="utf-8")
        subprocess.run([*RUN, str(config)], check=True, cwd=ROOT, stdout=sys.stderr)
    return online


def start(
    config: Path, folder: Path, words: list[str], environment: dict[str, str], imports: bool = False
) -> Start:
    """Start the job, watch it to its first sample, and end it."""
    name = words[-1].split("=")[1]
    output = folder / "runs"
    more = {"PYTHONPROFILEIMPORTTIME": "1"} if imports else {}
    with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as err:
        began, clock = time.time(), time.monotonic()
        run = subprocess.Popen(
            # Another seed, or what one start made would be reused by the next.
            [*RUN, str(config), f"output={output}", f"seed={crc32(name.encode())}", *words],
            cwd=ROOT,
            env=environment | more,
            stdout=out,
            stderr=err,
        )
        seen = Start()
        ticks: dict[int, int] = {}
        before = dict(cpu_ticks(kept_processes()))
        try:
            while not (moments := moments_of(output / name, began)).get("first sample"):
                if run.poll() is not None or time.monotonic() - clock > LONGEST_S:
                    told = (folder / f"{name}.out").read_text() + (
                        folder / f"{name}.err"
                    ).read_text()
                    raise SystemExit(f"no first sample; the run said:\n{told[-3000:]}")
                watch(run.pid, seen, ticks)
                time.sleep(0.25)
            watch(run.pid, seen, ticks)
        finally:
            run.send_signal(signal.SIGINT)
            try:
                run.wait(60)
            except subprocess.TimeoutExpired:
                run.kill()
    seen.seconds = moments
    for pid, used in ticks.items():
        title = seen.names[pid]
        seen.cpu[title] = seen.cpu.get(title, 0.0) + (used - before.get(pid, 0)) / TICK
    took = " ".join(f"{moment} {at:.1f}" for moment, at in moments.items())
    total = sum(seen.cpu.values())
    sys.stderr.write(f"{name}: {took}; {total:.1f} CPU s; load {os.getloadavg()[0]:.1f}\n")
    return seen


def moments_of(folder: Path, began: float) -> dict[str, float]:
    """Seconds from the command to each moment that the run's own record holds."""
    found: dict[str, float] = {}
    if (folder / "config.yaml").exists():
        found["preflight"] = (folder / "config.yaml").stat().st_mtime - began
    metrics = folder / "metrics.jsonl"
    for line in metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []:
        try:
            event = json.loads(line)
        except ValueError:  # being written
            break
        at, kind = event["time"] - began, event["kind"]
        if kind == "stage_started":
            found["ray"] = at
        elif kind == "note" and "services are starting" in event["text"]:
            found["redis, admin"] = at
        elif kind == "note" and event["text"].startswith("services up"):
            found["engines, reward, pairing"] = at
        elif kind == "weights_published" and event["version"] == 0:
            found |= {"learner": at - event["seconds"], "weights attested": at}
        elif kind == "episode_changed" and event["dispatched"]:
            found.setdefault("first prompts sent", at)
            if event["paired"] or event["dropped"]:
                found.setdefault("first sample", at)
    return {moment: round(at, 2) for moment, at in found.items()}


def watch(pid: int, seen: Start, ticks: dict[int, int]) -> None:
    """Note name and CPU time of each process of the run, and of the cluster it found."""
    for each, used in cpu_ticks({*descendants({pid}), *kept_processes()}):
        ticks[each] = used
        name = title(each, pid)
        if name and not (name == "idle worker" and each in seen.names):
            seen.names[each] = name


def kept_processes() -> set[int]:
    """Those of a local cluster that outlives its runs: the raylet, all below it, and the GCS."""
    marks = (str(tempfile.gettempdir()) + "/su-",)
    roots = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and any(mark in cmdline(int(entry.name)) for mark in marks):
            roots.add(int(entry.name))
    return descendants(roots) if roots else set()


def descendants(roots: set[int]) -> set[int]:
    """These processes and all below them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := stat_of(int(entry.name))):
            children.setdefault(int(parent[1]), []).append(int(entry.name))
    found, left = set(), list(roots)
    while left:
        each = left.pop()
        if each not in found and each != os.getpid():
            found.add(each)
            left += children.get(each, [])
    return found


def cpu_ticks(pids: set[int]) -> Iterator[tuple[int, int]]:
    """User and system time of each, of its ended and awaited children too."""
    for pid in pids:
        if fields := stat_of(pid):
            yield pid, sum(int(value) for value in fields[11:15])


def stat_of(pid: int) -> list[str]:
    """/proc/<pid>/stat from the state on; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def cmdline(pid: int) -> str:
    """The command line or the title it has given itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def title(pid: int, driver: int) -> str:
    """What the process is, in a word or two; empty when it is gone."""
    if pid == driver:
        return "driver"
    text = cmdline(pid)
    if text.startswith("ray::"):
        name = re.split(r"[.( ]", text[5:])[0]
        if "ServeReplica" in text:
            return "reward replica"
        return {"IDLE": "idle worker"}.get(name, name)
    for sign, name in (
        ("gcs_server", "ray gcs_server"), ("raylet/raylet", "ray raylet"),
        ("log_monitor", "ray log_monitor"), ("runtime_env/agent", "ray runtime_env_agent"),
        ("dashboard/agent", "ray dashboard_agent"), ("dashboard", "ray dashboard"),
        ("default_worker", "idle worker"), ("redis-server", "redis"),
    ):  # fmt: skip
        if sign in text:
            return name
    return f"other: {text[:60]}" if text else ""


def imports(folder: Path, seen: Start) -> Iterator[tuple[str, dict[str, float]]]:
    """Per process the heavy packages that it imported, with the seconds each took, its own
    imports included; slower than in the other starts, as every import is printed."""
    texts = {"driver": [(folder / "imports.err").read_text(errors="replace")]}
    for log in sorted((folder / "ray").glob("session_*/logs/worker-*.err")):
        if (pid := re.search(r"-(\d+)\.err$", log.name)) and int(pid[1]) in seen.names:
            texts.setdefault(seen.names[int(pid[1])], []).append(log.read_text(errors="replace"))
    for name, logs in texts.items():
        found: dict[str, float] = {}
        for text in logs:
            for line in re.findall(r"import time:\s+\d+ \|\s+(\d+) \|\s+([\w.]+)$", text, re.M):
                if line[1] in HEAVY:
                    found[line[1]] = max(found.get(line[1], 0.0), int(line[0]) / 1e6)
        yield name, {package: round(took, 2) for package, took in sorted(found.items())}


def stop_ray(output: Path) -> None:
    """End the cluster that was kept."""
    stop = [sys.executable, "-m", "orchestrator.stages.kept", str(output)]
    subprocess.run(stop, check=True, cwd=ROOT, stdout=sys.stderr)


def result(starts: list[Start], imported: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The figures of all starts."""
    names = sorted({name for each in starts for name in each.cpu})
    totals = [sum(each.cpu.values()) for each in starts]
    return {
        "cores": os.cpu_count(),
        "seconds": {
            moment: spread([each.seconds[moment] for each in starts])
            for moment in starts[0].seconds
        },
        "cpu_seconds": spread(totals),
        "processes": {
            name: {
                "cpu_seconds": spread([each.cpu.get(name, 0.0) for each in starts]),
                "imported": imported.get(name, {}),
            }
            for name in names
        },
    }


def spread(values: list[float]) -> list[float]:
    """Least, median, greatest."""
    return [round(value, 2) for value in (min(values), median(values), max(values))]


if __name__ == "__main__":
    main()
