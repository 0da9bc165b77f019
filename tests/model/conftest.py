"""The real Redis server that the models are held against, and how long."""

import os

from hypothesis import HealthCheck, settings

from tests.integration.conftest import redis_url as redis_url

_EXAMPLES = os.environ.get("PAIRLOOP_MODEL_EXAMPLES")


def profile(examples: int, steps: int) -> settings:
    """`examples` runs of up to `steps` steps, always the same; others where `make model` asks."""
    return settings(
        max_examples=int(_EXAMPLES or examples),
        stateful_step_count=steps,
        derandomize=_EXAMPLES is None,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
