"""Redis, its clock, and Ray: what answers, and whether a run can rely on it."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.checks.addresses import check_ray
from orchestrator.doctor.finding import Finding, problem_of, told
from orchestrator.doctor.subject import Subject
from services.errors import PairloopError
from services.queues.connection import close, opened
from services.queues.embedded import EmbeddedRedis
from services.queues.endpoint import endpoint_of
from services.queues.refusals import AwayError, silent
from services.queues.server_check import Server, doubts
from services.queues.settings import QueueSettings
from services.telemetry.format import size

_APART_S = 2.0
"""Of two clocks: more makes what several machines record hard to compare."""


def check_redis(subject: Subject) -> Iterator[Finding]:
    """Each server that the run uses; where none is named, that the embedded one starts."""
    for queues in subject.queues:
        try:
            if queues.configured_url:
                began = time.time()
                servers = asyncio.run(_servers(queues.configured_url, queues.connect_timeout_s))
                yield from answered(servers)
                yield from clocks(servers, began, time.time())
            else:
                yield from answered(_embedded(queues), embedded=True)
        except AwayError as error:
            advice = str(error).removeprefix(f"{error.what}: ")
            yield Finding("redis", "problem", error.what, advice)
        except PairloopError as error:
            yield problem_of("redis", error, "check queues.url or REDIS_URL (docs/config.md)")


def check_cluster(subject: Subject) -> Iterator[Finding]:
    """The Ray that is named, if one is."""
    if not subject.cluster:
        yield Finding("ray", "ok", "no cluster is named: a run starts a local one")
        return
    try:
        check_ray(subject.ray)
    except PairloopError as error:
        yield problem_of("ray", error, "change ray.address or RAY_ADDRESS")
        return
    if subject.cluster == "auto":
        yield Finding("ray", "ok", "auto: a run looks for one on this machine")
    else:
        yield Finding("ray", "ok", f"answers at {subject.cluster}")


def answered(servers: Sequence[Server], *, embedded: bool = False) -> Iterator[Finding]:
    """What the servers of one address are, and what a run is to be warned of."""
    warnings = doubts(servers)
    for text in warnings:
        yield told("redis", "warning", text, "ask its operator")
    if not warnings:
        first = servers[0]
        where = "(embedded) starts" if embedded else f"at {first.address}"
        several = f", {len(servers)} primaries" if len(servers) > 1 else ""
        yield Finding("redis", "ok", f"{first.version} {where}{several}; {_kept(first)}")


def clocks(servers: Sequence[Server], began: float, ended: float) -> Iterator[Finding]:
    """The servers' clocks, asked between two times of ours; none for one that may not tell."""
    for server in servers:
        microseconds = (server.info or {}).get("server_time_usec")
        if microseconds is None:
            continue
        theirs = float(microseconds) / 1e6
        apart = max(began - theirs, theirs - ended, 0.0)
        if apart <= _APART_S:
            text = f"within {_APART_S:g} s of Redis at {server.address}"
            yield Finding("clock", "ok", text)
        else:
            side = "ahead of" if theirs < began else "behind"
            text = f"{apart:,.0f} s {side} Redis at {server.address}"
            yield Finding("clock", "warning", text, "let both machines keep time by NTP")


def _kept(server: Server) -> str:
    """Its settings that matter, in words."""
    info = server.info or {}
    policy, most = info.get("maxmemory_policy", "noeviction"), int(info.get("maxmemory", 0))
    file = "append-only file" if int(info.get("aof_enabled", 0)) else "snapshots alone"
    limit = f" of {size(most)} at most" if most else ""
    return f"{file}, {size(float(info.get('used_memory', 0)))} in use{limit}, {policy}"


def _embedded(queues: QueueSettings) -> list[Server]:
    """What one says that is started on a folder of its own, and ended."""
    with tempfile.TemporaryDirectory(prefix="pairloop-doctor-") as folder:
        server = EmbeddedRedis.start(Path(folder), queues.fsync)
        try:
            return asyncio.run(_servers(server.url, queues.connect_timeout_s))
        finally:
            server.stop()


async def _servers(url: str, timeout_s: float) -> list[Server]:
    """As services.queues.client.look, whole."""
    endpoint = endpoint_of(url)
    try:
        async with asyncio.timeout(timeout_s):
            connection, servers = await opened(endpoint, timeout_s)
    except TimeoutError as error:
        raise silent(endpoint.shown) from error
    await close(connection)
    return servers
