"""The short form of `make chaos`: a few parts killed, and nothing lost, doubled or changed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_a_run_in_a_storm_loses_nothing_and_gives_the_weights_of_a_calm_one(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.chaos.storm", "--kills", "6", "--seed", "0"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=580
    )
    log = tmp_path / "seed-0-storm" / "storm.log"
    assert done.returncode == 0, (
        done.stdout,
        done.stderr[-2000:],
        log.exists() and log.read_text(),
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["kills"].values()) == 6
    assert found["trained"] + sum(found["dropped"].values()) == found["prompts_planned"]
    assert found["weights_as_in_a_calm_run"]
