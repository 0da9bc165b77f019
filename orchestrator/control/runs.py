"""The runs of a Redis as an admin server shows them: services.admin.ports.Runs.

It keeps nothing that Redis does not have, so that any number of servers may stand over one Redis,
and they answer for runs whose process is dead. A run's workers alone are asked for in its process.
"""

from collections.abc import Sequence
from typing import Self

from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1.admin_pb2 import Run
from services.admin.ports import AuditEntry, Workers
from services.errors import StateError, UnknownRunError
from services.queues.registry import Registry

_NAMED = 8
"""Runs named in an error, at most."""


class RedisRuns:
    """Made by `open`, on the running event loop. Every method may raise UnreachableError."""

    def __init__(
        self,
        registry: Registry,
        url: str,
        timeout_s: float,
        own: Run | None = None,
        workers: Workers | None = None,
    ) -> None:
        """`own`: the run whose process this is, with its workers."""
        self._registry, self._url, self._timeout_s = registry, url, timeout_s
        self._own, self._workers = own, workers
        self._stores: dict[str, EpisodeStore] = {}

    @classmethod
    async def open(
        cls,
        url: str,
        timeout_s: float,
        own: Run | None = None,
        workers: Workers | None = None,
    ) -> Self:
        """Connect. Raises UnreachableError."""
        return cls(await Registry.open(url, timeout_s), url, timeout_s, own, workers)

    async def close(self) -> None:
        """Close the connections."""
        for store in self._stores.values():
            await store.close()
        await self._registry.close()

    async def list(self) -> Sequence[Run]:
        """Every run, the latest first."""
        others = await self._registry.runs()
        if self._own is None:
            return others
        return [self._own, *(each for each in others if each.id != self._own.id)]

    async def find(self, run: str) -> Run:
        """By id, or by name where one alone has it; "": the own run, or the only one."""
        if self._own is not None and run in ("", self._own.id, self._own.name):
            return self._own
        runs = await self.list()
        found = [each for each in runs if each.id == run]
        found = found or [each for each in runs if run in ("", each.name)]
        if len(found) == 1:
            return found[0]
        ids = [each.id for each in found or runs]
        known = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
        if not runs:
            raise UnknownRunError("this Redis knows no run; one is listed once it has begun")
        if not run:
            raise UnknownRunError(f"there are {len(runs)} runs; name one of {known}")
        if found:
            raise UnknownRunError(f"{len(found)} runs are called {run}; name one of {known}")
        raise UnknownRunError(f"there is no run {run}; name one of {known}")

    async def episodes(self, run: Run) -> EpisodeStore:
        """Raises StateError for a run that has none yet."""
        if not run.episodes:
            raise StateError(f"run {run.id} has no episodes yet: its online stage has not begun")
        store = self._stores.get(run.episodes)
        if store is None:
            store = await EpisodeStore.open(self._url, run.episodes, self._timeout_s)
            # Another call may have opened one meanwhile.
            kept = self._stores.setdefault(run.episodes, store)
            if kept is not store:
                await store.close()
            store = kept
        return store

    def workers(self, run: Run) -> Workers:
        """Raises StateError for a run of another process."""
        if self._workers is None or run is not self._own:
            where = f"its own admin API, {run.address}" if run.address else "its own, once it runs"
            raise StateError(f"the workers of run {run.id} are asked for at {where}")
        return self._workers

    async def audit(self, entry: AuditEntry) -> None:
        """Keep what was changed, by whom and why."""
        await self._registry.audit(entry.fields())
