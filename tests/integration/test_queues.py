"""The queues on a real Redis: exactly once, credits, pauses, dead letters."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from orchestrator.episodes import EpisodeStore, State
from pairloop.admin.v1.admin_pb2 import Change
from pairloop.data.v1.pair_pb2 import DropReason, PreferencePair
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from services.errors import UnreachableError
from services.queues.items import Dispatched, Item
from services.queues.keys import GROUP, Keys
from services.queues.ledger import ledger_audit
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings

SETTINGS = QueueSettings(retry_s=0, credits=4, max_failures=3, max_deaths=3, reclaim_idle_s=300.0)
EAGER = SETTINGS.model_copy(update={"reclaim_idle_s": 0.001})
"""Everything that another worker holds counts as abandoned."""


def prompts(run: str, count: int, episode: int = 1) -> list[Prompt]:
    return [
        Prompt(id=f"{run}/e{episode}/p{i}", run=run, episode=episode, index=i) for i in range(count)
    ]


def rollout_of(item: Item, worker: str = "w") -> Rollout:
    return Rollout(prompt=Prompt.FromString(item.payload), worker_id=worker)


def pair_of(item: Item) -> PreferencePair:
    prompt = Rollout.FromString(item.payload).prompt
    return PreferencePair(id=prompt.id, prompt=prompt)


@pytest.fixture
async def store(redis_url: str, run_name: str) -> AsyncIterator[EpisodeStore]:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(2, 8)
    await store.move(1, State.SAMPLING)
    yield store
    await store.close()


@pytest.fixture
async def queues(redis_url: str, store: EpisodeStore) -> AsyncIterator[RunQueues]:
    queues = await RunQueues.open(redis_url, store.run, SETTINGS)
    yield queues
    await queues.close()


async def kinds(queues: RunQueues) -> list[str]:
    return [event.kind for event in await queues.ledger(1)]


async def test_a_prompt_goes_all_the_way(queues: RunQueues, store: EpisodeStore) -> None:
    (prompt,) = prompts(store.run, 1)
    assert await queues.dispatch(1, [prompt]) == Dispatched(1, 0, "")
    (item,) = await queues.take("prompts", "a", 4, 0.0)
    assert Prompt.FromString(item.payload) == prompt
    assert (item.prompt_id, item.episode, item.deaths) == (prompt.id, 1, 0)
    assert await queues.commit_rollout(item, rollout_of(item, "worker-7"))
    (item,) = await queues.take("rollouts", "p", 4, 0.0)
    pair = pair_of(item)
    pair.provenance.scorer, pair.provenance.max_policy_version = "checker", 3
    assert await queues.commit_pair(item, pair)
    assert await queues.pairs(1) == [pair]
    assert await queues.credits_in_use() == 1
    assert await queues.commit_trained(1, 4, [prompt.id], {}) == 1
    assert await queues.published(1, 4)
    events = await queues.ledger(1)
    assert [(e.kind, e.id, e.episode, e.detail) for e in events] == [
        ("dispatched", prompt.id, 1, ""),
        ("sampled", prompt.id, 1, "worker-7"),
        ("scored", prompt.id, 1, "checker"),
        ("paired", prompt.id, 1, "0-3"),
        ("trained", prompt.id, 1, "4"),
        ("published", "", 1, "4"),
    ]
    assert ledger_audit(events, {1: [prompt.id]}) == []
    assert await queues.credits_in_use() == 0
    assert (await store.get(1)).weight_version == 4


async def test_whatever_is_done_twice_has_an_effect_once(
    queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 2)
    await queues.dispatch(1, work)
    assert await queues.dispatch(1, work) == Dispatched(0, 2, "")
    for item in await queues.take("prompts", "a", 4, 0.0):
        assert await queues.commit_rollout(item, rollout_of(item))
        assert not await queues.commit_rollout(item, rollout_of(item))
    first, second = await queues.take("rollouts", "p", 4, 0.0)
    assert await queues.commit_pair(first, pair_of(first))
    assert not await queues.commit_pair(first, pair_of(first))
    assert not await queues.commit_drop(first, DropReason.DROP_REASON_TIE)
    assert await queues.commit_drop(second, DropReason.DROP_REASON_TIE)
    assert not await queues.commit_drop(second, DropReason.DROP_REASON_TIE)
    assert not await queues.fail("rollouts", second, "too late")
    assert await queues.commit_trained(1, 1, [work[0].id], {}) == 1
    assert await queues.commit_trained(1, 1, [work[0].id], {}) == 0
    assert await queues.published(1, 1)
    assert not await queues.published(1, 1)
    assert ledger_audit(await queues.ledger(1), {1: [prompt.id for prompt in work]}) == []
    assert await queues.credits_in_use() == 0
    assert await queues.counters(1) == {
        "dispatched": 2,
        "in_flight": 0,
        "sampled": 2,
        "scored": 2,
        "paired": 1,
        "trained": 1,
        "dropped:TIE": 1,
    }


async def test_an_item_two_workers_hold_is_committed_once(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    other = await RunQueues.open(redis_url, store.run, EAGER)
    await queues.dispatch(1, prompts(store.run, 1))
    (slow,) = await queues.take("prompts", "slow", 1, 0.0)
    assert await queues.take("prompts", "patient", 1, 0.0) == []
    await asyncio.sleep(0.01)
    (taken_over,) = await other.take("prompts", "other", 1, 0.0)
    assert (taken_over.entry_id, taken_over.deaths) == (slow.entry_id, 1)
    done = await asyncio.gather(
        queues.commit_rollout(slow, rollout_of(slow, "slow")),
        other.commit_rollout(taken_over, rollout_of(taken_over, "other")),
    )
    assert sorted(done) == [False, True]
    assert len(await queues.take("rollouts", "p", 4, 0.0)) == 1
    assert await kinds(queues) == ["dispatched", "sampled"]
    await other.close()


async def test_a_restarted_worker_gets_at_once_what_its_predecessor_left(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 2))
    left = await queues.take("prompts", "worker-0", 2, 0.0)
    await asyncio.sleep(0.005)
    successor = await RunQueues.open(redis_url, store.run, SETTINGS)
    assert await successor.take("prompts", "worker-1", 2, 0.0) == []
    again = await successor.take("prompts", "worker-0", 2, 0.0)
    assert [item.entry_id for item in again] == [item.entry_id for item in left]
    assert await successor.take("prompts", "worker-0", 2, 0.0) == []
    await successor.close()


async def test_credits_bound_what_is_between_dispatch_and_training(
    queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 6)
    assert await queues.dispatch(1, work) == Dispatched(4, 0, "credits")
    assert await queues.dispatch(1, work) == Dispatched(0, 4, "credits")
    for item in await queues.take("prompts", "a", 2, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    dropped, paired = await queues.take("rollouts", "p", 2, 0.0)
    await queues.commit_drop(dropped, DropReason.DROP_REASON_SINGLE_ANSWER)
    await queues.commit_pair(paired, pair_of(paired))
    assert await queues.dispatch(1, work) == Dispatched(1, 4, "credits")
    dropped = {work[0].id: "SINGLE_ANSWER"}
    assert await queues.credits_in_use() == 4
    await store.move(2, State.SAMPLING)
    other = prompts(store.run, 2, episode=2)
    assert await queues.dispatch(2, other) == Dispatched(0, 0, "credits")
    for item in await queues.take("prompts", "a", 3, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in await queues.take("rollouts", "p", 3, 0.0):
        await queues.commit_pair(item, pair_of(item))
    await queues.commit_trained(1, 1, [prompt.id for prompt in work[1:5]], dropped)
    assert await queues.credits_in_use() == 0
    assert await queues.dispatch(2, other) == Dispatched(2, 0, "")


@pytest.mark.parametrize("stopped", [State.PAUSING, State.FAILED, State.CANCELLED])
async def test_nothing_is_dispatched_unless_the_episode_samples(
    queues: RunQueues, store: EpisodeStore, stopped: State
) -> None:
    assert await queues.dispatch(2, prompts(store.run, 1, episode=2)) == Dispatched(0, 0, "state")
    assert await queues.dispatch(9, prompts(store.run, 1, episode=9)) == Dispatched(0, 0, "state")
    await store.move(1, stopped)
    assert await queues.dispatch(1, prompts(store.run, 1)) == Dispatched(0, 0, "state")
    assert await queues.take("prompts", "a", 1, 0.0) == []
    assert await kinds(queues) == []


async def test_a_prompt_is_dispatched_after_those_before_it_alone(
    queues: RunQueues, store: EpisodeStore
) -> None:
    """A server that lost a dispatch may not be given the next one, lest the first be forgotten."""
    work = prompts(store.run, 4)
    assert await queues.dispatch(1, work[1:]) == Dispatched(0, 0, "order")
    assert await queues.dispatch(1, work[:1]) == Dispatched(1, 0, "")
    assert await queues.dispatch(1, [work[0], work[2], work[1]]) == Dispatched(0, 1, "order")
    assert await queues.dispatch(1, work) == Dispatched(3, 1, "")


async def test_a_pause_amid_dispatches_leaves_no_prompt_after_it(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    roomy = await RunQueues.open(redis_url, store.run, QueueSettings(credits=1000))
    work = prompts(store.run, 200)
    dispatching = [asyncio.create_task(roomy.dispatch(1, work[i : i + 1])) for i in range(200)]
    await dispatching[50]
    paused = await store.pause(1, Change(request_id="r", reason="look"))
    done = await asyncio.gather(*dispatching)
    sent = sum(each.sent for each in done)
    assert {each.refused for each in done if not each.sent} <= {"state", "order"}
    assert (await store.get(1)).dispatched == paused.dispatched == sent
    await roomy.close()


async def test_a_failing_item_is_tried_again_and_then_goes_to_the_dead_letters(
    queues: RunQueues, store: EpisodeStore
) -> None:
    (prompt,) = prompts(store.run, 1)
    await queues.dispatch(1, [prompt])
    for attempt, worker in enumerate(("a", "b", "a"), start=1):
        (item,) = await queues.take("prompts", worker, 1, 0.0)
        assert item.deaths == 0
        assert await queues.fail("prompts", item, f"boom {attempt}") == (attempt == 3)
    assert await queues.take("prompts", "a", 1, 0.0) == []
    (letter,) = await queues.dead_letters()
    assert (letter.stream, letter.prompt_id, letter.episode) == ("prompts", prompt.id, 1)
    assert (letter.failures, letter.deaths, letter.error) == (3, 0, "boom 3")
    assert Prompt.FromString(letter.payload) == prompt
    assert await queues.credits_in_use() == 0
    assert dict((await store.get(1)).dropped) == {"DEAD_LETTER": 1}
    assert ledger_audit(await queues.ledger(1), {1: [prompt.id]}) == []


async def test_an_item_that_failed_waits_before_it_is_tried_again_longer_each_time(
    redis_url: str, store: EpisodeStore
) -> None:
    patient = SETTINGS.model_copy(update={"retry_s": 60.0})  # an abandoned one: 300 s
    queues = await RunQueues.open(redis_url, store.run, patient)
    client, stream = queues._client._redis, Keys(store.run).stream("prompts")
    await queues.dispatch(1, prompts(store.run, 1))
    for left_ms in (60_000, 120_000):
        (item,) = await queues.take("prompts", "a", 1, 0.0)
        assert not await queues.fail("prompts", item, "the reward is away")
        assert await queues.take("prompts", "a", 1, 0.0) == []
        (pending,) = await client.xpending_range(stream, GROUP, "-", "+", 1)
        idle = pending["time_since_delivered"]
        assert 300_000 - left_ms <= idle < 300_000 - left_ms + 30_000
        await client.xclaim(stream, GROUP, "failed", 0, [item.entry_id], idle=300_000, justid=True)
    assert len(await queues.take("prompts", "a", 1, 0.0)) == 1
    await queues.close()


async def test_an_item_that_ends_its_workers_goes_to_the_dead_letters(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    (prompt,) = prompts(store.run, 1)
    await queues.dispatch(1, [prompt])
    eager = await RunQueues.open(redis_url, store.run, EAGER)
    for attempt in (1, 2, 3):
        (item,) = await eager.take("prompts", f"victim-{attempt}", 1, 0.0)
        assert item.deaths == attempt - 1
        await asyncio.sleep(0.01)
    assert await eager.take("prompts", "survivor", 1, 0.0) == []
    (letter,) = await queues.dead_letters()
    assert letter.error == (
        "3 workers ended while they held it, the last was victim-3: it seems to end them"
    )
    assert ledger_audit(await queues.ledger(1), {1: [prompt.id]}) == []
    await eager.close()


async def test_a_late_failure_does_not_disturb_the_worker_that_took_over(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    await queues.dispatch(1, prompts(store.run, 1))
    (slow,) = await queues.take("prompts", "slow", 1, 0.0)
    await asyncio.sleep(0.01)
    eager = await RunQueues.open(redis_url, store.run, EAGER)
    (item,) = await eager.take("prompts", "quick", 1, 0.0)
    assert not await queues.fail("prompts", slow, "late")
    assert await queues.take("prompts", "third", 1, 0.0) == []
    assert await eager.commit_rollout(item, rollout_of(item))
    await eager.close()


async def test_pairs_come_in_canonical_order(queues: RunQueues, store: EpisodeStore) -> None:
    await queues.dispatch(1, prompts(store.run, 4))
    for item in await queues.take("prompts", "a", 4, 0.0):
        await queues.commit_rollout(item, rollout_of(item))
    for item in reversed(await queues.take("rollouts", "p", 4, 0.0)):
        await queues.commit_pair(item, pair_of(item))
    assert [pair.prompt.index for pair in await queues.pairs(1)] == [0, 1, 2, 3]
    assert await queues.pairs(2) == []


async def test_take_waits_for_the_first_item_and_no_longer(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    waiting = asyncio.create_task(queues.take("prompts", "a", 4, 30.0))
    async with Redis.from_url(redis_url) as server, asyncio.timeout(20):
        while not any("b" in client["flags"] for client in await server.client_list()):
            await asyncio.sleep(0.005)  # until the server holds a blocked reader
    await queues.dispatch(1, prompts(store.run, 1))
    assert len(await asyncio.wait_for(waiting, 20)) == 1
    assert await asyncio.wait_for(queues.take("prompts", "a", 4, 0.05), 20) == []


async def test_take_gives_the_abandoned_first_then_new_ones_and_never_too_many(
    redis_url: str, queues: RunQueues, store: EpisodeStore
) -> None:
    work = prompts(store.run, 4)
    await queues.dispatch(1, work)
    await queues.take("prompts", "gone", 1, 0.0)
    successor = await RunQueues.open(redis_url, store.run, SETTINGS)

    async def taken(count: int) -> list[tuple[str, int]]:
        items = await successor.take("prompts", "gone", count, 0.0)
        return [(Prompt.FromString(item.payload).id, item.deaths) for item in items]

    assert await taken(1) == [(work[0].id, 1)]
    assert await taken(1) == [(work[1].id, 0)]
    again = await RunQueues.open(redis_url, store.run, SETTINGS)
    items = await again.take("prompts", "gone", 3, 0.0)
    assert [(Prompt.FromString(item.payload).id, item.deaths) for item in items] == [
        (work[0].id, 2), (work[1].id, 1), (work[2].id, 0),
    ]  # fmt: skip
    await again.close()
    await successor.close()


async def test_long_streams_are_written_and_read_whole(
    redis_url: str, store: EpisodeStore, queues: RunQueues
) -> None:
    roomy = await RunQueues.open(redis_url, store.run, QueueSettings(credits=139, max_failures=1))
    work = prompts(store.run, 140)
    assert await roomy.dispatch(1, work[:3]) == Dispatched(3, 0, "")
    assert await roomy.dispatch(1, work) == Dispatched(136, 3, "credits")
    items = await roomy.take("prompts", "a", 140, 0.0)
    assert [Prompt.FromString(item.payload) for item in items] == work[:139]
    for item in items[:70]:
        assert await roomy.fail("prompts", item, "no")
    for item in items[70:]:
        await roomy.commit_rollout(item, rollout_of(item))
    for item in await roomy.take("rollouts", "p", 140, 0.0):
        await roomy.commit_pair(item, pair_of(item))
    assert [letter.prompt_id for letter in await roomy.dead_letters()] == [p.id for p in work[:70]]
    assert [pair.prompt.index for pair in await roomy.pairs(1)] == list(range(70, 139))
    assert Counter(await kinds(roomy)) == {
        "dispatched": 139, "dropped": 70, "sampled": 69, "scored": 69, "paired": 69,
    }  # fmt: skip
    assert await roomy.commit_trained(1, 1, [p.id for p in work[70:139]], {}) == 69
    await roomy.close()


@pytest.mark.parametrize(
    ("reason", "scored"), [("TIE", True), ("MARGIN", True), ("SINGLE_ANSWER", False),
                           ("STALE", False)],
)  # fmt: skip
async def test_a_drop_says_why_and_whether_it_was_scored(
    queues: RunQueues, store: EpisodeStore, reason: str, scored: bool
) -> None:
    (prompt,) = prompts(store.run, 1)
    await queues.dispatch(1, [prompt])
    (item,) = await queues.take("prompts", "a", 1, 0.0)
    await queues.commit_rollout(item, rollout_of(item))
    (item,) = await queues.take("rollouts", "p", 1, 0.0)
    assert await queues.commit_drop(item, DropReason.Value(f"DROP_REASON_{reason}"))
    events = [(event.kind, event.id, event.detail) for event in (await queues.ledger(1))[2:]]
    assert events == [("scored", prompt.id, "")] * scored + [("dropped", prompt.id, reason)]
    assert await queues.pairs(1) == []
    assert await queues.credits_in_use() == 0


async def test_a_rollout_that_keeps_failing_is_a_dead_letter_of_its_stream(
    queues: RunQueues, store: EpisodeStore
) -> None:
    (prompt,) = prompts(store.run, 1)
    await queues.dispatch(1, [prompt])
    (item,) = await queues.take("prompts", "a", 1, 0.0)
    rollout = rollout_of(item)
    await queues.commit_rollout(item, rollout)
    for last in (False, False, True):
        (item,) = await queues.take("rollouts", "p", 1, 0.0)
        assert await queues.fail("rollouts", item, "no score") == last
    (letter,) = await queues.dead_letters()
    assert (letter.stream, letter.prompt_id, letter.episode) == ("rollouts", prompt.id, 1)
    assert Rollout.FromString(letter.payload) == rollout
    assert await queues.take("rollouts", "p", 1, 0.0) == []


async def test_states_and_counters_of_unknown_episodes(queues: RunQueues) -> None:
    assert await queues.episode_state(1) == "SAMPLING"
    assert await queues.episode_state(2) == "PENDING"
    assert await queues.episode_state(7) == ""
    assert (await queues.counters(7))["dispatched"] == 0


async def test_a_run_expires_and_no_other_does(redis_url: str, run_name: str) -> None:
    # As a pattern, the first name means the second as well.
    names = [f"{run_name}-[ab]*", f"{run_name}-a", f"{run_name}-[ab]*2"]
    stores = [await EpisodeStore.open(redis_url, name, 5.0) for name in names]
    runs = [await RunQueues.open(redis_url, name, SETTINGS) for name in names]
    for store, queues in zip(stores, runs, strict=True):
        await store.create(1, 2)
        await store.move(1, State.SAMPLING)
        await queues.dispatch(1, prompts(store.run, 2))
    await runs[0].expire(0)
    assert await stores[0].list() == []
    assert await runs[0].ledger(1) == []
    for store, queues in zip(stores[1:], runs[1:], strict=True):
        assert [episode.dispatched for episode in await store.list()] == [2]
        assert len(await queues.ledger(1)) == 2
    for each in (*stores, *runs):
        await each.close()


async def test_a_silent_server_is_named_without_its_password() -> None:
    settings = QueueSettings(connect_timeout_s=0.5)
    with pytest.raises(UnreachableError) as caught:
        await RunQueues.open("redis://me:s3cret@127.0.0.1:1/0", "r", settings)
    assert "redis://127.0.0.1:1/0 does not answer" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_wrong_password_is_said_and_not_shown(redis_url: str) -> None:
    wrong = redis_url.replace(redis_url[8 : redis_url.index("@")], ":wr0ng")
    with pytest.raises(UnreachableError, match="refused the user or password") as caught:
        await RunQueues.open(wrong, "r", SETTINGS)
    assert "wr0ng" not in str(caught.value)
