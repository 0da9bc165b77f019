"""What an online run starts, and that it is ended again: real Redis, every process a fake."""

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.online.services import Services, Starters, start_services, watched
from orchestrator.online.supervision import supervise
from orchestrator.stages.context import RunContext, StageContext
from orchestrator.stages.engines import EnginePool
from services.errors import PairloopError, ResourceError, StallError, WorkerDiedError, WorkerError
from services.pairs.actor import PairHandle
from services.reward.launch import RunningReward
from services.rollout.actor import RolloutHandle
from services.weights.version_store import VersionStoreHandle
from tests.unit import learner_parts


class World:
    """Fakes of every process, which take note; what is in `broken` does not start."""

    def __init__(self, **broken: PairloopError) -> None:
        self.history: list[str] = []
        self.broken = broken
        self.learner: Future[dict[str, float]] = Future()
        self.reward_waits: asyncio.Event | None = None

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
            pairing=lambda count: [Pairing(self, f"pairs-{n}") for n in range(count)],
        )

    def start_learner(self, *arguments: Any, **options: Any) -> "Future[dict[str, float]]":
        self.start("learner")
        return self.learner

    def start_reward(self, *arguments: Any, **options: Any) -> RunningReward:
        self.start("reward")
        return Reward(self)

    async def start_engines(self, *arguments: Any) -> list[RolloutHandle]:
        self.start("engines")
        return [Engine(self, "rollout-0")]


class Alive:
    """Work that never ends and pings that answer, until `die`."""

    def __init__(self) -> None:
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def die(self, error: Exception) -> None:
        self._end.set_exception(error)

    async def run(self) -> None:
        await asyncio.shield(self._end)

    async def answer(self) -> None:
        if self._end.done():
            self._end.result()


class Store(VersionStoreHandle):
    def __init__(self, world: World) -> None:
        super().__init__(actor=None)
        self._world = world
        self.alive = Alive()
        world.start("store")

    async def ping(self) -> None:
        await self.alive.answer()

    def kill(self) -> None:
        self._world.note("store ends")


class Reward(RunningReward):
    def __init__(self, world: World) -> None:
        super().__init__("reward-of-a-test", None, "127.0.0.1:1")
        self._world = world
        self.error: Exception | None = None

    async def ping(self) -> None:
        if self.error:
            raise self.error

    def stop(self, timeout_s: float = 10.0) -> None:
        self._world.note("reward ends")


class Engine(RolloutHandle):
    def __init__(self, world: World, worker_id: str) -> None:
        super().__init__(worker_id, actor=None)
        self._world = world
        self.alive = Alive()

    async def tokenizer_fingerprint(self, policy: str) -> str:
        return "a tokenizer's"

    async def start(self, connect: Any, consumer: str) -> None:
        self._world.start(self.worker_id)

    async def run(self) -> None:
        await self.alive.run()

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
        self.alive = Alive()

    async def start(self, *arguments: Any, **options: Any) -> None:
        self._world.start(self.name)

    async def run(self) -> None:
        await self.alive.run()

    async def ping(self) -> None:
        await self.alive.answer()

    def kill(self) -> None:
        self._world.note(f"{self.name} ends")


@contextlib.asynccontextmanager
async def started(world: World, url: str, run: str, folder: Path) -> Any:
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
        shared = RunContext(run, folder, lambda event: None, sink=None, engines=engines)
        context = StageContext(shared, "online", 0, folder / "out", folder / "scratch", "trunk")
        async with contextlib.AsyncExitStack() as stack:
            yield await start_services(job, context, run, url, 1, 0, stack, world.starters())


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
        ("learner", ["store ends", *PAIRING, "rollout-0 stops"]),
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
            "rollout-0": services.engines[0],
            "pairs-0": services.pairing[0],
            "store": services.version_store,
        }
        if part == "learner":
            world.learner.set_exception(death)
        elif part == "reward":
            assert isinstance(services.reward, Reward)
            services.reward.error = death
        else:
            held[part].alive.die(death)
        await forever()

    async with started(world, redis_url, run_name, tmp_path) as services:
        with pytest.raises(WorkerDiedError) as caught:
            await supervise(kill(services), watched(services, load_s=60.0))
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
        await supervise(main(), watched(services, load_s=60.0))
        assert await services.learner == {"version": 1.0}


async def test_an_engine_may_be_silent_as_long_as_a_load_of_weights_may_take(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    world = World()
    async with started(world, redis_url, run_name, tmp_path) as services:
        engine = services.engines[0]

        class Hung(Engine):
            async def ping(self) -> int:
                await forever()
                return 0

        hung = replace(services, engines=[Hung(world, engine.worker_id)])
        with pytest.raises(StallError, match=r"rollout-0 did not answer for 0\.01 s; the same"):
            await supervise(forever(), watched(hung, load_s=0.01))
