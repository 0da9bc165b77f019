"""The jobs: each module has `run(job, context) -> metrics` and fills `context.out`."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

Run = Callable[[Any, Any], Awaitable[dict[str, float]]]


def job_named(name: str) -> Run:
    """The `run` of orchestrator/jobs/<name>.py, imported now: training imports for seconds."""
    run: Run = importlib.import_module(f"orchestrator.jobs.{name}").run
    return run
