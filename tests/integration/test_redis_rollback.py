"""Redis dies and comes back without its last writes, again and again, under a running loop."""

import asyncio
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from orchestrator.episodes import EpisodeStore
from orchestrator.online.archive import LedgerArchive
from orchestrator.online.closing import drain
from orchestrator.online.ports import Weights
from pairloop.data.v1.weights_pb2 import Canary
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.online.episode_wait import EpisodeQueues
from services.learner.online.ports import Trained
from services.learner.train.distributed import Worker
from services.queues.client import Patience
from services.queues.embedded import EmbeddedRedis
from services.queues.ledger import ledger_audit
from services.queues.ledger_file import read_ledger_file
from services.queues.payload_folder import PayloadFolder
from services.queues.queues import RunQueues
from services.queues.settings import QueueSettings
from services.weights.manifest import build_manifest
from tests.fake_engine import FakeEngine
from tests.integration.test_whole_loop import EPISODES, World

QUEUES = QueueSettings(credits=32, outage_s=60.0, reclaim_idle_s=2.0, inline_bytes=0)
"""Every payload lies outside of Redis, where there is a place for it."""
PATIENCE = Patience(60.0)


class Server:
    """An embedded Redis that can lose what it wrote last."""

    def __init__(self, folder: Path) -> None:
        self.redis = EmbeddedRedis.start(folder, "everysec")
        self._file = folder / "appendonly.aof"

    def written(self) -> int:
        """How much is in its file."""
        return self._file.stat().st_size

    async def holds(self, text: bytes) -> None:
        """Until its file has this: what Redis answered may not be written yet."""
        while text not in self._file.read_bytes():
            await asyncio.sleep(0.01)

    def fall_back(self, size: int) -> None:
        """Die, and come back with the first `size` bytes alone."""
        os.kill(self.redis.pid, signal.SIGKILL)
        while self.redis.alive:
            time.sleep(0.01)
        os.truncate(self._file, size)
        self.redis.revive()


@dataclass
class Learner:
    """The real waits and commits of the learner, in a thread, around a training that is none."""

    url: str
    run: str
    payloads: PayloadFolder | None
    checkpoint: list[Trained] = field(default_factory=list)
    """What outlives everything: by episode."""
    _version: threading.Condition = field(default_factory=threading.Condition)

    def work(self) -> None:
        place = OnlinePlace(
            stage="online", seed=0, out="", run=self.run, folder="", canary_tokens=[0, 0],
            redis_url=SecretStr(self.url),
        )  # fmt: skip
        settings = OnlineDPOSettings.model_construct(
            episodes=EPISODES.model_copy(update={"timeout_s": 60.0}), queues=QUEUES
        )
        connect = partial(RunQueues.open, payloads=self.payloads)
        queues = EpisodeQueues(settings, place, connect, Worker.current(0))
        queues.make_good(0, lambda episode: self.checkpoint[episode - 1])
        for episode in range(1, EPISODES.count + 1):
            sampled = None
            while sampled is None:
                assert queues.wait_for_training(episode, lambda: None)
                sampled = queues.sampled(episode)
            ids = [pair.id for pair in sampled.pairs]
            self.checkpoint.append(Trained(episode, ids, sampled.dropped))
            with self._version:
                self._version.notify_all()
            queues.commit_trained(self.checkpoint[-1])
        queues.wait_for_completion(EPISODES.count, lambda: None)
        queues.close()

    def wait(self, version: int) -> None:
        with self._version:
            assert self._version.wait_for(lambda: len(self.checkpoint) >= version, 60)


class Falling(World):
    """A world whose learner is the one above."""

    learner: Learner
    folder: Path

    async def weights(self, version: int, timeout_s: float) -> Weights:
        await asyncio.to_thread(self.learner.wait, version)
        held = len(self.learner.checkpoint)
        tensors = {"w": np.full(4, float(held), dtype=np.float32)}
        manifest = build_manifest(self.run, held, 0, tensors, {"w": "float32"}, Canary(), {"w": 4})
        return Weights(held, (manifest.SerializeToString(), tensors), {"loss": 0.6})

    async def archive(self, episode: int) -> bool:
        archive = LedgerArchive(self.folder, self.queues, self.planned().__getitem__, print)
        return await archive.put_away(episode)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_no_prompt_is_lost_or_trained_twice_when_redis_loses_its_last_writes(
    seed: int, outside: bool, tmp_path: Path
) -> None:
    payloads = PayloadFolder(tmp_path / "payloads") if outside else None
    rng = random.Random(seed)
    server = Server(tmp_path / "redis")
    url, run = server.redis.url, f"fall-{seed}"
    queues = await RunQueues.open(url, run, QUEUES, 0, payloads)
    store = await EpisodeStore.open(url, run, 5.0, 0, PATIENCE)
    await store.create(EPISODES.count, EPISODES.prompts)
    await server.holds(b"layout")  # the last that is written of that
    world = Falling(queues, store, run, [FakeEngine(worker_id="rollout-0", steps=30)])
    world.learner, world.folder = Learner(url, run, payloads), tmp_path
    learning = asyncio.create_task(asyncio.to_thread(world.learner.work))

    async def play() -> None:
        await world.play()
        await drain(learning, world.driven, EPISODES)

    playing = asyncio.create_task(play())
    falls = 0
    while not (playing.done() or learning.done()) and falls < 6:
        size = server.written()
        await asyncio.sleep(rng.uniform(0.0, 0.3 * falls))
        if server.written() > size:
            await asyncio.to_thread(server.fall_back, size)
            falls += 1
    # The learner first: where it has died, what the loop says of that is not the cause.
    await asyncio.wait_for(asyncio.gather(learning, playing), 90)
    assert falls > 0

    held = world.learner.checkpoint
    for done in held:
        ids = [*done.trained, *done.dropped]
        assert sorted(ids) == world.planned()[done.episode]
        ledger = list(
            read_ledger_file(tmp_path / "ledger" / f"episode-{done.episode:05d}.jsonl.gz")
        )
        assert ledger_audit(ledger, {done.episode: ids}) == []
        kinds = Counter(event.kind for event in ledger)
        assert kinds["trained"] == len(done.trained)
        assert set(done.dropped.values()) <= {"TIE", "SINGLE_ANSWER", "MARGIN"}
    assert [done.episode for done in held] == list(range(1, EPISODES.count + 1))
    assert not list(tmp_path.glob("dead/*"))
    assert len(list(tmp_path.glob("payloads/*"))) == outside * EPISODES.count  # none goes so soon
    await queues.close()
    await store.close()
    server.redis.stop()
