"""The memory plan held against what runs really take, process by process.

    PYTHONPATH=. .venv/bin/python bench/memory_plan.py [--shapes 4m,60m] [--dtypes float32,bfloat16]
        [--online] [key=value ...]

Trains each model on preference pairs by our offline DPO, or with --online runs two episodes of
online DPO with OMO (16 prompts x 4 answers of 64 tokens), as a user would, and looks at every
process meanwhile (bench/watched_run.py). Further words override keys of the job. The plan is good
where the measured peak of the whole is within 15% of it. An interrupted machine is no risk: a run
is ended once less than 2 GiB are available.

The last line is one JSON object.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bench import measure, models, watched_run
from orchestrator.checks.memory_plan import ORDER, plan_memory
from orchestrator.config.reading import read_config
from services.memory_plan import GIB

FLOOR_GIB = 2.0
_OURS = {"learner": "learner", "engine": "engine", "reward": "reward"}
"""The plan's name of a process, by its role; every other is of the rest."""


def main() -> None:
    """Every case, then the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", default="4m", help=f"of {', '.join(models.SHAPES)}")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--online", action="store_true", help="the whole of online DPO")
    parser.add_argument("words", nargs="*", metavar="key=value")
    options = parser.parse_args()
    cases = []
    for shape in options.shapes.split(","):
        for dtype in options.dtypes.split(","):
            cases.append(_case(shape, dtype, options.words, online=options.online))
            print("\n".join(_lines(cases[-1])), flush=True)
    print(json.dumps({"machine": measure.machine(), "cases": cases}))


def _case(shape: str, dtype: str, words: list[str], *, online: bool) -> dict[str, Any]:
    folder = measure.ROOT / "runs" / "bench" / shape
    made = models.make(folder, shape)
    with tempfile.TemporaryDirectory(prefix="memory-", dir=folder) as name:
        config = Path(name) / "job.yaml"
        job = _job(made, Path(name), dtype, online=online)
        config.write_text(yaml.safe_dump(job), encoding="utf-8")
        (plan,) = plan_memory(read_config(config, words).expand())
        run = [sys.executable, str(measure.ROOT / "orchestrator" / "run.py"), str(config), *words]
        found = watched_run.run(run, floor_gib=FLOOR_GIB)
    planned = {p.name: p.count * p.host for p in plan.processes} | {"all": plan.host}
    measured = _by_process(found.own_peak) | {"all": found.peak}
    measured["snapshot"] = found.shared_peak
    return {
        "shape": shape,
        "dtype": dtype,
        "online": online,
        "status": found.status,
        "stopped_for_memory": found.stopped_for_memory,
        "seconds": round(found.seconds, 1),
        "planned_gib": _gib(planned),
        "measured_gib": _gib(measured),
        "at_the_peak_of_all_gib": _gib(_by_process(found.at_peak)),
        "roles_gib": {
            role: [round(part / GIB, 2) for part in (held.private, held.files, held.shared)]
            for role, held in found.own_peak.items()
        },
        "planned_over_measured": round(planned["all"] / max(1, measured["all"]), 3),
        "parts": {
            process.name: _gib({part.name: part.bytes for part in process.parts})
            for process in plan.processes
        },
    }


def _by_process(roles: Mapping[str, watched_run.Held]) -> dict[str, int]:
    """Bytes by the plan's names, with the files they map; what is shared is the snapshot."""
    found = dict.fromkeys(ORDER, 0)
    for role, held in roles.items():
        found[_OURS.get(role, "the rest")] += held.private + held.files
        found["snapshot"] += held.shared
    return found


def _job(made: Mapping[str, Path], out: Path, dtype: str, *, online: bool) -> dict[str, Any]:
    draw = random.Random(0)
    words = [["".join(draw.choices("abcdefgh", k=4)) for _ in range(24)] for _ in range(64)]
    rows = [
        {"prompt": " ".join(each), "chosen": " ".join(each[:16]), "rejected": " ".join(each[8:])}
        for each in words
    ]
    data = out / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job: dict[str, Any] = {
        "name": "run",
        "output": str(out),
        "policy": str(made["policy"]),
        "base": str(made["base"]),
        "train": {
            "dtype": dtype,
            "optimizer": {"kind": "ondare", "reserve": 0.1, "rescale": True, "alpha": 1e-6},
            "batch_size": 8,
            "max_length": 256,
        },
    }
    if not online:
        job["train"]["max_steps"] = 3
        return job | {"job": "offline_dpo", "pairs": {"path": str(data)}}
    return job | {
        "job": "online_dpo",
        "prompts": {"path": str(data)},
        "reward": {"parts": [{"kind": "function", "path": "bench.rewards:score"}]},
        "episodes": {"count": 2, "prompts": 16, "in_flight": 16, "timeout_s": 900},
        "sampling": {"n": 4, "max_tokens": 64},
        "engine": {
            "dtype": dtype,
            "max_model_len": 256,
            "max_num_seqs": 64,
            "kv_cache_gib": 0.25,
        },
        "admin": {"port": 0},
    }


def _lines(case: Mapping[str, Any]) -> list[str]:
    kind = "online DPO" if case["online"] else "offline DPO"
    planned, measured = case["planned_gib"], case["measured_gib"]
    together = case["at_the_peak_of_all_gib"] | {"all": measured["all"]}
    lines = [f"{case['shape']} {case['dtype']} {kind}: status {case['status']}"]
    lines.append(f"   {'':<12}{'planned':>9}{'own peak':>10}{'at peak of all':>16}   GiB")
    for name in [*ORDER, "all"]:
        if name in planned or measured.get(name):
            one, other = measured.get(name, 0.0), together.get(name, 0.0)
            lines.append(f"   {name:<12}{planned.get(name, 0.0):>9.2f}{one:>10.2f}{other:>16.2f}")
    return [*lines, f"   planned over measured {case['planned_over_measured']}"]


def _gib(sizes: Mapping[str, int]) -> dict[str, float]:
    return {name: round(size / GIB, 2) for name, size in sizes.items()}


if __name__ == "__main__":
    main()
