"""The runs that an admin server answers for: services.admin.ports.Runs.

It keeps nothing that Redis does not have, so that any number of servers may stand over one Redis,
and they answer for runs whose process is dead. The run whose process it is, it asks directly: that
one may have no Redis, or one of its own.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from orchestrator.control.audit_pages import AUDIT, audit_page, in_file
from orchestrator.control.live import WAITING, LiveRun, read, written
from orchestrator.control.records import RecordReader
from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1.admin_pb2 import AuditEntry as AuditRecord
from pairloop.admin.v1.admin_pb2 import Run, Worker
from services.admin.ports import Asked, AuditEntry, Page, Records
from services.errors import StateError, UnknownRunError, UnreachableError, used_before
from services.queues.mailbox import Letter
from services.queues.registry import Registry
from services.states import LIVE

_NAMED = 8
"""Runs named in an error, at most."""
_ANSWER_S = 10.0
"""A run looks for what is asked of it twice a second; while it loads a model it does nothing."""
_LOOK_S = 0.1


class RedisRuns:
    """Made by `open`, on the running event loop. Every method may raise UnreachableError."""

    def __init__(
        self,
        registry: Registry | None,
        url: str | None,
        timeout_s: float,
        live: LiveRun | None = None,
    ) -> None:
        """`live`: the run whose process this is; it alone is known without a registry."""
        self._registry, self._url, self._timeout_s = registry, url, timeout_s
        self._live = live
        self._stores: dict[tuple[str, str], EpisodeStore] = {}
        self._read = RecordReader()

    @classmethod
    async def open(cls, url: str | None, timeout_s: float, live: LiveRun | None = None) -> Self:
        """Connect. Raises UnreachableError."""
        registry = await Registry.open(url, timeout_s) if url else None
        return cls(registry, url, timeout_s, live)

    async def close(self) -> None:
        """Close the connections."""
        for store in self._stores.values():
            await store.close()
        self._read.close()
        if self._registry is not None:
            await self._registry.close()

    async def list(self) -> Sequence[Run]:
        """Every run, the latest first."""
        others = await self._registry.runs() if self._registry is not None else []
        if self._live is None:
            return others
        own = self._live.said()
        return [own, *(each for each in others if each.id != own.id)]

    async def find(self, run: str) -> Run:
        """By id, or by name where one alone has it; "": the own run, or the only one."""
        if self._live is not None and run in ("", self._live.own.id, self._live.own.name):
            return self._live.said()
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
        own = self._of_this_process(run)
        url = own.url if own is not None and own.url else self._url
        if not run.episodes or not url:
            raise StateError(f"run {run.id} has no episodes yet: its online stage has not begun")
        key = url, run.episodes
        store = self._stores.get(key)
        if store is None:
            store = await EpisodeStore.open(url, run.episodes, self._timeout_s)
            # Another call may have opened one meanwhile.
            kept = self._stores.setdefault(key, store)
            if kept is not store:
                await store.close()
            store = kept
        return store

    async def workers(self, run: Run) -> Sequence[Worker]:
        """Every worker, by kind; of another process as it said some seconds ago."""
        return run.workers

    async def carry_out(self, run: Run, asked: Asked) -> str:
        """Let the run do it; what there is to say of it.

        Raises StateError when it refuses, or is not there and it cannot wait until it is.
        """
        if (own := self._of_this_process(run)) is not None:
            return await own.carry_out(asked)
        there = run.state in LIVE
        if not there and asked.method not in WAITING:
            raise StateError(f"run {run.id} is not there; the same command goes on with it")
        if self._registry is None:
            raise UnknownRunError(f"there is no run {run.id} here")
        mailbox = self._registry.mailbox()
        letter = Letter(asked.change.request_id, written(asked))
        loop = asyncio.get_running_loop()
        until = loop.time() + (_ANSWER_S if there else 0.0)
        while True:
            reply = await mailbox.ask(run.id, letter)
            if read(reply.text).what != asked.what:
                raise used_before(letter.request_id)
            if reply.answer:
                answer = json.loads(reply.answer)
                if "error" in answer:
                    raise StateError(answer["error"])
                return str(answer["note"])
            if loop.time() >= until:
                break
            await asyncio.sleep(_LOOK_S)
        if there:
            raise UnreachableError(
                f"run {run.id} has not answered for {_ANSWER_S:g} s; it does this as soon as it"
                " hears of it: ask again with the same request id"
            )
        return f"run {run.id} is not there: it does so when the same command goes on"

    async def audit(self, entry: AuditEntry) -> None:
        """Keep what was changed, by whom and why."""
        if self._registry is not None:
            await self._registry.audit(entry.fields())
        elif self._live is not None:
            with (Path(self._live.own.folder) / AUDIT).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry.fields()) + "\n")

    async def audited(self, run: str, size: int, token: str) -> Page[AuditRecord]:
        """What was changed, the latest first."""
        if self._registry is not None:
            return await audit_page(self._registry.audited_before, run, size, token)
        if self._live is None:
            return Page([], "")
        return await audit_page(in_file(self._read, self._live.own), run, size, token)

    def records(self, run: Run) -> Records:
        """What it has written into its folder."""
        return self._read.of(run)

    def _of_this_process(self, run: Run) -> LiveRun | None:
        live = self._live
        return live if live is not None and live.own.id == run.id else None
