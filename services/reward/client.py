"""The Scorer that asks the reward service over gRPC."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import grpc
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential_jitter,
)

from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Prompt, Sample
from pairloop.reward.v1.reward_pb2 import DescribeRequest, DescribeResponse, ScoreRequest
from pairloop.reward.v1.reward_pb2_grpc import RewardServiceStub
from services.errors import (
    CAUSE_CHARACTERS,
    SlowError,
    StateError,
    UnreachableError,
    WorkerError,
    shortened,
)
from services.reward.settings import RewardSettings
from services.reward.status import MESSAGE_OPTIONS, error_of

T = TypeVar("T")

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
_OPTIONS = [
    *MESSAGE_OPTIONS,
    ("grpc.enable_retries", 0),  # retried here, where it lasts as long as the settings say
    ("grpc.enable_http_proxy", 0),  # the service is inside the cluster
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GrpcScorer:
    """Scores groups at `address`; made and used within one event loop.

    `tokenizer_fingerprint` is of the policy that sampled: the service refuses token ids it
    would read differently.
    """

    def __init__(
        self, address: str, settings: RewardSettings, tokenizer_fingerprint: str, token: str = ""
    ) -> None:
        self._address = address
        self._settings = settings
        self._fingerprint = tokenizer_fingerprint
        self._metadata = [("authorization", f"Bearer {token}")] if token else None
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = RewardServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def score(self, prompt: Prompt, samples: Sequence[Sample]) -> list[Score]:
        """One score a sample, in order.

        Raises SlowError past the deadline, UnreachableError past `outage_s`, DataError for a
        prompt the rules cannot check, LineageError for another tokenizer, WorkerError for the rest.
        """
        request = ScoreRequest(
            prompt=prompt, samples=samples, tokenizer_fingerprint=self._fingerprint
        )
        response = await self._call(
            lambda: self._stub.Score(
                request, timeout=self._settings.timeout_s, metadata=self._metadata
            )
        )
        if len(response.scores) != len(samples):
            raise WorkerError(
                f"the reward at {self._address} gave {len(response.scores)} scores for the "
                f"{len(samples)} samples of {prompt.id}"
            )
        return list(response.scores)

    async def describe(self) -> str:
        """What scores, e.g. "1.0*model(runs/demo/reward_model) + 2.0*checker"."""
        response: DescribeResponse = await self._call(
            lambda: self._stub.Describe(
                DescribeRequest(), timeout=self._settings.timeout_s, metadata=self._metadata
            )
        )
        return response.description

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(grace=None)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Try while UNAVAILABLE, as long as the settings say, waiting longer each time."""
        tries = AsyncRetrying(
            retry=retry_if_exception(_unavailable),
            stop=stop_after_delay(self._settings.outage_s),
            wait=wait_exponential_jitter(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            sleep=asyncio.sleep,
            reraise=True,
        )
        try:
            async for attempt in tries:
                with attempt:
                    return await call()
        except grpc.aio.AioRpcError as error:
            raise self._error(error) from error
        raise StateError("a call to the reward ended without an answer and without an error")

    def _error(self, error: grpc.aio.AioRpcError) -> Exception:
        text = shortened(" ".join((error.details() or "no details").split()), CAUSE_CHARACTERS)
        if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
            return SlowError(
                f"the reward at {self._address} did not answer within "
                f"{self._settings.timeout_s:g} s; raise reward.timeout_s, or give it more replicas"
            )
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return UnreachableError(
                f"the reward at {self._address} was not reachable for "
                f"{self._settings.outage_s:g} s ({text}); look at its log, or raise"
                " reward.outage_s"
            )
        return error_of(error.code(), text)


def _unavailable(error: BaseException) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() == grpc.StatusCode.UNAVAILABLE
