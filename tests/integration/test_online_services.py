"""What an online run starts, and that it is ended again: real Redis, every process a fake."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from orchestrator.episodes import EpisodeStore
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.online.engine_fleet import publish
from orchestrator.online.healing import Budget
from orchestrator.online.parts import Starters
from orchestrator.online.services import Services, start_services
from orchestrator.online.settings import RestartSettings
from orchestrator.online.supervision import supervise
from orchestrator.online.watched import watched
from orchestrator.stages.context import RunContext, StageContext
from orchestrator.stages.engines import EnginePool
from pairloop.admin.v1.admin_pb2 import Change
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from pairloop.data.v1.weights_pb2 import Attestation, WeightManifest
from services.errors import (
    PairloopError,
    ReplacedError,
    ResourceError,
    StallError,
    WorkerDiedError,
    WorkerError,
)
from services.pairs.actor import PairHandle
from services.queues.keys import Keys
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.reward.launch import RunningReward
from services.rollout.actor import RolloutHandle
from services.rollout.settings import EngineSettings
from services.states import State
from services.telemetry.metrics.asked import Asking
from services.telemetry.record.events import Event, Note
from services.weights.version_store import Held, VersionStoreHandle
from tests.unit import learner_parts


class World:
    """Fakes of every process, which take note; what is in `broken` does not start."""

    def __init__(self, **broken: PairloopError) -> None:
        self.loop = asyncio.get_running_loop()
        self.history: list[str] = []
        self.broken = broken
        self.learner: Future[dict[str, float]] = Future()
        self.pairing: list[Pairing] = []
        self.engines: list[Engine] = []
        self.next_address = "127.0.0.1:1"
        """Of a gateway that is started again."""

    def note(self, event: str) -> None:
        self.history.append(event)

    def start(self, part: str) -> None:
        self.note(f"{part} starts")
        if part in self.broken:
            raise self.broken[part]

    def starters(self) -> Starters:
        return Starters(
            version_store=lambda: Store(self),
            learner=self.start_learner,
            reward=self.start_reward,
            pairing=self.start_pairing,
            shortage=lambda settings, more: f"{more} wait for room" if more > 2 else "",
        )

    def start_pairing(self, name: str) -> PairHandle:
        self.pairing.append(Pairing(self, name))
        return self.pairing[-1]

    def start_learner(self, *arguments: Any, **options: Any) -> "Future[dict[str, float]]":
        self.start("learner")
        if self.learner.done():
            self.learner = Future()
        return self.learner

    def start_reward(self, *arguments: Any, **options: Any) -> RunningReward:
        self.start("reward")
        return Reward(self)

    async def start_engines(
        self, settings: EngineSettings, policy: str, seed: int, names: Sequence[str]
    ) -> list[RolloutHandle]:
        self.start("engines")
        started = [Engine(self, name) for name in names]
        self.engines += started
        return list(started)


class Alive:
    """Work that never ends and pings that answer, until `die`."""

    def __init__(self, world: World) -> None:
        self._end: asyncio.Future[None] = world.loop.create_future()

    def die(self, error: Exception) -> None:
        self._end.set_exception(error)
        self._end.exception()  # one that nobody waits for is no noise at the end

    async def run(self) -> None:
        await asyncio.shield(self._end)

    async def answer(self) -> str:
        if self._end.done():
            self._end.result()
        return "born"


class Store(VersionStoreHandle):
    def __init__(self, world: World) -> None:
        super().__init__(actor=None)
        self._world = world
        self.alive = Alive(self._world)
        self.held = Held(3, WeightManifest(version=3).SerializeToString(), {}, {})
        world.start("store")

    async def wait(self, version: int, timeout_s: float) -> Held:
        return self.held

    async def withdraw(self) -> None:
        self._world.note("version withdrawn")

    async def ping(self) -> str:
        return await self.alive.answer()

    async def revive(self) -> None:
        self._world.note("store is born again")
        self.alive = Alive(self._world)

    def kill(self) -> None:
        self._world.note("store ends")


class Reward(RunningReward):
    def __init__(self, world: World) -> None:
        super().__init__("reward-of-a-test", None, None, "127.0.0.1:1", token="")
        self._world = world
        self.alive = Alive(self._world)

    async def ping(self) -> str:
        return await self.alive.answer()

    async def revive(self) -> None:
        self._world.note("gateway is born again")
        self.alive = Alive(self._world)
        self.address = self._world.next_address

    def stop(self, timeout_s: float = 10.0) -> None:
        self._world.note("reward ends")


class Engine(RolloutHandle):
    def __init__(self, world: World, worker_id: str) -> None:
        super().__init__(worker_id, actor=None)
        self._world = world
        self.alive = Alive(self._world)

    async def tokenizer_fingerprint(self, policy: str) -> str:
        return f"a tokenizer's, of one that was {await self.alive.answer()}"

    async def start(self, connect: Any, consumer: str) -> None:
        self._world.start(self.worker_id)
        self.consumer = consumer

    async def run(self) -> None:
        await self.alive.run()

    async def load_weights(self, manifest: bytes, weights: Any) -> bytes:
        await self.alive.answer()
        version = WeightManifest.FromString(manifest).version
        self._world.note(f"{self.consumer} loads {version}")
        return Attestation(worker_id=self.worker_id, version=version).SerializeToString()

    async def ping(self) -> int:
        await self.alive.answer()
        return 0

    async def stop(self) -> None:
        self._world.note(f"{self.worker_id} stops")

    def kill(self) -> None:
        self._world.note(f"{self.worker_id} ends")


class Pairing(PairHandle):
    def __init__(self, world: World, name: str) -> None:
        super().__init__(name, actor=None)
        self._world = world
        self.alive = Alive(self._world)
        self.scorer: Any = None

    async def start(self, *arguments: Any, **options: Any) -> None:
        self.scorer = arguments[1]
        self._world.start(self.name)

    async def run(self) -> None:
        await self.alive.run()

    async def ping(self) -> None:
        await self.alive.answer()

    def kill(self) -> None:
        self._world.note(f"{self.name} ends")


def budget_of(count: int, said: list[str] | None = None, silence_s: float = 60.0) -> Budget:
    """So many restarts of each part, at once; what is said of them is kept."""
    settings = RestartSettings(count=count, backoff_s=0, silence_s=silence_s)
    return Budget(settings, "online", ([] if said is None else said).append)


def none_left() -> Budget:
    """A budget under which every end is the run's."""
    return budget_of(0)


