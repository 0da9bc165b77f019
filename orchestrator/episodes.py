"""The episodes of a run: one table of moves, one durable store.

    PENDING -> SAMPLING -> TRAINING -> PUBLISHING -> COMPLETED
       |         |  ^
       |      PAUSING | resume
       |         v  |
       +------> PAUSED          FAILED and CANCELLED end an episode from where TRANSITIONS says

`TRANSITIONS` decides every move. A move is a compare-and-set in Redis, so two that race cannot
both succeed. One step is not asked for by anyone: PAUSING becomes PAUSED in the same script that
brings `in_flight` to zero, so it needs no live orchestrator.
"""

import uuid
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp
from pairloop.admin.v1.admin_pb2 import Change, Episode, EpisodeState

from services.errors import StateError, UnknownEpisodeError
from services.queues.episodes import Answer, EpisodeRecords

_RACES = 10
"""Times a change is tried again because the state moved under it."""


class State(StrEnum):
    """Of an episode; equal to the name in EpisodeState without its prefix."""

    PENDING = "PENDING"
    SAMPLING = "SAMPLING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    TRAINING = "TRAINING"
    PUBLISHING = "PUBLISHING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


TRANSITIONS: Mapping[State, tuple[State, ...]] = {
    State.PENDING: (State.SAMPLING, State.PAUSED, State.FAILED, State.CANCELLED),
    State.SAMPLING: (State.PAUSING, State.TRAINING, State.FAILED, State.CANCELLED),
    State.PAUSING: (State.PAUSED, State.SAMPLING, State.FAILED, State.CANCELLED),
    State.PAUSED: (State.SAMPLING, State.PENDING, State.FAILED, State.CANCELLED),
    State.TRAINING: (State.PUBLISHING, State.FAILED),
    State.PUBLISHING: (State.COMPLETED, State.FAILED),
    State.COMPLETED: (),
    State.FAILED: (),
    State.CANCELLED: (),
}
"""Where an episode may go. A paused one goes back to what it was paused from."""

_PAUSE = {State.PENDING: State.PAUSED, State.SAMPLING: State.PAUSING}
"""What pausing means; in every other state it is refused."""


def check_move(number: int, state: State, to: State) -> None:
    """Raises StateError, naming the state and the moves it allows, unless the table has it."""
    if to not in TRANSITIONS[state]:
        allowed = " or ".join(TRANSITIONS[state]) or "nothing: it is over"
        raise StateError(f"episode {number} is {state} and cannot become {to}: it can {allowed}")


class EpisodeStore:
    """The episodes of one run, durable in Redis. Every method may raise UnreachableError."""

    def __init__(self, records: EpisodeRecords, run: str) -> None:
        self.run = run
        self._records = records

    @classmethod
    async def open(cls, url: str, run: str, timeout_s: float) -> Self:
        """Connect to Redis, for use on the running event loop. Raises UnreachableError."""
        return cls(await EpisodeRecords.open(url, run, timeout_s), run)

    async def close(self) -> None:
        """Close the connections."""
        await self._records.close()

    async def create(self, count: int, prompts: int) -> None:
        """Make episodes 1 to `count` of `prompts` prompts each; those that are there stay.

        Raises StateError when the run was begun with another number of prompts or with more
        episodes.
        """
        before, planned = await self._records.create(count, prompts)
        if planned != prompts:
            raise StateError(
                f"run {self.run} was begun with {planned} prompts an episode: set "
                f"episodes.prompts to {planned}, or give this run a new name"
            )
        if before > count:
            raise StateError(
                f"run {self.run} has {before} episodes already: set episodes.count to {before} "
                "or more, or give this run a new name"
            )

    async def list(self) -> list[Episode]:
        """Every episode, in order."""
        return [
            _episode(self.run, number, fields)
            for number, fields in enumerate(await self._records.read(), start=1)
        ]

    async def get(self, number: int) -> Episode:
        """One episode; 0 is the current one: the first that is not over, else the last.

        Raises UnknownEpisodeError.
        """
        episodes = await self.list()
        if number:
            return self._find(episodes, number)
        for episode in episodes:
            if TRANSITIONS[state_of(episode)]:
                return episode
        return self._find(episodes, len(episodes))

    async def move(self, number: int, to: State, change: Change | None = None) -> Episode:
        """Move an episode. `change` says who asked and why; a FAILED one's error is its reason.

        Raises StateError when the table does not allow it, UnknownEpisodeError.
        """
        request = change.request_id if change and change.request_id else uuid.uuid4().hex

        def target(episodes: list[Episode]) -> tuple[Episode, State]:
            return self._find(episodes, number), to

        return await self._change(f"move:{number}:{to}", request, change, target)

    async def pause(self, number: int, change: Change) -> Episode:
        """Dispatch no more prompts of an episode; PAUSED once what is in flight is finished.

        0 is the current one, or the next when that trains or publishes already. The same
        `change.request_id` again changes nothing and answers the same. Raises StateError,
        UnknownEpisodeError.
        """

        def target(episodes: list[Episode]) -> tuple[Episode, State]:
            episode = self._find(episodes, number) if number else _to_pause(self.run, episodes)
            state = state_of(episode)
            return episode, _PAUSE.get(state, State.PAUSED if state != State.PAUSING else state)

        return await self._change(f"pause:{number}", change.request_id, change, target)

    async def resume(self, number: int, change: Change) -> Episode:
        """Let a paused episode go on from where it was paused; 0 is the first paused one.

        Idempotent by `change.request_id` as `pause` is. Raises StateError, UnknownEpisodeError.
        """

        def target(episodes: list[Episode]) -> tuple[Episode, State]:
            episode = self._find(episodes, number) if number else _to_resume(self.run, episodes)
            if state_of(episode) not in (State.PAUSED, State.PAUSING):
                raise StateError(
                    f"episode {episode.number} is {state_of(episode)}: only a PAUSED or PAUSING "
                    "one can be resumed"
                )
            # What it was paused from is known to the script alone
            return episode, State.SAMPLING

        return await self._change(f"resume:{number}", change.request_id, change, target)
