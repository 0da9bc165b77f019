"""A run on a real server, its model, and who works on it; the rules are in test_queues_model.py."""

import asyncio
import copy
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis
from hypothesis.stateful import RuleBasedStateMachine

from orchestrator.episodes import EpisodeStore
from pairloop.data.v1.pair_pb2 import DropReason
from pairloop.data.v1.rollout_pb2 import Prompt
from services.errors import LedgerError, PairloopError, ReplacedError
from services.queues.client import Client, connect
from services.queues.commits import Commits
from services.queues.items import Item, StreamName
from services.queues.keys import Keys
from services.queues.leases import Leases
from services.queues.looks import Looks
from services.queues.queues import RunQueues
from services.queues.run_lease import RunLease
from services.queues.settings import QueueSettings
from tests.integration.test_queues import pair_of, rollout_of
from tests.model.observed import STREAMS, Saved, Server
from tests.model.run_model import PARKED, Episode, RefusedError, Run
from tests.model.take_model import taken

WORKERS = 3
SETTINGS = QueueSettings(
    credits=5, max_failures=2, max_deaths=3, reclaim_idle_s=3000.0, retry_s=0.0
)
"""No lease runs out by the clock, and nothing is renewed by it."""
SCORED = [("scored", "")]
DROPS = {"TIE": SCORED, "MARGIN": SCORED, "SINGLE_ANSWER": []}
"""What a rollout may be dropped for, and the steps before."""
_REMEMBERED = 8
"""Steps that the server may lose."""
T = TypeVar("T")
Outcome = tuple[list[str], dict[str, str]]
"""Of an episode: what was trained, and why the others were not."""


@dataclass
class Worker:
    """One consumer, in a process of its own."""

    name: str
    epoch: int
    queues: RunQueues
    renewed: dict[str, set[str]] = field(
        default_factory=lambda: {stream: set() for stream in STREAMS}
    )


@dataclass
class Delivery:
    """An item that a worker has in mind, whatever became of it since."""

    stream: StreamName
    item: Item
    worker: Worker


