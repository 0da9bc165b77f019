"""How episodes end: completed in order, the ledger put away, and then the learner let go.

Redis may fall back to before any of that (power loss, a failover to a replica). What a checkpoint
holds the learner commits anew, so it lives until the last ledger is out of Redis.
"""

import asyncio
from typing import Any, NoReturn

from orchestrator.online.ports import LoopPorts
from orchestrator.online.transitions import POLL_S, episode_event, try_move, until_committed
from services.errors import LedgerError, StallError
from services.queues.settings import EpisodeSettings
from services.states import SAMPLED, State, state_of


async def close(ports: LoopPorts, settings: EpisodeSettings, number: int) -> None:
    """Complete an episode that a checkpoint holds, and any before it whose end Redis lost.

    The learner commits those anew. StallError when it does not within `settings.timeout_s`. Once
    the ledger of the run's last is put away it has no more to do, and ends.
    """
    while (first := await _first_open(ports, number)) <= number:
        episode = await until_committed(ports, first, settings.timeout_s)
        step = SAMPLED[SAMPLED.index(state_of(episode)) + 1]
        moved = await try_move(ports.episodes, first, step)
        if moved is None:
            await ports.changed(POLL_S)
        elif step == State.COMPLETED:
            ports.report(episode_event(moved, settings.count, ports.stage))
            if await put_away(ports, first) and first == number:
                return


async def put_away(ports: LoopPorts, number: int) -> bool:
    """Put its ledger away; False where Redis falls back behind the episode's end meanwhile."""
    try:
        return await ports.archive(number)
    except LedgerError:
        if state_of(await ports.episodes.get(number)) == State.COMPLETED:
            raise
        return False


async def drain(
    learning: "asyncio.Future[Any]", ports: LoopPorts, settings: EpisodeSettings
) -> None:
    """Until the learner ended: it does when the ledger of its last episode is put away.

    Raises what ended it, or StallError when it does not end within `settings.timeout_s`.
    """

    async def keep_closed() -> NoReturn:
        until = ports.clock() + settings.timeout_s
        while ports.clock() <= until:
            await close(ports, settings, settings.count)
            await ports.changed(POLL_S)
        raise StallError(
            f"the learner did not end within {settings.timeout_s:.0f} s of its last version;"
            " see its log, or raise episodes.timeout_s"
        )

    closing = asyncio.ensure_future(keep_closed())
    try:
        await asyncio.wait({learning, closing}, return_when=asyncio.FIRST_COMPLETED)
        await (learning if learning.done() else closing)
    finally:
        closing.cancel()


async def _first_open(ports: LoopPorts, number: int) -> int:
    """The first episode after the last COMPLETED one: they are completed in order."""
    while number and state_of(await ports.episodes.get(number)) != State.COMPLETED:
        number -= 1
    return number + 1
