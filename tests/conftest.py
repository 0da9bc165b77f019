"""Fixtures of more than one folder of tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A small real Ray on this machine."""
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=8,
        object_store_memory=200 * 2**20,
        logging_level="error",
        log_to_driver=False,
    )
    yield
    ray.shutdown()
