"""A run is held between two steps, whatever its stage, until somebody lets it go on.

    before a stage      it does not begin
    in a training       the workers see the file after a step, write a checkpoint and wait
                        (services/learner/train/hold.py)
    in an online stage  the current episode, or the next one, is paused

The file outlives the process: the same command comes up held. A stop holds a training as well, for
as long as its checkpoint takes.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from google.protobuf import json_format

from orchestrator.episodes import EpisodeStore
from pairloop.admin.v1 import admin_pb2 as messages
from services.errors import StateError, UnreachableError
from services.learner.train.durable import replaced_file
from services.learner.train.hold import held_at
from services.states import HELD, State, state_of
from services.telemetry.record.events import EpisodeChanged, Event, StageHeld, TrainProgress
from services.telemetry.record.state import RunState

_FILE = ".hold"
_OF_THE_RUN = "run:"
"""Begins the request id of a pause of an episode that came with the run's."""
_LOOK_S = 0.1
Say = Callable[[str], None]


class RunHold:
    """Of one run; for use on its event loop."""

    def __init__(self, folder: Path, own: messages.Run, say: Say = lambda text: None) -> None:
        self.file = folder / _FILE
        self._own, self.say = own, say
        self._episodes: EpisodeStore | None = None
        self._training = ""
        """The stage that has taken a step in this attempt."""
        held_at(self.file).unlink(missing_ok=True)
        if change := _kept(self.file):
            own.last_change.CopyFrom(change)
            own.state = messages.RUN_STATE_PAUSING
        else:
            self.file.unlink(missing_ok=True)  # of a stop that was cut off

    @property
    def wanted(self) -> bool:
        """Whether somebody holds it."""
        return self.file.exists()

    async def pause(self, change: messages.Change) -> None:
        """Hold it. Raises OSError when that cannot be written down."""
        if not self.wanted:
            self._own.state = messages.RUN_STATE_PAUSING
            self.say(f"the run pauses after this step, by {change.actor}: {change.reason}")
        self._keep(change)
        await self._pause_episode(change)

    async def resume(self, change: messages.Change) -> None:
        """Let it go on. Raises StateError where nobody holds it."""
        if not self.wanted:
            raise StateError("the run is not paused")
        self.file.unlink()
        self._own.state = messages.RUN_STATE_RUNNING
        self.say(f"the run goes on, by {change.actor}: {change.reason}")
        await self._resume_episode(change)

    async def passed(self) -> None:
        """Return once nobody holds it: before a stage."""
        if not self.wanted:
            return
        self._own.state = messages.RUN_STATE_PAUSED
        change = _kept(self.file) or messages.Change()
        self.say(f"the run is paused, by {change.actor}: {change.reason}")
        while self.wanted:
            await asyncio.sleep(_LOOK_S)

    @contextlib.asynccontextmanager
    async def over(self, episodes: EpisodeStore) -> AsyncIterator[None]:
        """While this lasts, the episodes are what is paused."""
        self._episodes = episodes
        change = _kept(self.file)
        await (self._pause_episode(change) if change else self._resume_episode(messages.Change()))
        try:
            yield
        finally:
            self._episodes = None

    def start(self) -> None:
        """As a listener of the recorder's."""

    def stop(self) -> None:
        """As a listener of the recorder's."""

    def handle(self, event: Event, state: RunState) -> None:
        """What happens in the run: is it held by now?"""
        if isinstance(event, TrainProgress):
            self._training = event.stage
        elif isinstance(event, StageHeld | EpisodeChanged) and self.wanted:
            held = event.held if isinstance(event, StageHeld) else event.state == State.PAUSED
            self._own.state = messages.RUN_STATE_PAUSED if held else messages.RUN_STATE_PAUSING

    async def checkpointed(self, stage: str, timeout_s: float) -> None:
        """Before a training of steps is ended: a checkpoint of the step at work, if it comes in
        time. One that has taken no step in this attempt has nothing to keep."""
        if self._training != stage or timeout_s <= 0:
            return
        mine = not self.wanted
        if mine:
            self.file.write_text("{}", encoding="utf-8")
        try:
            async with asyncio.timeout(timeout_s):
                while not held_at(self.file).exists():
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            self.say(f"{stage}: no checkpoint within {timeout_s:g} s; it goes on from the last one")
        finally:
            if mine:
                self.file.unlink(missing_ok=True)

    def _keep(self, change: messages.Change) -> None:
        with replaced_file(self.file) as file:
            file.write(json_format.MessageToJson(change, indent=None).encode())

    async def _pause_episode(self, change: messages.Change) -> None:
        if self._episodes is None:
            return
        mine = messages.Change()
        mine.CopyFrom(change)
        mine.request_id = _OF_THE_RUN + change.request_id
        # None is left to pause: the stage ends, and the next one does not begin.
        with contextlib.suppress(StateError):
            await self._episodes.pause(0, mine)

    async def _resume_episode(self, change: messages.Change) -> None:
        """The one that was paused with the run; one that was paused by itself stays so."""
        if self._episodes is None:
            return
        with contextlib.suppress(StateError, UnreachableError):
            for episode in await self._episodes.list():
                ours = episode.last_change.request_id.startswith(_OF_THE_RUN)
                if ours and state_of(episode) in HELD:
                    mine = messages.Change()
                    mine.CopyFrom(change)
                    mine.request_id = f"{_OF_THE_RUN}{change.request_id}:{episode.number}"
                    await self._episodes.resume(episode.number, mine)


def _kept(file: Path) -> messages.Change | None:
    """Who holds the run; None where nobody does."""
    try:
        text = file.read_text(encoding="utf-8")
        change = json_format.Parse(text, messages.Change(), ignore_unknown_fields=True)
    except (OSError, json_format.ParseError):
        return None
    return change if change.request_id else None