@contextlib.asynccontextmanager
async def started(
    world: World,
    url: str,
    run: str,
    folder: Path,
    budget: Budget | None = None,
    say: Callable[[str], object] = str,
    asking: Asking | None = None,
) -> Any:
    job = OnlineDPO.model_validate(
        {
            "job": "online_dpo",
            "policy": learner_parts.policy(folder / "policy"),
            "prompts": {"path": "prompts.jsonl"},
            "reward": {"parts": [{"kind": "checker"}]},
            "pairs": {"workers": 2},
            "episodes": {"count": 1, "prompts": 4},
            "admin": {"port": 0},
        }
    )
    async with EnginePool(0, world.start_engines) as engines:

        def report(event: Event) -> None:
            if isinstance(event, Note):
                say(event.text)

        shared = RunContext(run, folder, report, sink=None, engines=engines, asking=asking)
        context = StageContext(shared, "online", 0, folder / "out", folder / "scratch", "trunk")
        async with contextlib.AsyncExitStack() as stack:
            yield await start_services(
                job, context, run, url, 1, 0, stack, budget or none_left(), world.starters()
            )


async def test_who_scrapes_is_told_of_queues_and_workers(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    asking = Asking()

    async def scraped() -> dict[tuple[str, ...], float]:
        families = await asyncio.to_thread(lambda: list(asking.collect()))
        samples = [each for family in families for each in family.samples]
        return {(each.name, *each.labels.values()): each.value for each in samples}

    async with started(World(), redis_url, run_name, tmp_path, asking=asking):
        found = await scraped()
    assert found["pairloop_redis_up", "online"] == 1
    assert found["pairloop_workers", "online", "pairing", "working"] == 2
    # It holds no version yet.
    assert found["pairloop_workers", "online", "rollout", "starting"] == 1
    assert found["pairloop_queue_entries", "online", "prompts"] == 0
    assert found["pairloop_credits", "online"] == 512
    assert await scraped() == {}


async def test_what_a_failed_run_lost_is_in_flight_before_the_learner_looks(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    store = await EpisodeStore.open(redis_url, run_name, 5.0)
    await store.create(1, 4)
    await store.move(1, State.SAMPLING)
    queues = await RunQueues.open(redis_url, run_name, QueueSettings(max_failures=1))
    await queues.dispatch(1, [Prompt(id="a", run=run_name, episode=1, index=0)])
    (item,) = await queues.take("prompts", "gone", 1, 0.0)
    await queues.fail("prompts", item, "no memory")
    await store.move(1, State.FAILED, Change(reason="lost"))

    class Looks(World):
        def start_learner(self, *arguments: Any, **options: Any) -> Future[dict[str, float]]:
            with Redis.from_url(redis_url) as redis:
                self.note(f"episode 1 is {redis.hget(Keys(run_name).episode(1), 'state')!r}")
            return super().start_learner(*arguments, **options)

    world = Looks()
    async with started(world, redis_url, run_name, tmp_path) as services:
        (item,) = await services.queues.take("prompts", "rollout-0.1", 1, 0.0)
    assert item.prompt_id == "a"
    assert "episode 1 is b'SAMPLING'" in world.history
    await queues.close()
    await store.close()


async def test_everything_is_ended_in_the_reverse_of_how_it_was_started(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world = World()
    async with started(world, redis_url, run_name, tmp_path) as services:
        assert [episode.prompts for episode in await services.store.list()] == [4]
        world.note("run")
    before, after = world.history[: world.history.index("run")], world.history[-6:]
    assert before[0] == "store starts"
    assert sorted(before[1:4]) == ["engines starts", "learner starts", "reward starts"]
    assert before[4:] == ["rollout-0 starts", "pairs-0 starts", "pairs-1 starts"]
    assert after == [
        *("reward ends", "store ends", "pairs-1 ends", "pairs-0 ends", "rollout-0 stops"),
        "rollout-0 ends",
    ]


async def test_a_start_that_is_cancelled_calls_off_the_reward_and_ends_the_rest(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    class Slow(World):
        def start_reward(self, *arguments: Any, **options: Any) -> RunningReward:
            self.start("reward")
            called_off: threading.Event = options["called_off"]
            assert called_off.wait(60)
            self.note("reward is called off")
            raise WorkerError("the start of the reward was called off")

    world = Slow()

    async def start() -> None:
        async with started(world, redis_url, run_name, tmp_path):
            pytest.fail("it started")

    starting = asyncio.create_task(start())
    async with asyncio.timeout(30):
        while "reward starts" not in world.history:
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert world.history[world.history.index("reward is called off") :] == [
        *("reward is called off", "store ends", "pairs-1 ends", "pairs-0 ends"),
        *("rollout-0 stops", "rollout-0 ends"),
    ]


PAIRING = ("pairs-1 ends", "pairs-0 ends")


@pytest.mark.parametrize(
    ("part", "ended"),
    [
        ("store", [*PAIRING]),
        ("reward", ["store ends", *PAIRING, "rollout-0 stops"]),
        ("engines", ["reward ends", "store ends", *PAIRING]),
        ("rollout-0", ["reward ends", "store ends", *PAIRING, "rollout-0 stops"]),
        ("pairs-1", ["reward ends", "store ends", *PAIRING, "rollout-0 stops"]),
    ],
)
async def test_what_was_started_is_ended_when_another_part_does_not_start(
    part: str, ended: list[str], redis_url: str, run_name: str, tmp_path: Path
) -> None:
    error = ResourceError(f"no room for {part}; make some")
    world = World(**{part: error})
    with pytest.raises(ResourceError) as caught:
        async with started(world, redis_url, run_name, tmp_path):
            pytest.fail("it started")
    assert caught.value is error
    ends = [each for each in world.history if each.endswith((" ends", " stops"))]
    assert [each for each in ends if each in ended] == ended
    assert set(ends) - set(ended) <= {"rollout-0 ends"}  # the pool's own, when engines were up


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("part", ["rollout-0", "pairs-0", "store", "reward", "learner"])
async def test_the_end_of_any_part_ends_the_run_with_its_cause(
    part: str, redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world, death = World(), WorkerDiedError(f"{part} died: its process was killed or crashed; go")

    async def kill(services: Services) -> None:
        held: dict[str, Any] = {
            "rollout-0": world.engines[0],
            "pairs-0": world.pairing[0],
            "store": services.version_store,
            "reward": services.reward,
        }
        if part == "learner":
            world.learner.set_exception(death)
        else:
            held[part].alive.die(death)
        await forever()

    async with started(world, redis_url, run_name, tmp_path) as services:
        with pytest.raises(WorkerDiedError) as caught:
            await supervise(kill(services), watched(services, 60.0, none_left()))
    assert caught.value is death
    assert "store ends" in world.history


async def test_a_learner_that_returns_is_no_failure(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    """It writes its last version a moment before the loop ends."""
    world = World()

    async def main() -> None:
        world.learner.set_result({"version": 1.0})
        for _ in range(20):
            await asyncio.sleep(0)

    async with started(world, redis_url, run_name, tmp_path) as services:
        await supervise(main(), watched(services, 60.0, none_left()))
        assert await services.learner == {"version": 1.0}


@pytest.mark.parametrize(("loading", "limit"), [(False, "0.01"), (True, "0.02")])
async def test_an_engine_that_loads_weights_may_be_silent_as_long_as_that_may_take(
    loading: bool,
    limit: str,
    redis_url: str,
    run_name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hung(self: Engine, *arguments: Any) -> Any:
        await forever()

    monkeypatch.setattr(Engine, "ping", hung)
    monkeypatch.setattr(Engine, "load_weights", hung)
    world, budget = World(), budget_of(0, silence_s=0.01)

    async def main() -> None:
        if loading:
            await published(services)
        await forever()

    async with started(world, redis_url, run_name, tmp_path) as services:
        with pytest.raises(StallError, match=rf"rollout-0 did not answer for {limit} s; the same"):
            await supervise(main(), watched(services, 0.02, budget))


async def published(services: Services, version: int = 3) -> int:
    """Publish a version; how many engines have attested it."""
    manifest = WeightManifest(version=version).SerializeToString()
    event = await publish(services.engines, services.newest, manifest, None, 60.0, stage="online")
    return event.workers


DEATH = WorkerDiedError("it died: its process was killed or crashed; the same command goes on")


async def until(world: World, *events: str) -> None:
    async with asyncio.timeout(30):
        while not set(events) <= set(world.history):
            await asyncio.sleep(0.01)


async def test_engine_pairing_worker_and_learner_are_replaced_and_give_back_what_they_held(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world, said = World(), list[str]()
    budget = budget_of(1, said)

    async def main() -> None:
        assert await published(services) == 1
        await services.queues.dispatch(1, [Prompt(id="a", run=run_name, episode=1, index=0)])
        (item,) = await services.queues.take("prompts", "rollout-0.1", 1, 0.0)
        world.engines[0].alive.die(DEATH)
        world.pairing[1].alive.die(DEATH)
        world.learner.set_exception(DEATH)
        await until(world, "rollout-0.1.2 loads 3", "version withdrawn")
        while len(world.pairing) < 3 or world.history.count("learner starts") < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(ReplacedError):
            await services.queues.commit_rollout(item, Rollout())
        (again,) = await services.queues.take("prompts", "rollout-0.1.2", 1, 0.0)
        assert (again.prompt_id, again.deaths) == ("a", 1)
        # A version that is published while an engine is being replaced reaches its successor.
        assert await published(services) == 1

    async with started(world, redis_url, run_name, tmp_path, budget) as services:
        await services.store.move(1, State.SAMPLING)
        await supervise(main(), watched(services, 60.0, budget))
        ended = world.history.count("rollout-0 ends")
    assert ended == 1
    assert world.history[-1] == "rollout-0 ends"
    assert len(said) == 3
    assert all("it died: its process was killed" in text for text in said)
    assert all(text.endswith("; it is replaced") for text in said)


async def test_an_engine_that_dies_while_it_loads_a_version_is_replaced_within_the_publication(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world = World()
    budget = budget_of(1)

    async def main() -> None:
        world.engines[0].alive.die(DEATH)
        assert await published(services) == 1

    async with started(world, redis_url, run_name, tmp_path, budget) as services:
        await supervise(main(), watched(services, 60.0, budget))
    assert "rollout-0.1.2 loads 3" in world.history


async def test_a_part_that_dies_while_it_is_connected_is_replaced_before_the_loop_needs_it(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world = World(**{"pairs-1": DEATH, "rollout-0": DEATH})
    budget = budget_of(1)

    async def main() -> None:
        assert await published(services) == 1
        while len(world.pairing) < 3:
            await asyncio.sleep(0.01)

    async with started(world, redis_url, run_name, tmp_path, budget) as services:
        world.broken.clear()
        await supervise(main(), watched(services, 60.0, budget))
    assert "rollout-0.1.2 loads 3" in world.history


async def test_store_and_gateway_come_back_and_the_loop_goes_on(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world, said = World(), list[str]()
    budget = budget_of(1, said)

    async def main() -> None:
        services.version_store.alive.die(DEATH)
        services.reward.alive.die(DEATH)
        await until(world, "store is born again", "gateway is born again")

    async with started(world, redis_url, run_name, tmp_path, budget) as services:
        await supervise(main(), watched(services, 60.0, budget))
        assert "pairs-0 ends" not in world.history  # they have its address
    assert len(said) == 2


async def test_a_gateway_that_comes_back_elsewhere_gets_new_pairing_workers(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world, budget = World(), budget_of(1)
    world.next_address = "10.0.0.2:1"

    async def main() -> None:
        services.reward.alive.die(DEATH)
        await until(world, "pairs-0 ends", "pairs-1 ends")
        for worker in world.pairing[:2]:
            worker.alive.die(DEATH)  # as what was killed does
        async with asyncio.timeout(30):
            while len(world.pairing) < 4 or world.pairing[3].scorer is None:
                await asyncio.sleep(0.01)
        assert {worker.scorer.args[0] for worker in world.pairing[:2]} == {"127.0.0.1:1"}
        assert {worker.scorer.args[0] for worker in world.pairing[2:]} == {"10.0.0.2:1"}

    async with started(world, redis_url, run_name, tmp_path, budget) as services:
        await supervise(main(), watched(services, 60.0, budget))


async def test_a_spent_budget_ends_the_run_with_the_cause(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world = World()
    budget = budget_of(1)

    async def main() -> None:
        world.engines[0].alive.die(DEATH)
        while len(world.engines) < 2:
            await asyncio.sleep(0.01)
        world.engines[1].alive.die(DEATH)
        await forever()

    async with started(world, redis_url, run_name, tmp_path, budget) as services:
        with pytest.raises(WorkerError, match=r"rollout-0 was replaced 1 times .* again: it died"):
            await supervise(main(), watched(services, 60.0, budget))
