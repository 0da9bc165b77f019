"""What a run's queues hold at this moment, for who watches it."""

from dataclasses import dataclass
from typing import Self

from services.queues.client import Client, connect
from services.queues.keys import Keys


@dataclass(frozen=True)
class Backlog:
    """Of one moment."""

    entries: dict[str, int]
    """Of the streams "prompts" and "rollouts": what waits and what is worked on."""
    dead_letters: int
    credits_in_use: int
    memory_bytes: int | None
    """Of the whole server; None where its user may not ask INFO."""
    max_memory_bytes: int
    """0: no limit."""


class BacklogReader:
    """Made by `open`. It waits for no server that is away: who watches wants to know that."""

    def __init__(self, client: Client, run: str) -> None:
        self._client, self._keys = client, Keys(run)

    @classmethod
    async def open(cls, url: str, run: str, timeout_s: float) -> Self:
        """Connect. Raises UnreachableError."""
        return cls(await connect(url, timeout_s, (Keys(run).epoch, 0)), run)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def read(self) -> Backlog:
        """One round trip. Raises UnreachableError."""
        keys = self._keys
        asked = [keys.stream("prompts"), keys.stream("rollouts"), keys.dead, keys.credits]
        prompts, rollouts, dead, used, memory = await self._client.script("backlog", asked)
        said = dict(line.split(":", 1) for line in memory.decode().splitlines() if ":" in line)
        return Backlog(
            entries={"prompts": prompts, "rollouts": rollouts},
            dead_letters=dead,
            credits_in_use=used,
            memory_bytes=int(said["used_memory"]) if said else None,
            max_memory_bytes=int(said.get("maxmemory", 0)),
        )
