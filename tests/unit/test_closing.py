"""How episodes end while Redis may fall back to before that."""

import asyncio
from collections.abc import Callable

import pytest

from orchestrator.online.closing import close, drain
from services.errors import LedgerError, StallError
from services.queues.settings import EpisodeSettings
from services.states import State, message_state
from tests.unit.test_loop import World

SETTINGS = EpisodeSettings(count=1, prompts=1)


def trained(count: int = 1) -> World:
    """Every episode is in a checkpoint and none is completed."""
    world = World(count=count, prompts=1)
    for episode in world.episodes.values():
        episode.state = message_state(State.PUBLISHING)
    return world


def falls_back(world: World, at: Callable[[int], bool]) -> None:
    """Each call of `archive` that `at` names finds the episode not completed any more."""
    archive, calls = world.archive, 0

    async def fallen(number: int) -> bool:
        nonlocal calls
        calls += 1
        if at(calls):
            world.episodes[number].state = message_state(State.PUBLISHING)
            return False
        return await archive(number)

    world.archive = fallen  # type: ignore[method-assign]


async def test_episodes_that_fell_back_are_closed_step_by_step_and_in_order() -> None:
    world = World(count=3, prompts=1)
    for number, state in ((1, State.COMPLETED), (2, State.TRAINING), (3, State.PUBLISHING)):
        world.episodes[number].state = message_state(state)
    await close(world.ports(), SETTINGS, 3)
    assert world.history == ["PUBLISHING 2", "COMPLETED 2", "COMPLETED 3"]
    assert world.archived == [2, 3]


async def test_an_episode_that_redis_lost_while_its_ledger_was_put_away_is_closed_again() -> None:
    world = trained()
    falls_back(world, lambda call: call < 3)
    await close(world.ports(), SETTINGS, 1)
    assert world.history == ["COMPLETED 1"] * 3
    assert world.archived == [1]


async def test_a_ledger_that_does_not_add_up_ends_the_run_only_where_redis_did_not_fall_back() -> (
    None
):
    world = trained()
    archive, fallen = world.archive, False

    async def torn(number: int) -> bool:
        nonlocal fallen
        if fallen:
            return await archive(number)
        fallen = True
        world.episodes[number].state = message_state(State.PUBLISHING)
        raise LedgerError("read while it fell back")

    world.archive = torn  # type: ignore[method-assign]
    await close(world.ports(), SETTINGS, 1)
    assert world.archived == [1]

    async def wrong(number: int) -> bool:
        raise LedgerError("does not add up")

    another = trained()
    another.archive = wrong  # type: ignore[method-assign]
    with pytest.raises(LedgerError, match="does not add up"):
        await close(another.ports(), SETTINGS, 1)


async def test_what_redis_loses_after_the_learner_ended_is_not_waited_for() -> None:
    world = trained()
    await close(world.ports(), SETTINGS, 1)
    world.episodes[1].state = message_state(State.SAMPLING)
    world.episodes[1].trained = 0
    learning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    draining = asyncio.create_task(drain(learning, world.ports(), SETTINGS))
    await world.looked(3)
    assert not draining.done()
    learning.set_result(None)
    await draining


async def test_a_learner_that_died_at_the_end_is_the_error() -> None:
    world = trained()
    learning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    learning.set_exception(RuntimeError("killed"))
    with pytest.raises(RuntimeError, match="killed"):
        await drain(learning, world.ports(), SETTINGS)


async def test_a_learner_that_does_not_end_has_a_deadline() -> None:
    world = trained()
    learning: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(StallError, match="the learner did not end within 3600 s"):
        await drain(learning, world.ports(), SETTINGS)
