"""Connect to Ray: the configured cluster, RAY_ADDRESS, or a local one started for this run."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.ray import RaySettings
from orchestrator.interrupts import interrupts
from orchestrator.stages.kept import kept_ray
from services.errors import UnreachableError

ROOT = Path(__file__).resolve().parent.parent.parent

# Actors of a job at most: the local Ray's CPUs are only a count that scheduling reads, and
# threads are set on purpose in each actor, so small machines get enough for every actor.
_LOCAL_CPUS = 16


@contextlib.contextmanager
def ray_cluster(
    settings: RaySettings, output: Path, store_bytes: int, environment: Mapping[str, str]
) -> Iterator[None]:
    """Ray, connected; shut down at the end, but for one that is kept for the runs of `output`.

    `store_bytes` is the room of a local object store where the settings name none; `environment`
    is what every process of the run gets beside what they have.
    UnreachableError when it does not answer.
    """
    # Every process of the run finds the code, also where the project is not installed.
    paths = [str(ROOT), str(ROOT / "protos"), os.environ.get("PYTHONPATH", "")]
    pythonpath = os.pathsep.join(filter(None, paths))
    os.environ |= {
        "PYTHONPATH": pythonpath,
        "RAY_DEDUP_LOGS": "0",
        # Else a thread that still asks for something while Ray ends would start another one.
        "RAY_ENABLE_AUTO_CONNECT": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # By default workers are niced: beside any other work they would starve.
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
        # Serve's controller looks ten times a second otherwise. Where all cores train, the others
        # wait for the one that it takes.
        "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    }
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        worker_environment = {"env_vars": {"PYTHONPATH": pythonpath, **environment}}
        joined = {"runtime_env": worker_environment}
        with _in_environment(environment), _connected(address, joined):
            yield
            _stop_serve()
        return
    # Ray takes the machine's own address for 127.0.0.1, where every neighbour reaches it, unless
    # it believes itself on a system where it keeps to the loopback.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    local = {
        "num_cpus": settings.num_cpus or max(_LOCAL_CPUS, os.cpu_count() or 1),
        "object_store_memory": store_room(settings, store_bytes),
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
    }
    with contextlib.ExitStack() as stack:
        kept = None
        if settings.keep:
            kept = stack.enter_context(kept_ray(output, _quiet("local", local)))
        if kept:
            # A local Ray asks for the user's token (~/.ray/auth_token), which Ray itself sends to
            # one that it started alone.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        # After a Ray that is kept has been started: the next run's processes are not to inherit it.
        stack.enter_context(_in_environment(environment))
        ours = {"runtime_env": {"env_vars": dict(environment)}} if environment else {}
        stack.enter_context(_connected(kept or "local", ours if kept else local))
        yield


@contextlib.contextmanager
def _in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    os.environ |= variables
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def store_room(settings: RaySettings, wanted: int) -> int:
    """Bytes of a local object store: as set, else room for `wanted` and for what else passes."""
    if settings.object_store_gib is not None:
        return int(settings.object_store_gib * 2**30)
    # Pages are taken as they are filled. In powers of two: a kept Ray fits runs that differ little.
    return max(2**29, 2 ** (wanted * 5 // 4 - 1).bit_length() if wanted else 0)


@contextlib.contextmanager
def _connected(address: str, options: dict[str, Any]) -> Iterator[None]:
    with interrupts.held():
        import ray  # reads its settings from the environment

    # Else Ray prints a paragraph on each process that ends. Its cause reaches us as an exception,
    # whose text is the same and goes into error.log; there is no setting for this thread's print.
    ray._private.worker._worker_logs_enabled = False
    # In this thread: the servers of a local Ray die with the thread that started them.
    # Ray puts its own handler of SIGTERM in place, which ends the process without its results.
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        with interrupts.held():
            ray.init(**_quiet(address, options))
            signal.signal(signal.SIGTERM, terminate)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        token = "" if address == "local" else "; if it asks for a token, set RAY_AUTH_MODE=token"
        raise UnreachableError(f"Ray at '{address}': {first}{token}") from None
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    try:
        yield
    finally:
        if address == "local":
            ray.shutdown()
        # A cluster that lives on still sends while Ray takes the connection down, and now and then
        # ends this process by a segmentation fault after all is done (Ray 2.60: boost's scheduler
        # is used after it was freed). It lets go of what was ours when the process ends
        # (orchestrator/run.py).


def _quiet(address: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of `ray.init`, without what it writes to the terminal."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    return {"address": address, **quiet, **options}


def _stop_serve() -> None:
    """Serve's controller is detached: on a cluster that outlives this run it must be told."""
    if "ray.serve" in sys.modules:
        from services.reward.serve_app import leave

        leave()
