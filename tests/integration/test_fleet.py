"""What may happen while workers join and leave: real Redis, every process a fake."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.online.engine_fleet import render
from orchestrator.online.healing import Budget
from orchestrator.online.scaling import Scalable, Scaling
from orchestrator.online.services import Services
from orchestrator.online.settings import RestartSettings
from orchestrator.online.supervision import supervise
from orchestrator.online.wanted import WANTED, WantedFile
from orchestrator.online.watched import watched
from pairloop.admin.v1 import admin_pb2 as admin
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout
from pairloop.data.v1.weights_pb2 import WeightManifest
from services.errors import (
    AttestationError,
    PairloopError,
    ReplacedError,
    ResourceError,
    StallError,
    StateError,
    UnreachableError,
)
from services.pairs.actor import PairHandle
from services.rollout.actor import RolloutHandle
from services.rollout.settings import EngineSettings
from services.states import State
from services.weights.version_store import Held
from tests.integration.test_online_services import (
    DEATH,
    Engine,
    Pairing,
    World,
    forever,
    published,
    started,
)


class Elastic(World):
    """Engines that can be held back while they start or load, and told to leave."""

    def __init__(self) -> None:
        super().__init__()
        self.start_gate, self.load_gate = asyncio.Event(), asyncio.Event()
        self.start_gate.set()
        self.load_gate.set()

    async def start_engines(
        self, settings: EngineSettings, policy: str, seed: int, names: Sequence[str]
    ) -> list[RolloutHandle]:
        await self.start_gate.wait()
        self.start("engines")
        made: list[RolloutHandle] = []
        for name in names:
            self.engines.append(Leaving(self, name))
            made.append(self.engines[-1])
        return made

    def start_pairing(self, name: str) -> PairHandle:
        self.pairing.append(Counting(self, name))
        return self.pairing[-1]


class Leaving(Engine):
    elastic: Elastic

    def __init__(self, world: Elastic, worker_id: str) -> None:
        super().__init__(world, worker_id)
        self.elastic = world
        self.drained = asyncio.Event()

    async def load_weights(self, manifest: bytes, weights: Any) -> bytes:
        self.elastic.note(f"{self.consumer} begins to load")
        while not self.elastic.load_gate.is_set():
            await self.alive.answer()
            await asyncio.sleep(0.01)
        return await super().load_weights(manifest, weights)

    async def drain(self) -> None:
        self.elastic.note(f"{self.worker_id} drains")
        await self.drained.wait()

    async def render(self, source: str, dialogues: Sequence[Any]) -> list[tuple[str, list[int]]]:
        await self.alive.answer()
        return [(self.worker_id, [1])]

    def kill(self) -> None:
        super().kill()
        with contextlib.suppress(asyncio.InvalidStateError):
            self.alive.die(DEATH)


class Counting(Pairing):
    async def drain(self) -> dict[int, dict[str, float]]:
        return {1: {"groups": 3.0, "pairs": 0.0}}


class Going:
    """A run that goes on until the block ends."""

    def __init__(self, world: Elastic, services: Services, said: list[str]) -> None:
        self.world, self.services, self.said = world, services, said
        self.playing: asyncio.Task[None]

    def states(self) -> dict[str, int]:
        return {worker.name: worker.state for worker in self.services.engines.workers()}

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():
                if self.playing.done():
                    self.playing.result()
                await asyncio.sleep(0.01)

    async def happens(self, event: str) -> None:
        await self.until(lambda: event in self.world.history)


@contextlib.asynccontextmanager
async def going(
    url: str, run: str, folder: Path, count: int = 1, drain_s: float = 60.0
) -> AsyncIterator[Going]:
    world, said = Elastic(), list[str]()
    budget = Budget(
        RestartSettings(count=count, backoff_s=0, drain_s=drain_s), "online", said.append
    )
    async with started(world, url, run, folder, budget, said.append) as services:
        await services.store.move(1, State.SAMPLING)
        here = Going(world, services, said)
        parts = watched(services, 60.0, budget)
        here.playing = asyncio.create_task(supervise(forever(), parts))
        await asyncio.sleep(0.01)  # until it is kept
        try:
            yield here
        finally:
            here.playing.cancel()
            await asyncio.gather(here.playing, return_exceptions=True)


STARTING, WORKING, DRAINING = (
    admin.WORKER_STATE_STARTING,
    admin.WORKER_STATE_WORKING,
    admin.WORKER_STATE_DRAINING,
)


async def scaled_to_two(here: Going) -> None:
    """Two engines work, with version 3."""
    assert await published(here.services) == 1
    assert here.services.engines.scale(2) == 1
    await here.until(lambda: here.states() == {"rollout-0": WORKING, "rollout-1": WORKING})


async def test_an_engine_that_starts_during_a_publication_is_not_waited_for_and_catches_up(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        here.world.start_gate.clear()
        here.services.engines.scale(2)
        assert await published(here.services) == 1
        assert here.states() == {"rollout-0": WORKING, "rollout-1": STARTING}
        here.world.start_gate.set()
        await here.happens("rollout-1.1 loads 3")
        await here.until(lambda: here.states() == {"rollout-0": WORKING, "rollout-1": WORKING})
        assert [text for text in here.said if text.startswith("rollout-1 joined with version 3")]


async def test_a_publication_waits_for_an_engine_that_loads_the_version_before(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        assert await published(here.services) == 1
        here.world.load_gate.clear()
        here.services.engines.scale(2)
        await here.happens("rollout-1.1 begins to load")
        here.services.version_store.held = Held(
            4, WeightManifest(version=4).SerializeToString(), {}, {}
        )
        publishing = asyncio.ensure_future(published(here.services, 4))
        await here.happens("rollout-0.1 begins to load")
        await asyncio.sleep(0.05)
        assert not publishing.done()
        here.world.load_gate.set()
        assert await publishing == 2
        assert here.world.history[-1].endswith(" loads 4")
        assert "rollout-1.1 loads 4" in here.world.history


async def test_an_engine_that_leaves_during_a_publication_does_not_fail_it(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path, drain_s=0.0) as here:
        await scaled_to_two(here)
        here.world.load_gate.clear()
        publishing = asyncio.ensure_future(published(here.services))
        await here.until(lambda: here.world.history.count("rollout-1.1 begins to load") == 2)
        here.services.engines.scale(1)
        await here.happens("rollout-1 ends")
        here.world.load_gate.set()
        assert await publishing == 1
        assert here.states() == {"rollout-0": WORKING}


async def test_what_a_leaving_engine_has_not_finished_in_time_goes_to_another_and_it_is_fenced(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path, drain_s=0.05) as here:
        await scaled_to_two(here)
        queues = here.services.queues
        await queues.dispatch(1, [Prompt(id="a", run=run_name, episode=1, index=0)])
        (item,) = await queues.take("prompts", "rollout-1.1", 1, 0.0)
        here.services.engines.scale(1)
        assert here.states() == {"rollout-0": WORKING, "rollout-1": DRAINING}
        await here.until(lambda: "rollout-1 left, 1 prompts handed back" in here.said)
        with pytest.raises(ReplacedError):
            await queues.commit_rollout(item, Rollout())
        (again,) = await queues.take("prompts", "rollout-0.1", 1, 0.0)
        assert (again.prompt_id, again.deaths) == ("a", 0)
        assert here.states() == {"rollout-0": WORKING}
        # A name is nobody's twice: what is fenced stays out.
        here.services.engines.scale(2)
        await here.until(lambda: here.states() == {"rollout-0": WORKING, "rollout-2": WORKING})


async def test_an_engine_that_drains_is_ended_when_it_has_finished(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        await scaled_to_two(here)
        here.services.engines.scale(1)
        await here.happens("rollout-1 drains")
        await asyncio.sleep(0.05)
        assert "rollout-1 ends" not in here.world.history
        here.world.engines[1].drained.set()
        await here.until(lambda: "rollout-1 left, 0 prompts handed back" in here.said)
        assert here.world.history[-2:] == ["rollout-1 drains", "rollout-1 ends"]


async def test_one_that_is_drained_leaves_and_another_takes_its_place(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        fleet = here.services.engines
        kinds = {admin.WORKER_KIND_ROLLOUT: Scalable("rollout workers", fleet, lambda more: "")}
        scaling = Scaling(kinds, here.said.append, WantedFile(tmp_path / WANTED))
        first = admin.Change(request_id="1", actor="ada", reason="its machine goes")
        with pytest.raises(StateError, match="no other worker of its kind works beside rollout-0"):
            scaling.drain("rollout-0", first)
        await scaled_to_two(here)
        with pytest.raises(StateError, match=r"no worker rollout-7 .* rollout-0, rollout-1"):
            scaling.drain("rollout-7", first)
        scaling.drain("rollout-0", first)
        assert here.said[-1] == "rollout-0 is to leave, by ada: its machine goes"
        await here.happens("rollout-0 drains")
        here.world.engines[0].drained.set()
        await here.until(lambda: here.states() == {"rollout-1": WORKING, "rollout-2": WORKING})
        scaling.drain("rollout-0", first)  # said again: it is done
        with pytest.raises(StateError, match="request id 1 was used for another change"):
            scaling.drain("rollout-1", first)
        assert fleet.wanted == 2


@pytest.mark.parametrize(
    ("part", "error"),
    [
        ("engines", StallError("1 rollout workers were not up within 300 s")),
        ("engines", ResourceError("the cluster has 0 GPUs")),
        ("rollout-1", UnreachableError("Redis does not answer there")),
        ("rollout-1", AttestationError("rollout-1 does not hold version 3")),
    ],
)
async def test_an_engine_that_does_not_come_up_is_wanted_no_more(
    part: str, error: PairloopError, redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        assert await published(here.services) == 1
        here.world.broken[part] = error
        here.services.engines.scale(2)
        told = f"{error}; the run goes on with 1 of this kind, and rollout-1 is wanted no more"
        await here.until(lambda: told in here.said)
        await here.until(lambda: here.states() == {"rollout-0": WORKING})
        assert here.services.engines.scale(1) == 0
        del here.world.broken[part]
        here.services.engines.scale(2)
        await here.until(lambda: here.states() == {"rollout-0": WORKING, "rollout-2": WORKING})


async def test_a_place_that_is_lost_is_looked_for_until_there_is_one(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        await scaled_to_two(here)
        queues = here.services.queues
        await queues.dispatch(1, [Prompt(id="a", run=run_name, episode=1, index=0)])
        await queues.take("prompts", "rollout-1.1", 1, 0.0)
        no_room = ResourceError("1 rollout workers ask for 1 GPUs, the cluster has 0")
        here.world.broken["engines"] = no_room
        here.world.engines[1].alive.die(DEATH)
        told = f"{no_room}; the run goes on with 1 of this kind, and looks for a place for one more"
        await here.until(lambda: here.said.count(told) >= 3)
        assert await published(here.services) == 1  # nobody waits for it
        (again,) = await queues.take("prompts", "rollout-0.1", 1, 0.0)
        assert again.deaths == 1
        del here.world.broken["engines"]
        await here.until(lambda: here.states() == {"rollout-0": WORKING, "rollout-2": WORKING})
        assert await published(here.services) == 2


async def test_the_last_engine_that_is_lost_ends_the_run(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        await scaled_to_two(here)
        here.world.broken["engines"] = ResourceError("the cluster has no room")
        here.world.engines[0].alive.die(DEATH)
        await here.until(lambda: set(here.states()) == {"rollout-1", "rollout-2"})
        here.world.engines[1].alive.die(DEATH)
        with pytest.raises(ResourceError, match="the cluster has no room"):
            await here.playing


async def test_prompts_are_rendered_by_whichever_engine_is_there(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        await scaled_to_two(here)
        engines = here.services.engines
        assert await render(engines, "policy", []) == [("rollout-0", [1])]
        here.world.broken["engines"] = StallError("no room")
        here.world.engines[0].alive.die(DEATH)
        assert await render(engines, "policy", []) == [("rollout-1", [1])]


async def test_a_pairing_worker_that_leaves_leaves_its_counts(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        pairing = here.services.pairing
        assert [slot.name for slot in pairing.slots] == ["pairs-0", "pairs-1"]
        pairing.scale(1)
        await here.until(lambda: "pairs-1 left, 0 rollouts handed back" in here.said)
        (gone,) = [slot for slot in pairing.all_slots if slot.name == "pairs-1"]
        assert await gone.stats(1) == {"groups": 3.0, "pairs": 0.0}
        assert await gone.stats(2) == {}
        assert [slot.name for slot in pairing.slots] == ["pairs-0"]


async def test_a_request_counts_once_and_none_counts_after_the_end(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    rollout = admin.WORKER_KIND_ROLLOUT
    async with going(redis_url, run_name, tmp_path) as here:
        fleet, heard = here.services.engines, list[str]()
        kinds = {rollout: Scalable("rollout workers", fleet, lambda more: f"{more} wait")}
        scaling = Scaling(kinds, heard.append, WantedFile(tmp_path / WANTED))
        first = admin.Change(request_id="1", actor="ada", reason="nodes came")
        assert scaling.scale(rollout, 3, first) == "2 wait"
        assert [worker.name for worker in scaling.list()] == [f"rollout-{n}" for n in range(3)]
        assert scaling.scale(rollout, 1, admin.Change(request_id="2")) == ""
        assert scaling.scale(rollout, 3, first) == "2 wait"
        assert heard[0] == "3 rollout workers wanted, by ada: nodes came; 2 wait"
        assert len(heard) == 2
        assert fleet.scale(1) == 0  # and it still wants one
        with pytest.raises(StateError, match="request id 1 was used for another change"):
            scaling.scale(rollout, 2, first)
        with pytest.raises(StateError, match="no workers of kind 2"):
            scaling.scale(admin.WORKER_KIND_PAIRING, 2, admin.Change(request_id="3"))
        with pytest.raises(StateError, match="1001 rollout workers are too many"):
            scaling.scale(rollout, 1001, admin.Change(request_id="3"))
        here.playing.cancel()
        await asyncio.wait({here.playing})
        with pytest.raises(StateError, match="needs no rollout workers any more"):
            scaling.scale(rollout, 2, admin.Change(request_id="4"))


async def test_the_pool_has_as_many_engines_as_the_config_says_when_the_stage_ends(
    redis_url: str, run_name: str, tmp_path: Path
) -> None:
    async with going(redis_url, run_name, tmp_path) as here:
        await scaled_to_two(here)
    ends = [event for event in here.world.history if event.startswith("rollout")]
    assert ends[-3:] == ["rollout-1 ends", "rollout-0 stops", "rollout-0 ends"]
