"""What a process has imported by the time it matters; import-linter sees our imports alone."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "vllm", "transformers", "ray", "datasets", "grpc", "numpy")


def loaded(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of `names` a fresh Python has imported after `code`."""
    tail = f"\nprint('loaded', *(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{tail}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("config", ["demo", "qwen2-0.5b", "qwen2-7b"])
def test_a_config_is_checked_before_anything_heavy_is_imported(config: str) -> None:
    code = (
        "from orchestrator.run import main\n"
        f"assert main(['configs/{config}.yaml', '--dry-run']) == 0"
    )
    assert loaded(code, HEAVY) == []


@pytest.mark.parametrize("room", ["queues", "pairs", "admin", "console", "telemetry", "data"])
def test_rooms_that_compute_without_torch_load_none(room: str) -> None:
    code = (
        "import importlib, pathlib\n"
        f"for file in sorted(pathlib.Path('services/{room}').rglob('*.py')):\n"
        "    importlib.import_module('.'.join(file.with_suffix('').parts))"
    )
    assert loaded(code, ("torch", "vllm", "transformers")) == []


@pytest.mark.parametrize(
    "process",
    [
        "orchestrator.stages.run, orchestrator.stages.stage, orchestrator.online.run",
        "orchestrator.jobs.evaluate_run, orchestrator.jobs.preferences_run",
        "orchestrator.jobs.training, services.learner.train.background",
        "services.telemetry.record.sink, services.weights.version_store",
        "services.pairs.actor, services.queues.queues, services.reward.client",
    ],
)
def test_orchestrator_and_small_actors_load_nothing_they_do_not_compute_with(process: str) -> None:
    heavy = ("torch", "vllm", "transformers", "ray.train", "ray.serve", "ray.data", "pandas")
    assert loaded(f"import {process}", heavy) == []


def test_a_reward_of_rules_and_functions_is_scored_without_torch() -> None:
    code = (
        "import services.reward.serve_app, services.reward.gateway\n"
        "from services.reward.composite import build\n"
        "from services.reward.settings import RewardSettings\n"
        "function = {'kind': 'function', 'path': 'math:hypot'}\n"
        "parts = [{'kind': 'checker'}, {'kind': 'length'}, function]\n"
        "assert len(build(RewardSettings(parts=parts), '.').parts) == 3"
    )
    assert loaded(code, ("torch", "vllm", "transformers", "tokenizers")) == []


def test_ray_train_s_controller_loads_no_torch() -> None:
    assert (
        loaded("import services.learner.train.ray_train", ("torch", "vllm", "transformers")) == []
    )
