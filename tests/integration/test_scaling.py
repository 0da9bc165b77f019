"""Workers that join and leave a running run: real Ray, Redis, queues, states, broadcast, admin API.

Engines and reward are fakes in real processes, and so is a learner that reads the kept pairs,
commits them and publishes, as far as the test lets it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from orchestrator.cli.main import main
from orchestrator.control.own import served
from orchestrator.jobs.online_dpo import OnlineDPO
from orchestrator.loop import run_episodes
from orchestrator.online.healing import Budget
from orchestrator.online.parts import Starters
from orchestrator.online.run import _ports
from orchestrator.online.services import Services, start_services
from orchestrator.online.settings import RestartSettings
from orchestrator.online.supervision import supervise
from orchestrator.online.watched import watched
from orchestrator.stages.context import RunContext, StageContext
from orchestrator.stages.engines import EnginePool
from pairloop.admin.v1 import admin_pb2 as admin
from pairloop.data.v1.weights_pb2 import Canary
from services.errors import WorkerDiedError
from services.queues.ledger import LedgerEvent, ledger_audit
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.reward.composite import build
from services.reward.gateway import Gateway
from services.reward.launch import RunningReward
from services.reward.serve_app import score_request
from services.reward.settings import RewardSettings
from services.telemetry.record.events import AdminListening, Event, Note
from services.telemetry.record.sink import start_sink
from services.weights.manifest import build_manifest
from services.weights.version_store import start_version_store
from tests.chaos.driver import start_engines
from tests.unit import learner_parts

EPISODES, PROMPTS = 16, 12
REWARD = RewardSettings.model_validate({"parts": [{"kind": "checker"}]})


class Scores:
    """The reward in this process, shaped like a Serve handle."""

    class score:
        @staticmethod
        async def remote(payload: bytes) -> object:
            return score_request(build(REWARD, "."), payload)

    class describe:
        @staticmethod
        async def remote() -> bytes:
            return b""


class Reward(RunningReward):
    def __init__(self, address: str) -> None:
        super().__init__("reward-of-a-test", None, None, address, token="")

    async def ping(self) -> str:
        return "the only one"

    def stop(self, timeout_s: float = 10.0) -> None:
        pass


class Run:
    """A run, and what it saw."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.events: list[Event] = []
        self.ledger: list[LedgerEvent] = []
        self.pairs: dict[int, list[tuple[str, str]]] = {}
        """Of each trained episode: prompt and chosen answer."""
        self.services: Services
        self.playing: asyncio.Task[None]
        self._may = 0
        self._let = asyncio.Condition()

    @property
    def said(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    @property
    def address(self) -> str:
        (found,) = (e.command for e in self.events if isinstance(e, AdminListening))
        return found.split()[found.split().index("--address") + 1]

    async def let(self, version: int) -> None:
        """The learner may publish this version."""
        async with self._let:
            self._may = version
            self._let.notify_all()

    async def learn(self, store: Any) -> None:
        """The learner's part of a run."""
        queues = await RunQueues.open(self.url, self.name, QueueSettings(), 1)
        for version in range(EPISODES + 1):
            async with self._let:
                await self._let.wait_for(lambda: self._may >= version)  # noqa: B023
            if version:
                while await queues.episode_state(version) != "TRAINING":
                    await asyncio.sleep(0.02)
                pairs = await queues.pairs(version)
                self.pairs[version] = [(pair.id, pair.chosen.text) for pair in pairs]
                ids = [pair.id for pair in pairs]
                await queues.commit_trained(version, version, ids, await queues.dropped(version))
            tensors = {"w": np.full(4, float(version), dtype=np.float32)}
            manifest = build_manifest(
                "run", version, 0, tensors, {"w": "float32"}, Canary(), {"w": 4}
            )
            refs = {name: ray.put(array) for name, array in tensors.items()}
            await store.publish.remote(version, manifest.SerializeToString(), refs, {})
        await queues.close()

    async def put_away(self, episode: int) -> None:
        """What a finished episode left proves itself."""
        events = await self.services.queues.ledger(episode)
        planned = [f"run/e{episode:05d}/p{index:05d}" for index in range(PROMPTS)]
        assert ledger_audit(events, {episode: planned}) == []
        self.ledger += events

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(120):
            while not true():
                assert not self.playing.done() or self.playing.result() is None
                await asyncio.sleep(0.05)

    def engines(self) -> list[tuple[str, int]]:
        """Names and versions; [] unless all of them work."""
        return _working(self.services.engines.workers())

    def pairing(self) -> list[str]:
        """As `engines`."""
        return [name for name, _ in _working(self.services.pairing.workers())]

    def samplers(self) -> set[str]:
        """Who sampled anything that is in the ledger of a finished episode."""
        return {event.detail for event in self.ledger if event.kind == "sampled"}

    async def client(self, *words: str) -> None:
        assert await asyncio.to_thread(main, ["--address", self.address, *words]) == 0


def _working(workers: list[admin.Worker]) -> list[tuple[str, int]]:
    if any(worker.state != admin.WORKER_STATE_WORKING for worker in workers):
        return []
    return [(worker.name, worker.weight_version) for worker in workers]


@contextlib.asynccontextmanager
async def run_of(url: str, name: str, folder: Path) -> AsyncIterator[Run]:
    folder.mkdir()
    (folder / "scratch").mkdir()
    words = ["red green blue", "one two", "three two one", "green red", "blue two red one"]
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": w, "metadata": {"answer": w}}) + "\n" for w in words)
    )
    job = OnlineDPO.model_validate(
        {
            "job": "online_dpo",
            "policy": learner_parts.policy(folder / "policy"),
            "prompts": {"path": str(folder / "prompts.jsonl")},
            "reward": {"parts": [{"kind": "checker"}]},
            "sampling": {"n": 4, "max_tokens": 24},
            "episodes": {"count": EPISODES, "prompts": PROMPTS, "timeout_s": 120},
            "engine": {"workers": 1, "num_cpus": 0.5, "max_model_len": 256},
            "admin": {"port": 0},
        }
    )
    run = Run(url, name)
    gateway = Gateway(REWARD)
    reward = Reward(await gateway.start(Scores))
    store = start_version_store()
    learning = asyncio.ensure_future(run.learn(store.actor))
    future: Future[dict[str, float]] = Future()

    def ended(done: "asyncio.Future[None]") -> None:
        if not done.cancelled() and (error := done.exception()):
            future.set_exception(error)

    learning.add_done_callback(ended)
    starters = Starters(
        version_store=lambda: store,
        learner=lambda *arguments, **options: future,
        reward=lambda *arguments, **options: reward,
    )
    budget = Budget(RestartSettings(backoff_s=0), "online", run.events.append)
    async with EnginePool(0, start_engines) as engines, contextlib.AsyncExitStack() as stack:
        shared = RunContext(
            name, folder, run.events.append, sink=start_sink().actor, engines=engines
        )
        await stack.enter_async_context(served(shared.live, job.admin, url, print))
        context = StageContext(shared, "online", 0, folder / "out", folder / "scratch", "trunk")
        run.services = await start_services(job, context, name, url, 1, 0, stack, budget, starters)
        loop = run_episodes(_ports(job, context, "run", run.services, run), job.episodes)
        parts = watched(run.services, 60.0, budget)
        run.playing = asyncio.create_task(supervise(loop, parts))
        try:
            yield run
        finally:
            run.playing.cancel()
            learning.cancel()
            await asyncio.gather(run.playing, learning, return_exceptions=True)
            await gateway.stop()


