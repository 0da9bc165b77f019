"""Fixtures of more than one folder of tests."""

from collections.abc import Iterator

import hypothesis
import pytest

# No deadline: a busy machine is no fault. `make mutants` asks for few examples, always the same.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile(
    "mutants", deadline=None, max_examples=25, derandomize=True, database=None
)
hypothesis.settings.load_profile("default")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A small real Ray on this machine."""
    import ray

    def start() -> None:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=8,
            object_store_memory=200 * 2**20,
            logging_level="error",
            log_to_driver=False,
        )

    try:
        start()
    except Exception as error:
        # Ray forks its servers and runs Python in them before exec. From a process with as many
        # threads as this one has, that was seen to hang once: Ray gives up after 30 s.
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        start()
    yield
    ray.shutdown()
