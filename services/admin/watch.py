"""Changes of episodes, for those who watch a run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from pairloop.admin.v1.admin_pb2 import Episode
from services.admin.ports import Episodes
from services.states import OVER, state_of


async def changes(
    episodes: Episodes, ended: asyncio.Event, number: int = 0, poll_s: float = 0.2
) -> AsyncIterator[Episode]:
    """Every episode as it is, or the one of this number, then each whose state or counters moved.

    Ends when all of these are over, or after a last look once `ended` is set. What changes twice
    between two looks is shown once. Raises UnknownEpisodeError.
    """
    shown: dict[int, Episode] = {}
    while True:
        last = ended.is_set()
        now = [await episodes.get(number)] if number else await episodes.list()
        for episode in now:
            if shown.get(episode.number) != episode:
                shown[episode.number] = episode
                yield episode
        if last or (now and all(state_of(episode) in OVER for episode in now)):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(poll_s):
                await ended.wait()
