"""How the loop moves an episode while an admin may pause it at any moment."""

import asyncio

from orchestrator.online.ports import Episodes
from pairloop.admin.v1.admin_pb2 import Episode
from services.errors import StateError
from services.states import ABORTED, HELD, SAMPLED, State, state_of
from services.telemetry.record.events import EpisodeChanged

POLL_S = 0.05


async def advance(episodes: Episodes, number: int, to: State) -> Episode:
    """Move an episode on, once no pause holds it; one that is there or further stays."""
    while True:
        episode = await episodes.get(number)
        state = state_of(episode)
        refuse_ended(episode)
        if state in SAMPLED and SAMPLED.index(state) >= SAMPLED.index(to):
            return episode
        if state not in HELD:
            moved = await try_move(episodes, number, to)
            if moved is not None:
                return moved
        await asyncio.sleep(POLL_S)


async def try_move(episodes: Episodes, number: int, to: State) -> Episode | None:
    """The moved episode, or None when a pause or a resume came first."""
    try:
        return await episodes.move(number, to)
    except StateError:
        if state_of(await episodes.get(number)) in (State.PENDING, State.SAMPLING, *HELD):
            return None
        raise


def refuse_ended(episode: Episode) -> None:
    """StateError for an episode that will not go on."""
    if state_of(episode) in ABORTED:
        cause = f": {episode.error}" if episode.error else ""
        raise StateError(f"episode {episode.number} is {state_of(episode)}{cause}; start a new run")


def changed(episode: Episode, total: int, stage: str) -> EpisodeChanged:
    """The event of an episode as it is now."""
    return EpisodeChanged(
        stage=stage,
        number=episode.number,
        total=total,
        state=state_of(episode),
        prompts=episode.prompts,
        dispatched=episode.dispatched,
        in_flight=episode.in_flight,
        paired=episode.paired,
        dropped=dict(episode.dropped),
        reason=episode.last_change.reason,
    )
