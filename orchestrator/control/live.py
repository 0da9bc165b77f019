"""The run whose process this is, as others see it, and what they ask of it."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import json_format
from google.protobuf.message import Message

from orchestrator.control.hold import RunHold
from pairloop.admin.v1 import admin_pb2 as messages
from services.admin.ports import Asked, Workers
from services.errors import PairloopError, StateError, UnreachableError, one_line, used_before

if TYPE_CHECKING:
    from orchestrator.online.staleness import Staleness

WAITING = ("PauseRun", "ResumeRun")
"""Asked of a run that is not there, these wait until the same command goes on."""
_NOT_NOW = "the run does not sample now: its online stage starts, ends, or has not begun"


@dataclass
class LiveRun:
    """One attempt at a run; its stages fill in what there is to ask."""

    own: messages.Run
    hold: RunHold
    workers: Workers | None = None
    """Of an online stage that is up."""
    staleness: "Staleness | None" = None
    """As `workers`."""
    url: str = ""
    """Of the Redis that its episodes are in."""
    stop: Callable[[], None] = field(default=lambda: os.kill(os.getpid(), signal.SIGTERM))
    """End it in order; returns at once."""
    called: Callable[[str], None] = field(default=lambda code: None)
    """Is told how each call of its admin API ended."""
    _answers: dict[str, tuple[str, str | PairloopError]] = field(default_factory=dict)

    def said(self) -> messages.Run:
        """What it says of itself at this moment."""
        del self.own.workers[:]
        if self.workers is not None:
            self.own.workers.extend(self.workers.list())
        self.own.ClearField("max_staleness")
        if self.staleness is not None:
            self.own.max_staleness = self.staleness.versions
        return self.own

    def idle(self) -> None:
        """Its online stage has ended."""
        self.workers = self.staleness = None

    async def carry_out(self, asked: Asked) -> str:
        """Do it once for its request id; what there is to say of it.

        Raises StateError, for another change with that id too.
        """
        if before := self._answers.get(asked.change.request_id):
            what, answer = before
            if what != asked.what:
                raise used_before(asked.change.request_id)
        else:
            try:
                answer = await self._do(asked)
            except PairloopError as error:
                answer = error
            except OSError as error:
                answer = UnreachableError(f"the run could not do it: {one_line(error)}")
            self._answers[asked.change.request_id] = asked.what, answer
        if isinstance(answer, PairloopError):
            raise answer
        return answer

    async def _do(self, asked: Asked) -> str:
        request = cast(Any, asked.request)
        match asked.method:
            case "PauseRun":
                await self.hold.pause(asked.change)
            case "ResumeRun":
                await self.hold.resume(asked.change)
            case "StopRun":
                self.hold.say(f"the run stops, by {asked.change.actor}: {asked.change.reason}")
                self.stop()
            case "ScaleWorkers":
                return self._workers().scale(request.kind, request.count, asked.change)
            case "DrainWorker":
                self._workers().drain(request.name, asked.change)
            case "SetStaleness":
                if self.staleness is None:
                    raise StateError(_NOT_NOW)
                return self.staleness.set(request.max_staleness, asked.change)
            case other:
                raise StateError(f"this run does not know {other}; it is of another version")
        if asked.method in ("PauseRun", "ResumeRun", "StopRun"):
            self.own.last_change.CopyFrom(asked.change)
        return ""

    def _workers(self) -> Workers:
        if self.workers is None:
            raise StateError(_NOT_NOW)
        return self.workers


def written(asked: Asked) -> str:
    """As a letter."""
    parts = (asked.method, *map(json_format.MessageToDict, (asked.request, asked.change)))
    return json.dumps(parts)


def read(text: str) -> Asked:
    """The opposite. Raises StateError for what another version wrote."""
    try:
        method, request, change = json.loads(text)
        kind: type[Message] = getattr(messages, f"{method}Request")
        return Asked(
            method,
            json_format.ParseDict(request, kind(), ignore_unknown_fields=True),
            json_format.ParseDict(change, messages.Change(), ignore_unknown_fields=True),
        )
    except (ValueError, AttributeError, json_format.ParseError) as error:
        raise StateError(f"what was asked is not understood: {one_line(error)}") from None
