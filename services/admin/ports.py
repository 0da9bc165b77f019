"""The boundary between the admin API and whatever keeps the episodes."""

from collections.abc import Sequence
from typing import Protocol

from pairloop.admin.v1.admin_pb2 import Change, DeadLetter, Episode


class Episodes(Protocol):
    """The episodes of one run. Every method may raise UnreachableError."""

    @property
    def run(self) -> str:
        """The run's name."""

    async def get(self, number: int) -> Episode:
        """One episode, 0 for the current one. Raises UnknownEpisodeError."""

    async def list(self) -> list[Episode]:
        """Every episode, in order."""

    async def pause(self, number: int, change: Change) -> Episode:
        """Pause an episode, 0 for the current or next one; idempotent by change.request_id.

        Raises StateError when its state does not allow it, UnknownEpisodeError.
        """

    async def resume(self, number: int, change: Change) -> Episode:
        """Resume an episode, 0 for the paused one; idempotent by change.request_id.

        Raises StateError when its state does not allow it, UnknownEpisodeError.
        """

    async def dead_letters(self, number: int) -> Sequence[DeadLetter]:
        """The prompts that kept failing, oldest first, 0 for every episode's.

        Raises UnknownEpisodeError.
        """

    async def replay(self, number: int) -> int:
        """Try them again, 0 for those of every episode that is still sampled; how many.

        Raises StateError when the episode's state does not allow it, UnknownEpisodeError.
        """
