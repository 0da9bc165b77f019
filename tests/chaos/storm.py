"""`make chaos KILLS=200 SEED=0`: a run of many short episodes, to whose parts this happens.

    .venv/bin/python -m tests.chaos.storm [--kills 200] [--seed 0] [--output runs/chaos]
        [--only FAULT ...]

By the seed, one after the other: SIGKILL of any part, of the orchestrator with all it has started,
of Redis whose last second is gone then; SIGSTOP, and SIGCONT some seconds later; a cut in the
network, a full disk, a reward that is slow or fails, a pause (tests/chaos/faults.py), more or fewer
workers. The command
is given again when the orchestrator was killed, and counted when it ended otherwise. Then
tests/chaos/checker.py reads what is there, and the same run in a calm must give the same weights.
The last line is one JSON object; exit status 1 when a promise is broken.
"""

import argparse
import hashlib
import json
import random
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from tests.chaos.checker import check
from tests.chaos.command import Command
from tests.chaos.driver import NETWORK
from tests.chaos.faults import DEATHS, TROUBLES, Fault, Sky
from tests.chaos.job import PROMPTS, config
from tests.chaos.network import Network
from tests.chaos.scale import scale
from tests.chaos.weather import FOLDER

FAULTS = DEATHS | TROUBLES | {"scale": (2, scale)}
BROKEN = ("lost", "unplanned", "doubled", "stale", "foreign", "trained_not_in_checkpoint",
          "dispatched_while_paused", "restarts_of_the_run_needed")  # fmt: skip


class Storm:
    """What was done to a run, and what came of it."""

    def __init__(self, sky: Sky, faults: Mapping[str, tuple[float, Fault]]) -> None:
        self._sky, self._faults = sky, faults
        self.hits: Counter[str] = Counter()
        self.recovery: list[float] = []
        """Seconds until a part that died was there again."""
        self.restarts_needed = 0
        """The command ended by itself, in an error."""

    def blow(self, count: int) -> None:
        """Until so many faults were and the run has ended."""
        sky = self._sky
        try:
            while (ended := sky.run.process.poll()) != 0:
                if ended is not None:
                    self.restarts_needed += 1
                    if self.restarts_needed > 5:
                        raise SystemExit(f"the run ended {self.restarts_needed} times: see its log")
                    sky.run = sky.begin()
                elif self.hits.total() < count and sky.run.up():
                    time.sleep(sky.rng.uniform(0.2, 2.0))
                    self._hit()
                else:
                    time.sleep(0.1)
        finally:
            sky.run.kill()

    def _hit(self) -> None:
        """One fault, and wait until it is mended."""
        weights = [weight for weight, _ in self._faults.values()]
        name = self._sky.rng.choices(list(self._faults), weights)[0]
        began = time.monotonic()
        if self._faults[name][1](self._sky):
            self.hits[name] += 1
            if name in DEATHS:
                self.recovery.append(time.monotonic() - began)


def main() -> int:
    """Run it; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/chaos"))
    parser.add_argument(
        "--only", nargs="+", choices=FAULTS, metavar="FAULT", help=", ".join(FAULTS)
    )
    options = parser.parse_args()
    folder = (options.output / f"seed-{options.seed}").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    episodes = 4 + 4 * options.kills  # so many that the run does not end before the storm
    job = config(folder, options.seed, episodes, port)
    began = time.monotonic()
    network = Network(folder / "storm" / "redis")
    # Both runs have one name: it is in the ids of their prompts.
    words = ["-m", "tests.chaos.driver", str(job), "name=storm"]
    environment = {NETWORK: str(network.port), FOLDER: str(folder)}
    begin = partial(Command, words, folder / "storm.log", environment)
    sky = Sky(folder, begin, random.Random(options.seed), port, network)
    storm = Storm(sky, {name: FAULTS[name] for name in options.only or FAULTS})
    storm.blow(options.kills)
    found = check(artifact_of(folder / "storm"), episodes, PROMPTS, sky.paused)
    shutil.rmtree(aside := folder.parent / f"{folder.name}-storm", ignore_errors=True)
    shutil.move(folder / "storm", aside)  # lest its artifact is taken for the next run's
    calm(Command(words, folder / "calm.log", {FOLDER: str(folder)}))
    found["weights_as_in_a_calm_run"] = found["weights"] == weights_of(folder / "storm")
    about = {"seed": options.seed, "episodes": episodes, "pauses": len(sky.paused)}
    return tell(about, storm, found, began)


def tell(about: dict[str, Any], storm: Storm, found: dict[str, Any], began: float) -> int:
    """The last line; the exit status."""
    result = {
        **about,
        "kills": dict(sorted(storm.hits.items())),
        **found,
        "restarts_of_the_run_needed": storm.restarts_needed,
        **_recovery(storm.recovery),
        "seconds": round(time.monotonic() - began),
    }
    sys.stdout.write(json.dumps(result) + "\n")
    whole = found["weights_as_in_a_calm_run"] or "DEAD_LETTER" in found["dropped"]
    return int(any(result[name] for name in BROKEN) or not whole)


def _recovery(seconds: list[float]) -> dict[str, Any]:
    if len(seconds) < 2:
        seconds = [*seconds, *seconds, 0.0, 0.0][:2]
    return {
        "recovery_s_median": round(median(seconds), 2),
        "recovery_s_p95": round(quantiles(seconds, n=20)[-1], 2),
    }


def artifact_of(run: Path) -> Path:
    """Of the online stage of a run."""
    (artifact,) = (path.parent for path in run.glob("*/ledger.jsonl.gz"))
    return artifact


def weights_of(run: Path) -> str:
    """SHA-256 of what a run made."""
    return hashlib.sha256((artifact_of(run) / "model.safetensors").read_bytes()).hexdigest()


def calm(run: Command, limit_s: float = 1800) -> None:
    """A run to its end, with nothing done to it."""
    try:
        if run.process.wait(limit_s):
            raise SystemExit("the calm run failed: see its log")
    finally:
        run.kill()


if __name__ == "__main__":
    sys.exit(main())
