"""The Ray Serve adapter: replicas that hold the reward, batched over groups, behind a handle.

Serve's own proxies stay off (docs/adr/0002-reward-gateway.md); `gateway.py` is the way in.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar

from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
)
from ray.serve.schema import ApplicationStatus, LoggingConfig

from pairloop.reward.v1.reward_pb2 import DescribeResponse, ScoreRequest, ScoreResponse
from services.errors import (
    CAUSE_CHARACTERS,
    LineageError,
    PairloopError,
    StallError,
    WorkerError,
    one_line,
    shortened,
)
from services.reward.composite import Composite, build, describe
from services.reward.settings import RewardSettings

RETRYABLE = (RayActorError, BackPressureError, DeploymentUnavailableError)
"""What a handle raises while Serve replaces a replica: the call may be made again."""

T = TypeVar("T")

POLL_S = 0.05
_QUIET = {"runtime_env": {"env_vars": {"RAY_SERVE_LOG_TO_STDERR": "0"}}}
"""Serve's controller writes a failed start's traceback to its log file and not to the console."""
_LOGGING = LoggingConfig(log_level="WARNING", enable_access_log=False)


class RewardReplica:
    """One copy of the reward. Errors of ours are returned, so one group fails alone."""

    def __init__(self, settings: RewardSettings, folder: str) -> None:
        self._settings = settings
        self._reward = build(settings, folder)
        self._batched.set_max_batch_size(settings.max_batch_groups)
        self._batched.set_batch_wait_timeout_s(settings.batch_wait_s)

    async def score(self, request: bytes) -> bytes | PairloopError:
        """A serialised ScoreRequest to a serialised ScoreResponse."""
        answer: bytes | PairloopError = await self._batched(request)
        return answer

    async def describe(self) -> bytes:
        """A serialised DescribeResponse."""
        return DescribeResponse(
            description=describe(self._settings),
            tokenizer_fingerprint=self._reward.fingerprint,
            parts=[part.name for part in self._reward.parts],
        ).SerializeToString()

    async def check_health(self) -> None:
        """Serve replaces a replica that raises here."""
        self._reward.check()

    @serve.batch  # type: ignore[untyped-decorator]
    async def _batched(self, requests: list[bytes]) -> list[bytes | PairloopError]:
        return await asyncio.to_thread(
            lambda: [score_request(self._reward, request) for request in requests]
        )


def score_request(reward: Composite, payload: bytes) -> bytes | PairloopError:
    """Score one group; what goes wrong is returned, with its cause."""
    request = ScoreRequest.FromString(payload)
    if reward.fingerprint and request.tokenizer_fingerprint != reward.fingerprint:
        return LineageError(
            f"the reward model reads tokenizer {reward.fingerprint}, the policy "
            f"{request.tokenizer_fingerprint or '(not given)'}: train the reward model from the "
            "same family, with the same chat template"
        )
    try:
        scores = reward.score(request.prompt, request.samples)
    except PairloopError as error:
        return error
    except Exception as error:  # noqa: BLE001 - carried to the caller with its cause
        return WorkerError(f"scoring {request.prompt.id} failed: {one_line(error)}")
    return ScoreResponse(scores=scores).SerializeToString()


def start(
    settings: RewardSettings,
    *,
    name: str,
    folder: str,
    timeout_s: float = 180.0,
    called_off: Event | None = None,
) -> Any:
    """Start the replicas as the Serve application `name`; returns the handle once all are up.

    Starts Serve where it does not run yet, without any proxy. `folder` is what relative paths
    in the settings start from. Raises WorkerError with the cause when a replica does not come
    up or once `called_off` is set, StallError past `timeout_s`; the application may then be there
    in part: `stop` it.
    """
    deadline, called_off = time.monotonic() + timeout_s, called_off or Event()
    stalled = StallError(
        f"the reward was not up after {timeout_s:g} s; {settings.replicas} replica(s) need "
        f"{settings.num_cpus:g} CPUs and {settings.num_gpus:g} GPUs each: is there room?"
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    deploy = partial(_deploy, settings, name, folder, called_off)
    handle = _within(deploy, deadline, stalled, called_off)
    while (state := _within(lambda: _state(name), deadline, stalled, called_off))[0] != "RUNNING":
        if state[0] == "DEPLOY_FAILED":
            raise WorkerError(f"the reward did not start: {cause_of(state[1])}")
        if time.monotonic() > deadline:
            raise stalled
        time.sleep(POLL_S)
    return handle


def stop(name: str) -> None:
    """Remove the application; Serve itself lives until Ray ends, others may use it."""
    try:
        serve.delete(name, _blocking=False)
    except (RayServeException, RayError) as error:
        logging.getLogger(__name__).info("reward %s was gone already: %s", name, error)


def leave() -> None:
    """End Serve on a cluster that lives on, unless somebody's application runs there."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        found = serve.status().applications.values()
        if all(each.status == ApplicationStatus.DELETING for each in found):
            serve.shutdown()
    except (RayServeException, RayError) as error:
        logging.getLogger(__name__).info("Serve was gone already: %s", error)


def cause_of(message: str) -> str:
    """The last error line in Serve's account of a failed start, which is a whole traceback."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line.split(": ", 1)[1] for line in lines if line.startswith("services.errors.")]
    found = ours or lines or ["Serve gives no cause"]
    return shortened(found[-1], 2 * CAUSE_CHARACTERS)


def _deploy(settings: RewardSettings, name: str, folder: str, called_off: Event) -> Any:
    serve.start(proxy_location="Disabled", logging_config=_LOGGING, controller_options=_QUIET)
    if called_off.is_set():
        raise _called_off()  # nobody waits for this thread any more, nor would end what it starts
    deployment = serve.deployment(
        RewardReplica,
        name="reward",
        num_replicas=settings.replicas,
        max_ongoing_requests=4 * settings.max_batch_groups,
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        health_check_period_s=5.0,
        # A scoring thread may hold the interpreter for long; a dead replica is seen at once.
        health_check_timeout_s=max(30.0, settings.timeout_s),
        graceful_shutdown_timeout_s=2.0,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=1,
        logging_config=_LOGGING,
    )
    target = serve.api.RunTarget(
        target=deployment.bind(settings, folder),
        name=name,
        route_prefix=None,
        logging_config=_LOGGING,
    )
    return serve.run_many([target], wait_for_applications_running=False)[0]


def _state(name: str) -> tuple[str, str]:
    """The application's state, and what the state's replicas say about it."""
    application = serve.status().applications.get(name)
    if application is None:
        return "NOT_STARTED", ""
    text = "\n".join([application.message, *(d.message for d in application.deployments.values())])
    return ApplicationStatus(application.status).value, text


def _within(call: Callable[[], T], deadline: float, stalled: StallError, called_off: Event) -> T:
    """Serve's calls block without a limit of their own; this gives them one, and a way out."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            future.set_exception(error)

    Thread(target=work, name="serve-call", daemon=True).start()
    while not called_off.is_set():
        left = max(0.0, deadline - time.monotonic())
        try:
            return future.result(min(left, POLL_S))
        except FutureTimeoutError as error:
            if future.done():
                raise  # the call's own
            if left <= 0:
                raise stalled from error
    raise _called_off()


def _called_off() -> WorkerError:
    return WorkerError("the start of the reward was called off; the same command goes on")
