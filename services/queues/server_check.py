"""Whether a run can rely on a Redis server, by what that says of itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import ConfigError, UnreachableError

_OLDEST = (6, 2)
_MB = 1e6


@dataclass(frozen=True)
class Server:
    """One server that takes writes."""

    address: str
    version: str
    mode: str
    """"standalone", "cluster" or "sentinel"."""
    info: Mapping[str, Any] | None
    """What INFO answers; None where the user may not ask."""
    snapshots: str | None = None
    """Without an append-only file, when it saves its data: "" for never; None: it does not say."""


def require(server: Server) -> None:
    """UnreachableError or ConfigError for a server that would not do."""
    if server.mode == "sentinel":
        raise ConfigError(
            f"queues.url: a Sentinel answers at {server.address}; write"
            " redis+sentinel://host:port/service"
        )
    if tuple(int(part) for part in server.version.split(".")[:2]) < _OLDEST:
        raise UnreachableError(
            f"Redis at {server.address} is {server.version}: 6.2 or newer is needed"
        )
    info = server.info or {}
    most, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", "noeviction"))
    if most and policy != "noeviction":
        raise ConfigError(
            f"Redis at {server.address} lets go of keys when its {most / _MB:.0f} MB are full"
            f" (maxmemory-policy {policy}), and prompts would be lost with them; set"
            " maxmemory-policy noeviction there"
        )


def doubts(servers: Sequence[Server]) -> list[str]:
    """What a run is to be warned of, a line each."""
    silent = [server.address for server in servers if server.info is None]
    found = []
    if silent:
        found.append(
            f"Redis at {', '.join(silent)} does not let its user ask INFO: whether it lets go of"
            " keys, or forgets them in a restart, is not known; ACL SETUSER ... +info allows it"
        )
    for snapshots, what in ((None, "may keep nothing on disk"), ("", "keeps nothing on disk")):
        forgetful = [
            server.address
            for server in servers
            if server.info is not None
            and not int(server.info.get("aof_enabled", 0))
            and server.snapshots == snapshots
        ]
        if forgetful:
            found.append(
                f"Redis at {', '.join(forgetful)} {what} (no append-only file,"
                f" {'no snapshots' if snapshots == '' else 'snapshots not told'}): what no"
                " checkpoint holds is lost when it restarts, and made again; set appendonly yes"
            )
    return found
