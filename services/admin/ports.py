"""The boundaries between the admin API and whatever keeps the episodes and the workers."""

from collections.abc import Sequence
from typing import Protocol

from pairloop.admin.v1.admin_pb2 import Change, DeadLetter, Episode, Worker, WorkerKind


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


class Workers(Protocol):
    """The workers of one run: whatever decides how many there are, a person or a policy, asks here.

    Raises StateError while the run starts or ends.
    """

    def list(self) -> Sequence[Worker]:
        """Every worker, by kind."""

    def scale(self, kind: WorkerKind, count: int, change: Change) -> str:
        """Have so many of a kind, 1 or more; idempotent by change.request_id.

        Returns what there is to say of it, such as that the cluster has no room for them yet.
        """
