"""The import contracts in pyproject.toml: the tree keeps them, and each one can be broken."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint_imports(folder: Path) -> tuple[int, str]:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in ("orchestrator", "services", "scripts"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    return folder


def test_the_tree_keeps_its_contracts(copied: Path) -> None:
    status, said = lint_imports(copied)
    assert status == 0, said


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("pairs/stats.py", "import orchestrator.loop", "Services never import the orchestrator"),
        ("admin/feed.py", "import services.queues.client", "A service is entered by its doors"),
        ("data/rows.py", "import ray", "What runs before the first check is light"),
        ("queues/keys.py", "import torch", "Rooms that compute without torch import none"),
        ("pairs/build.py", "import transformers", "Rooms that need no tokenizer"),
        ("learner/losses/dpo.py", "import numpy", "Algorithms import torch or nothing"),
        ("learner/losses/dpo.py", "import services.states", "Algorithms import torch or nothing"),
        ("pairs/select.py", "import numpy", "Pair selection imports its message alone"),
        ("weights/manifest.py", "import torch", "Manifests import numpy alone"),
        ("states.py", "import numpy.linalg, redis", "States and filters import messages"),
        ("rollout/worker.py", "from vllm.outputs import RequestOutput", "vLLM in one room"),
        ("learner/train/loop.py", "from ray import get, train", "Ray Train in one file"),
        ("reward/rules.py", "import ray.serve", "Ray Serve in one file"),
        ("queues/ledger.py", "from redis.asyncio import Redis", "redis-py in its adapter"),
    ],
)
def test_a_forbidden_import_breaks_its_contract_even_inside_a_function(
    copied: Path, file: str, line: str, contract: str
) -> None:
    target = copied / "services" / file
    kept = target.read_text()
    target.write_text(f"{kept}\n\ndef _late() -> None:\n    {line}\n")
    try:
        status, said = lint_imports(copied)
    finally:
        target.write_text(kept)
    assert status == 1, said
    assert contract in said.partition("Broken contracts")[2]
    assert f"services.{file.removesuffix('.py').replace('/', '.')}" in said