class World(RuleBasedStateMachine):
    """Only `run` falls back with the server."""

    count, planned = 2, 4
    """How many, and of how many prompts each."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.name = url, f"model-{uuid.uuid4().hex[:12]}"
        self.runner, self.opened = (
            asyncio.Runner(),
            list[RunQueues | EpisodeStore | Client | Leases | Commits](),
        )
        self.server = Server(redis.Redis.from_url(url), Keys(self.name))
        self.run = Run(
            {number: Episode(self.planned) for number in range(1, self.count + 1)},
            SETTINGS.credits, SETTINGS.max_failures, SETTINGS.max_deaths,
        )  # fmt: skip
        self.prompts = {
            number: [
                Prompt(id=f"e{number}/p{index}", episode=number, index=index)
                for index in range(self.planned)
            ]
            for number in self.run.episodes
        }
        self.born = 0
        self.deliveries = list[Delivery]()
        self.learned, self.checkpoint = dict[int, Outcome](), dict[int, Outcome]()
        self.tool = self.do(connect(url, 5.0, (Keys(self.name).epoch, 0)))
        self.opened.append(self.tool)
        self.lease = RunLease(self.tool, self.name, 3000.0)
        self.lease_run()
        self.store = self.open_store()
        self.do(self.store.create(self.count, self.planned))
        self.history = list[tuple[Saved, tuple[Run, Any]]]()
        self.remember()
        self.open_queues()
        self.workers = [self.new_worker() for _ in range(WORKERS)]

    def do(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def refused(self, call: Coroutine[Any, Any, Any], error: type[PairloopError]) -> None:
        try:
            self.do(call)
        except error:
            return
        raise AssertionError(f"no {error.__name__}")

    def lease_run(self) -> None:
        """An orchestrator takes the run, where need be from whoever has it."""
        self.before, self.lease = self.lease, RunLease(self.tool, self.name, 3000.0)
        taken = self.lease_script("lease", self.lease, 0)
        if self.run.lease:
            assert taken[0] == 0, "somebody has it"
            taken = self.lease_script("lease", self.lease, 1)
        self.lease.epoch = int(taken[0])
        self.run.epoch += 1
        self.run.lease = self.lease._token
        assert self.lease.epoch == self.run.epoch

    def keep_lease(self, lease: RunLease) -> None:
        """Taken since is what has a newer epoch; one epoch for two is what a fall may leave."""
        another = self.run.lease not in ("", lease._token)
        taken = self.run.epoch > lease.epoch or (self.run.epoch == lease.epoch and another)
        assert bool(self.lease_script("keep_lease", lease, lease.epoch)) == taken
        if not taken:
            self.run.epoch, self.run.lease = lease.epoch, lease._token

    def end_lease(self, lease: RunLease) -> None:
        self.do(self.tool.script("end_lease", lease._keys[:1], [lease._token]))
        if self.run.lease == lease._token:
            self.run.lease = ""

    def lease_script(self, name: str, lease: RunLease, last: int) -> Any:
        return self.do(self.tool.script(name, lease._keys, [*lease._said(), last]))

    def open_queues(self) -> None:
        """The orchestrator's; its workers' are on the same connection."""
        self.queues = self.do(RunQueues.open(self.url, self.name, SETTINGS, self.lease.epoch))
        self.opened.append(self.queues)
        self.run.grouped |= set(STREAMS)

    def open_store(self) -> EpisodeStore:
        store = self.do(EpisodeStore.open(self.url, self.name, 5.0, self.lease.epoch))
        self.opened.append(store)
        return store

    def new_worker(self, name: str = "") -> Worker:
        self.born += not name
        queues = RunQueues(self.queues._client, self.name, SETTINGS)
        queues._taking._looks = Looks(0.0)  # each time, not by the clock
        self.opened += [queues._leases, queues._commits]
        return Worker(name or f"w{self.born}", self.lease.epoch, queues)

    def older(self, epoch: int) -> bool:
        """Whether another orchestrator has taken over since, as far as the server knows."""
        return epoch < self.run.epoch

    def give_back_all(self) -> None:
        """As an orchestrator does that begins: nobody whom it did not start is there any more."""
        given = 0
        for stream, items in self.run.streams.items():
            # A server knows one that found nothing, or does not: that depends on its version.
            known = self.server.consumers(stream) - {*PARKED}
            assert {item.holder for item in items} <= known | {*PARKED, ""}
            given += sum(self.run.give_back(stream, name, died=False) for name in known)
        assert self.do(self.queues.give_back_all()) == given

    def take_by(self, worker: Worker, stream: StreamName, count: int) -> None:
        call = worker.queues.take(stream, worker.name, count, 0.0)
        if self.older(worker.epoch) or worker.name in self.run.fenced:
            self.refused(call, ReplacedError)
            return
        dead = len(self.run.dead)
        items = self.do(call)
        if stream not in self.run.grouped:  # the server lost it; by now it is there again
            assert items == []
            self.run.grouped.add(stream)
            return
        buried = [letter.prompt_id for letter in self.do(self.queues.dead_letters())[dead:]]
        renewed = worker.renewed[stream]
        taken(self.run, stream, worker.name, renewed, count, items, buried)
        renewed.update(item.entry_id for item in items)
        self.deliveries += [Delivery(stream, item, worker) for item in items]

    def commit_one(self, delivery: Delivery, end: str) -> None:
        worker, item, queues = delivery.worker, delivery.item, delivery.worker.queues
        if delivery.stream == "prompts":
            events = [("sampled", worker.name)]
            call = queues.commit_rollout(item, rollout_of(item, worker.name))
        elif end == "paired":
            events, call = [*SCORED, (end, "0-0")], queues.commit_pair(item, pair_of(item))
        else:
            events = [*DROPS[end], ("dropped", end)]
            call = queues.commit_drop(item, DropReason.Value(f"DROP_REASON_{end}"))
        try:
            if self.older(worker.epoch):
                raise RefusedError
            expected = self.run.commit(delivery.stream, item.entry_id, worker.name, events)
        except RefusedError:
            self.refused(call, ReplacedError)
        else:
            assert self.do(call) == expected
            worker.renewed[delivery.stream].discard(item.entry_id)

    def commit_outcome(self, number: int, trained: list[str], dropped: dict[str, str]) -> None:
        call = self.queues.commit_trained(number, number, trained, dropped)
        try:
            expected = self.run.commit_trained(number, number, trained, dropped)
        except RefusedError:
            self.refused(call, LedgerError)
        else:
            assert self.do(call) == expected

    def remember(self, beside: Any = None) -> None:
        """How it is now, and what else falls back with the run."""
        self.history.append((self.server.save(), copy.deepcopy((self.run, beside))))
        del self.history[:-_REMEMBERED]

    def fall_back_by(self, steps: int) -> Any:
        """The server has lost what came after, for good; returns what falls back with the run."""
        del self.history[max(1, len(self.history) - steps) :]
        saved, models = self.history[-1]
        self.server.fall_back(saved)
        self.run, beside = copy.deepcopy(models)
        return beside

    def close(self) -> None:
        for each in reversed(self.opened):
            self.do(each.close())
        self.runner.close()
        self.server.forget()
        self.server.redis.close()
