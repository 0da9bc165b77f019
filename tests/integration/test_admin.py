"""The admin API over a real channel, on the real episode store."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.admin.server import AdminServer
from services.admin.settings import AdminSettings
from services.errors import UnreachableError
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.conftest import FakeWorkers, SilentRuns, admin_of, serving
from tests.integration.redis_rows import all_sampled
from tests.integration.test_queues import prompts
from tests.integration.test_queues_episodes import finish_all

NAME = "pairloop.admin.v1.AdminService"


@pytest.fixture
async def channel(server: tuple[AdminServer, str]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server[1]) as channel:
        yield channel


@pytest.fixture
def admin(channel: grpc.aio.Channel) -> AdminServiceStub:
    return AdminServiceStub(channel)  # type: ignore[no-untyped-call]


async def refused(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return caught.value.code(), caught.value.details() or ""


async def test_episodes_are_shown(admin: AdminServiceStub, store: EpisodeStore) -> None:
    await store.move(1, State.SAMPLING)
    got = await admin.GetEpisode(messages.GetEpisodeRequest(number=0), timeout=10)
    assert (got.episode.run, got.episode.number, got.episode.prompts) == (store.run, 1, 4)
    assert got.episode.state == messages.EPISODE_STATE_SAMPLING
    listed = await admin.ListEpisodes(messages.ListEpisodesRequest(run=store.run), timeout=10)
    assert [episode.number for episode in listed.episodes] == [1, 2]
    assert listed.episodes[0] == got.episode


async def test_pause_and_resume(
    admin: AdminServiceStub, store: EpisodeStore, redis_url: str
) -> None:
    queues = await RunQueues.open(redis_url, store.run, QueueSettings())
    await store.move(1, State.SAMPLING)
    await queues.dispatch(1, prompts(store.run, 2))
    request = messages.PauseEpisodeRequest(reason="look", request_id="p1", actor="ada")
    paused = await admin.PauseEpisode(request, timeout=10)
    assert paused.episode.state == messages.EPISODE_STATE_PAUSING
    assert paused.episode.in_flight == 2
    assert paused.episode.last_change.actor == "ada"
    await finish_all(queues)
    got = await admin.GetEpisode(messages.GetEpisodeRequest(number=1), timeout=10)
    assert got.episode.state == messages.EPISODE_STATE_PAUSED
    assert await admin.PauseEpisode(request, timeout=10) == paused
    resumed = await admin.ResumeEpisode(
        messages.ResumeEpisodeRequest(reason="fine", request_id="r1"), timeout=10
    )
    assert resumed.episode.state == messages.EPISODE_STATE_SAMPLING
    assert resumed.episode.last_change.actor.startswith("ipv4:127.0.0.1")
    await queues.close()


async def test_refusals_have_their_codes(admin: AdminServiceStub, store: EpisodeStore) -> None:
    pause, resume = messages.PauseEpisodeRequest, messages.ResumeEpisodeRequest
    code, text = await refused(
        admin.ResumeEpisode(resume(number=1, reason="r", request_id="a"), timeout=10)
    )
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert text.startswith("episode 1 is PENDING")
    for call in (
        admin.GetEpisode(messages.GetEpisodeRequest(number=9), timeout=10),
        admin.PauseEpisode(pause(number=9, reason="r", request_id="b"), timeout=10),
    ):
        assert (await refused(call))[0] == grpc.StatusCode.NOT_FOUND
    for request, name in (
        (pause(number=1, request_id="c"), "reason"),
        (pause(number=1, reason="r"), "request_id"),
        (pause(number=1, reason=" ", request_id="c"), "reason"),
    ):
        code, text = await refused(admin.PauseEpisode(request, timeout=10))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert name in text
    assert (await refused(admin.ResumeEpisode(resume(number=1), timeout=10)))[0] == (
        grpc.StatusCode.INVALID_ARGUMENT
    )
    assert {episode.state for episode in await store.list()} == {messages.EPISODE_STATE_PENDING}


async def test_workers_are_shown_and_scaled(admin: AdminServiceStub, workers: FakeWorkers) -> None:
    scale = messages.ScaleWorkersRequest
    listed = await admin.ListWorkers(messages.ListWorkersRequest(), timeout=10)
    assert list(listed.workers) == workers.list()
    rollout = {"kind": messages.WORKER_KIND_ROLLOUT, "reason": "more GPUs"}
    scaled = await admin.ScaleWorkers(scale(count=5, request_id="a", **rollout), timeout=10)
    assert [each.name for each in scaled.workers] == [f"rollout-{n}" for n in range(5)]
    assert scaled.note == "they wait for nodes"
    (change,) = workers.changes
    assert (change.reason, change.request_id) == ("more GPUs", "a")
    for request in (
        scale(count=0, request_id="b", **rollout),
        scale(count=1, request_id="b", reason="r"),
        scale(count=1, **rollout),
    ):
        code, _ = await refused(admin.ScaleWorkers(request, timeout=10))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
    pairing = scale(kind=messages.WORKER_KIND_PAIRING, count=2, reason="r", request_id="c")
    assert await refused(admin.ScaleWorkers(pairing, timeout=10)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "no pairing worker is up yet; ask again",
    )
    assert workers.count == 5


async def test_another_run_is_not_found(admin: AdminServiceStub, store: EpisodeStore) -> None:
    other = "not-" + store.run
    known = ", ".join(run.id for run in (await admin.ListRuns(messages.ListRunsRequest())).runs)
    watch = admin.Watch(messages.WatchRequest(run=other), timeout=10)
    for call in (
        admin.GetEpisode(messages.GetEpisodeRequest(run=other), timeout=10),
        admin.ListEpisodes(messages.ListEpisodesRequest(run=other), timeout=10),
        admin.PauseEpisode(
            messages.PauseEpisodeRequest(run=other, reason="r", request_id="a"), timeout=10
        ),
        admin.ListDeadLetters(messages.ListDeadLettersRequest(run=other), timeout=10),
        admin.RetryDeadLetters(
            messages.RetryDeadLettersRequest(run=other, reason="r", request_id="a"), timeout=10
        ),
        anext(aiter(watch)),
    ):
        assert await refused(call) == (
            grpc.StatusCode.NOT_FOUND,
            f"there is no run {other}; name one of {known}",
        )


async def seen(watch: object, history: list[tuple[int, str]]) -> None:
    async for response in watch:  # type: ignore[attr-defined]
        if response.HasField("run"):
            continue
        name = messages.EpisodeState.Name(response.episode.state)
        history.append((response.episode.number, name.removeprefix("EPISODE_STATE_")))


async def until(history: list[tuple[int, str]], event: tuple[int, str]) -> None:
    async with asyncio.timeout(20):
        while event not in history:
            await asyncio.sleep(0.01)


async def test_a_watch_shows_every_change(admin: AdminServiceStub, store: EpisodeStore) -> None:
    history: list[tuple[int, str]] = []
    watch = admin.Watch(messages.WatchRequest(run=store.run), timeout=60)
    watching = asyncio.create_task(seen(watch, history))
    await until(history, (2, "PENDING"))
    await all_sampled(store, 1)
    for to in (State.SAMPLING, State.TRAINING, State.PUBLISHING, State.COMPLETED):
        await store.move(1, to)
        await until(history, (1, to))
    await store.move(2, State.CANCELLED)
    await until(history, (2, "CANCELLED"))
    watching.cancel()
    assert history == [
        (1, "PENDING"), (2, "PENDING"), (1, "SAMPLING"), (1, "TRAINING"), (1, "PUBLISHING"),
        (1, "COMPLETED"), (2, "CANCELLED"),
    ]  # fmt: skip


async def test_a_watch_goes_on_from_a_position(
    admin: AdminServiceStub, store: EpisodeStore
) -> None:
    async def first(position: str, count: int) -> list[messages.WatchResponse]:
        watch = admin.Watch(messages.WatchRequest(run=store.run, position=position), timeout=20)
        coming = aiter(watch)
        found = [await anext(coming) for _ in range(count)]
        watch.cancel()
        return found

    run, one, two = await first("", 3)
    assert run.run.id == store.run
    assert (one.episode.number, two.episode.number) == (1, 2)
    await store.move(1, State.SAMPLING)
    (changed,) = await first(two.position, 1)
    assert (changed.episode.number, changed.episode.state) == (1, messages.EPISODE_STATE_SAMPLING)
    again = await first(one.position, 2)
    assert sorted(each.episode.number for each in again) == [1, 2]
    everything = await first("1234.99", 3)  # of a server that is no more
    assert [each.WhichOneof("changed") for each in everything].count("run") == 1


async def test_episodes_come_in_pages_and_by_state(redis_url: str, run_name: str) -> None:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(7, 4, published=3)

    async def pages(admin: AdminServiceStub, size: int, *states: int) -> list[list[int]]:
        found, token = [], ""
        while True:
            request = messages.ListEpisodesRequest(page_size=size, page_token=token, states=states)
            answer = await admin.ListEpisodes(request, timeout=10)
            found.append([each.number for each in answer.episodes])
            token = answer.next_page_token
            if not token:
                return found

    async with (
        admin_of(redis_url, run_name) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        admin = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        assert await pages(admin, 0) == [[1, 2, 3, 4, 5, 6, 7]]
        assert await pages(admin, 3) == [[1, 2, 3], [4, 5, 6], [7]]
        assert await pages(admin, 2, messages.EPISODE_STATE_COMPLETED) == [[1, 2], [3]]
        assert await pages(admin, 3, messages.EPISODE_STATE_FAILED) == [[]]
        for wrong in ({"page_size": 1001}, {"page_token": "x"}, {"page_token": "-1"}):
            request = messages.ListEpisodesRequest(**wrong)
            code, text = await refused(admin.ListEpisodes(request, timeout=10))
            assert code == grpc.StatusCode.INVALID_ARGUMENT
            assert text.startswith(next(iter(wrong)))
    await store.close()


async def test_a_watch_sees_the_last_change_when_the_server_stops(
    server: tuple[AdminServer, str], admin: AdminServiceStub, store: EpisodeStore
) -> None:
    history: list[tuple[int, str]] = []
    watch = admin.Watch(messages.WatchRequest(run=store.run), timeout=60)
    watching = asyncio.create_task(seen(watch, history))
    await until(history, (2, "PENDING"))
    await store.move(1, State.FAILED, messages.Change(reason="died"))
    await server[0].stop(grace_s=10.0)
    await asyncio.wait_for(watching, 20)
    assert history[-1] == (1, "FAILED")
    assert await watch.code() == grpc.StatusCode.OK


async def test_health_and_reflection(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([request]), timeout=10
    )
    async for response in stream:
        names = {service.name for service in response.list_services_response.service}
    assert {NAME, "grpc.health.v1.Health"} <= names


async def test_a_taken_port_names_the_key(server: tuple[AdminServer, str], redis_url: str) -> None:
    port = int(server[1].rsplit(":", 1)[1])
    with pytest.raises(UnreachableError, match=rf"127\.0\.0\.1:{port}.*admin\.port") as caught:
        async with admin_of(redis_url, "another", AdminSettings(port=port)):
            pass
    assert "\n" not in str(caught.value)


async def test_a_silent_redis_is_unavailable(redis_url: str) -> None:
    runs = await SilentRuns.open(redis_url, 5.0)
    async with serving(runs) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        code, text = await refused(stub.ListEpisodes(messages.ListEpisodesRequest(), timeout=10))
    assert (code, text) == (
        grpc.StatusCode.UNAVAILABLE,
        "Redis at redis://x:1 does not answer",
    )
    await runs.close()
