"""Callers that mean harm, or are broken: the admin API neither ends, nor grows, nor moves anything.

The server is a process of its own, so that what it holds can be measured.
"""

import asyncio
import contextlib
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from orchestrator.control.registration import own_run
from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1 import admin_pb2 as messages
from pairloop.admin.v1.admin_pb2_grpc import AdminServiceStub
from services.queues.registry import Registry

SERVICE = messages.DESCRIPTOR.services_by_name["AdminService"]
REQUESTS = 10_000
AT_ONCE = 64
WATCHES = 2500
MORE_BYTES = 200 << 20
"""That the process may grow by while all this goes on."""
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # too large
    grpc.StatusCode.UNIMPLEMENTED,  # no such method
    grpc.StatusCode.INTERNAL,  # no message of the method: gRPC's own answer
}


@dataclass
class Served:
    """A server of its own process, and what it may not touch."""

    address: str
    process: psutil.Process
    store: EpisodeStore

    def bytes(self) -> int:
        return int(self.process.memory_info().rss)


@pytest.fixture
async def served(redis_url: str, run_name: str, tmp_path: Any) -> AsyncIterator[Served]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(3, 4)
    await store.move(1, State.SAMPLING)
    registry = await Registry.open(redis_url, 5.0)
    run = own_run(run_name, "online_dpo", tmp_path)
    run.id = run.episodes = run_name
    await registry.say(run)
    command = [sys.executable, "-m", "orchestrator.cli.main", "serve", "--port", "0"]
    environment = {**os.environ, "REDIS_URL": redis_url}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            address = line.split(" at ")[1].split()[0]
            yield Served(address, psutil.Process(process.pid), store)
            assert process.poll() is None
        finally:
            process.terminate()
    await registry.close()
    await store.close()


def rubbish(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice((0, 1, 7, 64, 500, 5_000)))


def text(rng: random.Random) -> str:
    kind = rng.randrange(5)
    if kind == 0:
        return ""
    if kind == 1:
        return "".join(chr(rng.choice((0, 10, 27, 0x202E, 0x1F600, 0xE9))) for _ in range(9))
    if kind == 2:
        return "x" * rng.choice((501, 60_000))
    return rng.choice(("*", "../../etc/passwd", "pairloop:{runs}:said", "' OR 1=1 --", "{}", "-1"))


def nonsense(rng: random.Random, kind: type[Message]) -> bytes:
    """A message of the kind whose fields have values that nobody means."""
    made: Any = kind()
    for field in made.DESCRIPTOR.fields:
        if field.name == "reason" or rng.random() < 0.3:
            continue  # without a reason no change is made
        value: Any
        if field.type == FieldDescriptor.TYPE_STRING:
            value = text(rng)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            value = rng.choice((0, 1, 2, 8, 99, 2**31 - 1))
        else:
            value = rng.choice((0, 1, 3, 4, 2**31, 2**32 - 1))
        with contextlib.suppress(ValueError):  # no UTF-8
            if field.is_repeated:
                getattr(made, field.name).append(value)
            else:
                setattr(made, field.name, value)
    return made.SerializeToString()


def calls(rng: random.Random) -> tuple[str, bytes]:
    """A method and the bytes of a request."""
    method = rng.choice(SERVICE.methods)
    kind = getattr(messages, method.input_type.name)
    name = method.name if rng.random() < 0.95 else rng.choice(("", "Pause", "../GetRun", "é"))
    body = rubbish(rng) if rng.random() < 0.4 else nonsense(rng, kind)
    return f"/{SERVICE.full_name}/{name}", body


async def states(store: EpisodeStore) -> list[bytes]:
    return [episode.SerializeToString() for episode in await store.list()]


async def answers(address: str) -> None:
    """It still does its work."""
    async with grpc.aio.insecure_channel(address) as channel:
        admin = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        assert (await admin.ListRuns(messages.ListRunsRequest(), timeout=30)).runs


async def test_ten_thousand_malformed_requests_change_nothing(served: Served) -> None:
    rng = random.Random(0)
    before, held = await states(served.store), served.bytes()
    codes: Counter[grpc.StatusCode] = Counter()
    identity: Callable[[bytes], bytes] = bytes

    async def call(channel: grpc.aio.Channel, method: str, body: bytes) -> None:
        unary = channel.unary_unary(method, identity, identity)
        try:
            await unary(body, timeout=0.05 if method.endswith("Watch") else 30)
            codes[grpc.StatusCode.OK] += 1
        except grpc.aio.AioRpcError as error:
            codes[error.code()] += 1

    async with grpc.aio.insecure_channel(served.address) as channel:
        for _ in range(0, REQUESTS, AT_ONCE):
            batch = [calls(rng) for _ in range(AT_ONCE)]
            await asyncio.gather(*(call(channel, *each) for each in batch))
        big = b"\x0a" + b"\xff\xff\x3f" + b"x" * 1_000_000
        await call(channel, f"/{SERVICE.full_name}/PauseEpisode", big)
    assert codes.total() > REQUESTS
    # A watch of every run is no nonsense: it is open until its caller goes.
    allowed = REFUSED | {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert set(codes) <= allowed, codes
    for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED):
        assert codes[code], codes
    assert await states(served.store) == before
    assert served.bytes() - held < MORE_BYTES
    await answers(served.address)


async def test_bytes_that_are_no_http2_end_their_connection_alone(served: Served) -> None:
    rng = random.Random(1)
    host, port = served.address.split(":")

    def send(data: bytes) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, int(port)), 10) as connection,
        ):
            connection.sendall(data)
            connection.settimeout(0.05)
            connection.recv(100)

    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for _ in range(100):
        head = rng.choice((b"", preface, b"GET / HTTP/1.1\r\n\r\n", preface + bytes(9)))
        await asyncio.to_thread(send, head + rubbish(rng))
    await answers(served.address)


async def test_thousands_of_watches_and_slow_readers(served: Served) -> None:
    held = served.bytes()
    channels = [
        grpc.aio.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(10)
    ]
    open_: list[Any] = []
    told: Counter[str] = Counter()

    async def first(watch: Any) -> str:
        """Each takes one change and is slow from then on."""
        try:
            return str(type(await watch.read()).__name__)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)

    for start in range(0, WATCHES, 50):  # more at once, and gRPC itself lets some go
        for number in range(start, start + 50):
            admin = AdminServiceStub(channels[number % 10])  # type: ignore[no-untyped-call]
            open_.append(admin.Watch(messages.WatchRequest(run=served.store.run)))
        told.update(await asyncio.gather(*map(first, open_[start:])))
    assert told == {"WatchResponse": 2000, "RESOURCE_EXHAUSTED": WATCHES - 2000}
    for number in (1, 2, 3):
        await served.store.pause(number, messages.Change(request_id=f"p{number}", reason="r"))
        await served.store.resume(number, messages.Change(request_id=f"r{number}", reason="r"))
    await answers(served.address)
    for watch in open_:
        watch.cancel()
    for channel in channels:
        await channel.close()
    assert served.bytes() - held < MORE_BYTES
    async with grpc.aio.insecure_channel(served.address) as channel:
        admin = AdminServiceStub(channel)  # type: ignore[no-untyped-call]
        async with asyncio.timeout(30):
            while True:  # those that were let go have room for others
                watch = admin.Watch(messages.WatchRequest(run=served.store.run))
                try:
                    assert (await watch.read()).run.id == served.store.run
                    watch.cancel()
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.2)
