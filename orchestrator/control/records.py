"""What runs have written into their folders, as an admin server shows it: the port Records.

Files are read in threads, a few at a time: a server may be in the process of a run, whose own work
shall not wait for people who look.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from orchestrator.control.config_shown import config_shown
from orchestrator.control.curves import CurveReader
from orchestrator.control.pair_pages import pair_page
from orchestrator.control.proof_shown import proven
from orchestrator.control.run_folder import RunFolder
from pairloop.admin.v1.admin_pb2 import Curve, GetLedgerProofResponse, Pair, Run
from services.admin.ports import Page

T = TypeVar("T")
_AT_ONCE = 2
_KEPT = 4
"""Runs whose curves are kept: those that somebody looks at."""


class RecordReader:
    """Of one server, for all its runs."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, "records")
        self._curves: OrderedDict[str, CurveReader] = OrderedDict()

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def of(self, run: Run) -> "FolderRecords":
        """The records of a run; nothing is read yet."""
        return FolderRecords(self, run)

    async def read(self, run: Run, read: Callable[[RunFolder], T]) -> T:
        """`read` in a thread, on the run's folder. Raises StateError where it is not visible."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: read(RunFolder(run)))

    def curves(self, run: Run) -> CurveReader:
        """The one that has read this run's already."""
        reader = self._curves.setdefault(run.id, CurveReader())
        self._curves.move_to_end(run.id)
        while len(self._curves) > _KEPT:
            self._curves.popitem(last=False)
        return reader


class FolderRecords:
    """Of one run; see services.admin.ports.Records."""

    def __init__(self, reader: RecordReader, run: Run) -> None:
        self._reader, self._run = reader, run

    async def pairs(self, episode: int, size: int, token: str) -> Page[Pair]:
        """In the order they are trained."""
        return await self._reader.read(
            self._run, lambda folder: pair_page(folder, episode, size, token)
        )

    async def config(self) -> str:
        """YAML, without secrets."""
        return await self._reader.read(self._run, config_shown)

    async def curves(self) -> Sequence[Curve]:
        """Of every stage."""
        return await self._reader.read(self._run, self._reader.curves(self._run).curves)

    async def proof(self) -> GetLedgerProofResponse:
        """Of every online stage."""
        return await self._reader.read(self._run, proven)
