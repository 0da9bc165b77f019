"""`make chaos-demo`: ten parts of the running demo are killed, vLLM's engine among them.

    .venv/bin/python -m tests.chaos.demo [--kills 10] [--seed 0] [--output runs/chaos-demo]

`configs/demo.yaml` runs to its end, then its online stage once more in a storm: it must end by
itself, with the same weights. The last line is one JSON object; exit status 1 when it does not.
"""

import argparse
import random
import shutil
import sys
import time
from functools import partial
from pathlib import Path

import yaml

from tests.chaos.checker import check
from tests.chaos.command import ROOT, Command
from tests.chaos.faults import DEATHS, Sky, stop
from tests.chaos.storm import Storm, artifact_of, calm, tell, weights_of

FAULTS = DEATHS | {"engine stopped": (2, partial(stop, "engine"))}
RESTARTS = "stages.online_dpo.restarts.count=100"


def main() -> int:
    """Run it; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/chaos-demo"))
    options = parser.parse_args()
    folder, began = options.output.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "storm", ignore_errors=True)
    words = ["orchestrator/run.py", f"output={folder}"]
    calm(Command([*words, "name=calm"], folder / "calm.log"))
    expected = weights_of(folder / "calm")
    made = artifact_of(folder / "calm")
    shutil.move(made, aside := folder / "calm-online_dpo")  # lest it is taken for the next run's
    begin = partial(Command, [*words, "name=storm", RESTARTS], folder / "storm.log")
    try:
        sky = Sky(folder, begin, random.Random(options.seed))
        storm = Storm(sky, FAULTS)
        storm.blow(options.kills)
    finally:
        shutil.move(aside, made)
    demo = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    episodes = demo["stages"]["online_dpo"]["episodes"]
    found = check(artifact_of(folder / "storm"), episodes["count"], episodes["prompts"], [])
    found["weights_as_in_a_calm_run"] = found["weights"] == expected
    return tell({"seed": options.seed, "episodes": episodes["count"]}, storm, found, began)


if __name__ == "__main__":
    sys.exit(main())
