"""The gateway and the client on a real gRPC connection; Serve is a scripted handle."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Prompt, Sample
from pairloop.reward.v1.reward_pb2 import DescribeResponse, ScoreRequest, ScoreResponse
from pairloop.reward.v1.reward_pb2_grpc import RewardServiceStub
from services.errors import (
    DataError,
    LineageError,
    SlowError,
    UnreachableError,
    WorkerError,
)
from services.reward.client import GrpcScorer
from services.reward.gateway import SERVICE, Gateway
from services.reward.settings import RewardSettings

PROMPT = Prompt(id="r/e1/p0")
SAMPLES = [Sample(index=0, text="a"), Sample(index=1, text="bbb")]


class Method:
    """Looks like a method of a Serve handle."""

    def __init__(self, answer: Callable[..., Awaitable[Any]]) -> None:
        self.remote = answer


class Handle:
    """Gives the scripted answers, the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.requests: list[ScoreRequest] = []
        self._answers = list(answers)
        self.score = Method(self._score)
        self.describe = Method(self._describe)

    async def _score(self, payload: bytes) -> Any:
        self.requests.append(ScoreRequest.FromString(payload))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        if isinstance(answer, RuntimeError) or type(answer).__module__.startswith("ray"):
            raise answer
        return answer

    async def _describe(self) -> bytes:
        return DescribeResponse(description="1.0*checker", parts=["checker"]).SerializeToString()


GOOD = ScoreResponse(scores=[Score(total=1.0), Score(total=3.0)]).SerializeToString()


def settings(**changes: Any) -> RewardSettings:
    return RewardSettings.model_validate(
        {"parts": [{"kind": "checker"}], "timeout_s": 20.0, "outage_s": 30.0, **changes}
    )


