"""What end-to-end tests share: one output folder, and the tiny recipe made once in it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all runs of tests/e2e/tiny.yaml: later ones reuse the stages of the first."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def recipe(output: Path) -> Path:
    """The run folder of the finished tiny recipe: test_recipe's, or made here where that did not
    run before, with an online stage of one episode, so that test_recipe still has its own to make.
    """
    if (output / "tiny" / "online_dpo" / "artifact.json").is_file():
        return output / "tiny"
    command = [sys.executable, "orchestrator/run.py", "tests/e2e/tiny.yaml", f"output={output}"]
    command += ["name=shared", "stages.online_dpo.episodes.count=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return output / "shared"
