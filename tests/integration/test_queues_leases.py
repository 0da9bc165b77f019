"""Who holds an item: renewed while it is worked on, given back at once by the dead."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from orchestrator.episodes import EpisodeStore, State
from services.errors import ReplacedError
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from tests.integration.test_queues import pair_of, prompts, rollout_of

SHORT = QueueSettings(retry_s=0, credits=64, max_deaths=4, reclaim_idle_s=0.3)
"""A lease lasts 0.3 s and is renewed every 0.1 s."""
LONG = SHORT.model_copy(update={"reclaim_idle_s": 300.0})


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(1, 64)
    await store.move(1, State.SAMPLING)
    yield store
    await store.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, store.run, LONG)
    yield queues
    await queues.close()


async def test_what_is_worked_on_for_long_is_taken_from_nobody(
    redis_url: str, store: EpisodeStore
) -> None:
    slow = await RunQueues.open(redis_url, store.run, SHORT)
    other = await RunQueues.open(redis_url, store.run, SHORT)
    await slow.dispatch(1, prompts(store.run, 8))
    held = await slow.take("prompts", "slow", 8, 0.0)
    for _ in range(4):  # four times as long as a lease lasts
        await asyncio.sleep(0.3)
        assert await other.take("prompts", "other", 8, 0.0) == []
    for item in held:
        assert await slow.commit_rollout(item, rollout_of(item))
    assert await other.dead_letters() == []
    await other.close()
    await slow.close()


async def test_what_is_no_longer_renewed_goes_to_another(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 2))
    gone = await RunQueues.open(redis_url, store.run, SHORT)
    await gone.take("prompts", "gone", 2, 0.0)
    await gone.close()
    other = await RunQueues.open(redis_url, store.run, SHORT)
    items = []
    async with asyncio.timeout(20):
        while not items:
            items = await other.take("prompts", "other", 2, 0.1)
    assert [item.deaths for item in items] == [1, 1]
    await other.close()


async def test_a_dead_consumer_gives_back_at_once_and_is_heard_no_more(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 3))
    zombie = await RunQueues.open(redis_url, store.run, LONG)
    held = await zombie.take("prompts", "rollout-0.1", 2, 0.0)
    assert await queues.take("prompts", "rollout-1.1", 1, 0.0)  # the third
    assert await queues.give_back("prompts", "rollout-0.1", died=True) == 2
    taken = await queues.take("prompts", "rollout-0.2", 9, 0.0)
    assert [(item.prompt_id, item.deaths) for item in taken] == [(i.prompt_id, 1) for i in held]
    with pytest.raises(ReplacedError, match="taken for dead"):
        await zombie.commit_rollout(held[0], rollout_of(held[0]))
    assert not await zombie.fail("prompts", held[1], "too late")
    with pytest.raises(ReplacedError):
        await zombie.take("prompts", "rollout-0.1", 1, 0.0)
    for item in taken:
        assert await queues.commit_rollout(item, rollout_of(item))
    await zombie.close()


async def test_who_leaves_in_order_costs_its_items_nothing(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 1))
    for leaving in range(9):
        (item,) = await queues.take("prompts", f"spot-{leaving}", 1, 0.0)
        assert item.deaths == 0
        assert await queues.give_back("prompts", f"spot-{leaving}", died=False) == 1
    assert await queues.dead_letters() == []


async def test_the_item_that_ends_its_workers_is_found_and_its_neighbours_are_not_blamed(
    queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 6)
    await queues.dispatch(1, work)
    deaths = 0
    while deaths < 20:
        items = await queues.take("prompts", f"w{deaths}", 9, 0.0)
        if not items:
            break
        if any(item.prompt_id == work[2].id for item in items):
            await queues.give_back("prompts", f"w{deaths}", died=True)
            deaths += 1
        else:
            for item in items:
                await queues.commit_rollout(item, rollout_of(item))
    (letter,) = await queues.dead_letters()
    assert (letter.prompt_id, letter.deaths) == (work[2].id, 4)
    assert "4 workers ended while they held it" in letter.error
    assert deaths == 4
    assert (await queues.counters(1))["sampled"] == 5


async def test_an_item_that_is_no_message_is_a_dead_letter_and_ends_nobody(
    queues: RunQueues, store: EpisodeStore
) -> None:
    (prompt,) = prompts(store.run, 1)
    await queues.dispatch(1, [prompt])
    for last in (False, False, True):
        (item,) = await queues.take("prompts", "a", 1, 0.0)
        garbled = replace(item, payload=b"\xff\xff\xff")
        assert await queues.fail("prompts", garbled, "no Prompt message") == last
    assert [letter.prompt_id for letter in await queues.dead_letters()] == [prompt.id]


async def test_an_entry_whose_id_was_used_once_more_is_not_finished_by_the_first(
    queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 1))
    (item,) = await queues.take("prompts", "a", 1, 0.0)
    lost = replace(item, prompt_id="what had this entry id before the failover")
    assert not await queues.commit_rollout(lost, rollout_of(item))
    for _ in range(LONG.max_failures):
        assert not await queues.fail("prompts", lost, "what was sampled is of another prompt")
    assert await queues.dead_letters() == []
    assert await queues.commit_rollout(item, rollout_of(item))
    (rolled,) = await queues.take("rollouts", "p", 1, 0.0)
    assert await queues.commit_pair(rolled, pair_of(rolled))