Serve = Callable[..., Awaitable[tuple[GrpcScorer, str]]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a gateway before a handle, and a scorer that talks to it."""
    running: list[Any] = []

    async def start(handle: Handle, token: str = "", **changes: Any) -> tuple[GrpcScorer, str]:
        gateway = Gateway(settings(**changes), token)
        address = await gateway.start(handle)
        scorer = GrpcScorer(address, settings(**changes), "abc", token)
        running.extend([scorer.close, gateway.stop])
        return scorer, address

    yield start
    for stop in running:
        await stop()


async def test_scores_come_back_in_order(serve: Serve) -> None:
    handle = Handle(GOOD)
    scorer, address = await serve(handle)
    assert address.startswith("127.0.0.1:")
    assert [score.total for score in await scorer.score(PROMPT, SAMPLES)] == [1.0, 3.0]
    assert await scorer.describe() == "1.0*checker"
    assert handle.requests[0].tokenizer_fingerprint == "abc"
    assert list(handle.requests[0].samples) == SAMPLES


@pytest.mark.parametrize(
    ("failure", "error", "text"),
    [
        (DataError("r/e1/p0: no answer"), DataError, "^r/e1/p0: no answer$"),
        (LineageError("another tokenizer"), LineageError, "^another tokenizer$"),
        (WorkerError("function f failed"), WorkerError, "^function f failed$"),
        (RuntimeError("cuda\nis gone"), WorkerError, "^RuntimeError: cuda is gone$"),
    ],
)
async def test_an_error_arrives_as_itself_and_is_not_retried(
    serve: Serve, failure: Exception, error: type[Exception], text: str
) -> None:
    handle = Handle(failure)
    scorer, _ = await serve(handle)
    with pytest.raises(error, match=text):
        await scorer.score(PROMPT, SAMPLES)
    assert len(handle.requests) == 1


async def test_a_lost_replica_is_asked_again(serve: Serve) -> None:
    from ray.exceptions import ActorUnavailableError

    lost = ActorUnavailableError("replica restarts", None)
    handle = Handle(lost, lost, GOOD)
    scorer, _ = await serve(handle)
    assert len(await scorer.score(PROMPT, SAMPLES)) == 2
    assert len(handle.requests) == 3


async def test_the_last_try_names_the_address(serve: Serve) -> None:
    from ray.exceptions import ActorUnavailableError

    handle = Handle(ActorUnavailableError("replica restarts", None))
    scorer, address = await serve(handle, outage_s=1.0)
    with pytest.raises(UnreachableError, match=f"{address} was not reachable for 1 s") as e:
        await scorer.score(PROMPT, SAMPLES)
    assert len(handle.requests) >= 2
    assert "\n" not in str(e.value)


OWN, JUDGES = "a-token-of-the-run", "a-token-of-the-judge"


async def test_where_tokens_are_asked_for_the_run_has_its_own_and_others_need_theirs(
    serve: Serve, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"judge read {JUDGES}\n")
    open_, closed = settings(), settings(tokens=str(tokens))
    everywhere = settings(host="0.0.0.0")  # noqa: S104 - what is tested
    for asked in (open_, closed, everywhere):
        own, address = await serve(Handle(GOOD), OWN, host=asked.host, tokens=asked.tokens)
        assert len(await own.score(PROMPT, SAMPLES)) == 2
        for token, enters in (
            ("", asked is open_),
            (JUDGES, asked is not everywhere),
        ):
            other = GrpcScorer(address, asked, "abc", token)
            if enters:
                assert len(await other.score(PROMPT, SAMPLES)) == 2
            else:
                with pytest.raises(WorkerError, match="a token is needed that this server knows"):
                    await other.score(PROMPT, SAMPLES)
            await other.close()


async def test_nobody_listens() -> None:
    scorer = GrpcScorer("127.0.0.1:1", settings(outage_s=0.5), "")
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 was not reachable for 0\.5 s"):
        await scorer.describe()
    await scorer.close()


async def test_the_deadline_is_honoured_and_not_retried(serve: Serve) -> None:
    handle = Handle(600.0)
    scorer, address = await serve(handle, timeout_s=0.3)
    with pytest.raises(SlowError, match=rf"{address} did not answer within 0\.3 s"):
        await scorer.score(PROMPT, SAMPLES)
    assert len(handle.requests) == 1


async def test_a_caller_without_a_deadline_gets_the_settings_one(serve: Serve) -> None:
    _, address = await serve(Handle(600.0), timeout_s=0.3)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = RewardServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Score(ScoreRequest(prompt=PROMPT))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (DataError("x"), grpc.StatusCode.INVALID_ARGUMENT),
        (LineageError("x"), grpc.StatusCode.FAILED_PRECONDITION),
        (WorkerError("x"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_status_codes(serve: Serve, failure: Exception, code: grpc.StatusCode) -> None:
    _, address = await serve(Handle(failure))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = RewardServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Score(ScoreRequest(prompt=PROMPT), timeout=10)
    assert (caught.value.code(), caught.value.details()) == (code, "x")


async def test_too_few_scores_are_an_error(serve: Serve) -> None:
    scorer, _ = await serve(Handle(ScoreResponse(scores=[Score()]).SerializeToString()))
    with pytest.raises(WorkerError, match="gave 1 scores for the 2 samples of r/e1/p0"):
        await scorer.score(PROMPT, SAMPLES)


async def test_a_large_group_fits(serve: Serve) -> None:
    scores = [Score(total=float(i)) for i in range(256)]
    scorer, _ = await serve(Handle(ScoreResponse(scores=scores).SerializeToString()))
    samples = [
        Sample(index=i, token_ids=[151_000] * 4096, logprobs=[-0.5] * 4096) for i in range(256)
    ]
    assert [s.total for s in await scorer.score(PROMPT, samples)] == list(range(256))


async def test_a_taken_port_is_named(serve: Serve) -> None:
    _, address = await serve(Handle(GOOD))
    port = int(address.split(":")[1])
    with pytest.raises(UnreachableError, match=rf"reward\.port {port} on 127\.0\.0\.1"):
        await serve(Handle(GOOD), port=port)


async def test_health_and_reflection(serve: Serve) -> None:
    _, address = await serve(Handle(GOOD))
    async with grpc.aio.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        reply = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        async for answer in stub.ServerReflectionInfo(iter([asked]), timeout=10):
            names = [service.name for service in answer.list_services_response.service]
            assert SERVICE in names