@pytest.mark.timeout(600)  # sixteen episodes twice, and a process for each who joins
async def test_engines_and_pairing_workers_join_and_leave_and_every_prompt_is_trained_once(
    cluster: None,
    redis_url: str,
    run_name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with run_of(redis_url, run_name, tmp_path / "scaled") as run:
        # Before the first version is there, and then while an episode waits for its training.
        await run.client("workers", "scale", "rollout=2")
        await run.let(2)
        await run.until(lambda: run.engines() == [("rollout-0", 2), ("rollout-1", 2)])
        await run.client("workers", "scale", "rollout=3", "pairing=3")
        await run.until(lambda: [name for name, _ in run.engines()][2:] == ["rollout-2"])
        await run.until(lambda: run.pairing() == ["pairs-0", "pairs-1", "pairs-2"])
        assert run.engines() == [(f"rollout-{number}", 2) for number in range(3)]
        version = 2
        while len(run.samplers()) < 3:
            version += 1
            await run.let(version)
            await run.until(lambda: run.services.newest.version == version)  # noqa: B023
        handles = [slot.engine for slot in run.services.engines.slots]

        await run.let(version + 2)  # they sample while they are told to leave
        await run.client("workers", "scale", "rollout=1", "pairing=1")
        await run.until(lambda: [name for name, _ in run.engines()] == ["rollout-0"])
        await run.until(lambda: run.pairing() == ["pairs-0"])
        for handle in handles[1:]:
            with pytest.raises(WorkerDiedError):
                await handle.ping()
        for stream in ("prompts", "rollouts"):
            key = run.services.queues._keys.stream(stream)
            consumers = await run.services.queues._client.consumers(key, "workers")
            assert not [name for name in consumers if name.endswith(("-1.1", "-2.1"))]

        await run.until(lambda: run.services.newest.version == version + 2)
        await run.client("episodes", "pause", "--reason", "a look", str(version + 4))
        await run.let(version + 3)
        await run.until(lambda: run.services.newest.version == version + 3)
        await run.client("workers", "scale", "rollout=2")
        await run.until(lambda: len(run.engines()) == 2)
        assert run.engines() == [("rollout-0", version + 3), ("rollout-3", version + 3)]
        held = await run.services.store.get(version + 4)
        assert (held.state, held.dispatched) == (admin.EPISODE_STATE_PAUSED, 0)
        await run.client("episodes", "resume")
        await run.let(EPISODES)
        await asyncio.wait_for(run.playing, 120)
        states = {episode.state for episode in await run.services.store.list()}
        assert states == {admin.EPISODE_STATE_COMPLETED}

    said = [text.split(" after ")[0] for text in run.said if " joined" in text or " left" in text]
    first = [text for text in said if text.startswith("rollout-1 joined with version")]
    assert sorted(text for text in said if text not in first) == [
        "pairs-1 joined",
        "pairs-1 left, 0 rollouts handed back",
        "pairs-2 joined",
        "pairs-2 left, 0 rollouts handed back",
        "rollout-1 left, 0 prompts handed back",
        "rollout-2 joined with version 2",
        "rollout-2 left, 0 prompts handed back",
        f"rollout-3 joined with version {version + 3}",
    ]
    assert len(first) == 1
    # No engine sampled from another version than the loop meant, so none was dropped as stale.
    paired = {(event.episode, event.detail) for event in run.ledger if event.kind == "paired"}
    assert paired == {(number, f"{number - 1}-{number - 1}") for number in range(1, EPISODES + 1)}

    async with run_of(redis_url, f"{run_name}-calm", tmp_path / "calm") as calm:
        await calm.let(EPISODES)
        await asyncio.wait_for(calm.playing, 120)
    assert calm.samplers() == {"rollout-0"}
    assert run.pairs == calm.pairs
