"""The lease on a run: one orchestrator works on it, and what an older one started is refused.

Whoever takes it gets an epoch, higher than every one before. Each script that changes the run
carries its caller's epoch and does nothing for one that is not the newest (lua/common.lua), so an
orchestrator that stood still while another took over, and every worker that it started, finds its
next change refused.
"""

import asyncio
import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn, Self

from services.errors import ReplacedError, StateError, UnreachableError
from services.queues.client import Client, connect
from services.queues.keys import Keys

_RENEWALS = 3.0
"""A lease is renewed so many times in the time that it lasts."""
_POLL_S = 0.5


@dataclass(frozen=True)
class Holder:
    """Who holds a run."""

    host: str
    boot: str
    """Of that host's kernel: two containers may have one name."""
    pid: int
    since: str

    @classmethod
    def this_process(cls) -> Self:
        """Since now."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), _boot(), os.getpid(), since)

    @property
    def gone(self) -> bool:
        """Whether it ran on this machine and its process has ended."""
        here = (self.host, self.boot) == (socket.gethostname(), _boot())
        return here and not Path(f"/proc/{self.pid}").exists()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLease:
    """On one run. Made by `take`."""

    def __init__(self, client: Client, run: str, lasts_s: float) -> None:
        self._client, self._run, self._lasts_s = client, run, lasts_s
        self._keys = [Keys(run).lease, Keys(run).epoch]
        self._token = uuid.uuid4().hex
        self._holder = json.dumps(asdict(Holder.this_process()))
        self.epoch = 0
        """Of this orchestrator; at least 1."""

    @classmethod
    async def take(
        cls,
        url: str,
        run: str,
        lasts_s: float,
        timeout_s: float,
        waiting: Callable[[str], None] = lambda who: None,
    ) -> Self:
        """Take the run; where its last holder ended without a word, wait until the lease runs out.

        `waiting` is told for whom. Raises StateError when somebody renews it, UnreachableError
        when Redis does not answer.
        """
        lease = cls(await connect(url, timeout_s, (Keys(run).epoch, 0)), run, lasts_s)
        try:
            await lease._take(waiting)
        except BaseException:
            await lease._client.close()
            raise
        return lease

    async def keep(self) -> NoReturn:
        """Renew it for ever. Raises ReplacedError when another orchestrator took the run."""
        while True:
            await asyncio.sleep(self._lasts_s / _RENEWALS)
            # Nobody can take over on a server that does not answer.
            with contextlib.suppress(UnreachableError):
                taken = await self._client.script(
                    "keep_lease", self._keys, [*self._said(), self.epoch]
                )
                if taken:
                    raise ReplacedError(f"run {self._run} was taken over by {_named(taken)}")

    async def end(self) -> None:
        """Let the run go: whoever wants it next need not wait."""
        with contextlib.suppress(UnreachableError):
            await self._client.script("end_lease", self._keys[:1], [self._token])
        await self._client.close()

    async def _take(self, waiting: Callable[[str], None]) -> None:
        told, left_before, force = False, None, 0
        while True:
            reply = await self._client.script("lease", self._keys, [*self._said(), force])
            if reply[0]:
                self.epoch = int(reply[0])
                return
            holder, left = _named(reply[1]), int(reply[2])
            if left_before is not None and left > left_before:
                raise StateError(
                    f"run {self._run} is held by {holder}: wait for its end, or end it"
                )
            left_before, force = left, int(Holder(**json.loads(reply[1])).gone)
            if not told and not force:
                waiting(holder)
                told = True
            await asyncio.sleep(0 if force else _POLL_S)

    def _said(self) -> list[str | int]:
        return [self._token, self._holder, int(self._lasts_s * 1000)]


def _named(holder: bytes) -> str:
    try:
        return str(Holder(**json.loads(holder)))
    except ValueError:
        return holder.decode(errors="replace")


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux: then by the day it was started, about
        return str(int(time.time() - time.monotonic()) // 60)
