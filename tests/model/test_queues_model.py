"""The queues of a run against a model, in whatever order things happen to them.

Workers take, commit, commit again, fail, die, stand still and come back; the orchestrator is
replaced; the learner trains, and commits what its checkpoint holds; Redis falls back to what it
held earlier, and nobody who wrote to it does. After each step the server holds what the model does,
and in the end every prompt of every episode was trained or dropped, once.
"""

import sys
from typing import get_args

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from services.errors import ReplacedError, StateError
from services.queues.items import StreamName
from services.queues.ledger import ledger_audit
from services.states import HELD, State
from tests.integration.test_queues_episodes import change
from tests.model.conftest import profile
from tests.model.run_model import RefusedError
from tests.model.world import DROPS, WORKERS, Delivery, World

streams = st.sampled_from(get_args(StreamName))
MOVES = (State.SAMPLING, State.TRAINING, State.TRAINING, State.PUBLISHING, State.COMPLETED)
ORCHESTRATORS = (
    "take over",
    "lost",
    "renew",
    "the one before renews",
    "end",
    "the one before ends",
)
episodes = st.integers(1, World.count)
ends = st.sampled_from(["paired", "paired", *DROPS, "fail", "fail", "died", "died", "left"])
workers = st.integers(0, WORKERS - 1)
recent = st.integers(0, 5)


busy = precondition(lambda self: self.deliveries)


class QueuesMachine(World):
    @initialize(turns=st.integers(0, 8))
    def begin(self, turns: int) -> None:
        self.all_goes_well_for_a_while(1, turns)

    # The orchestrator.

    @rule(number=episodes, first=st.integers(-2, 2), count=st.integers(1, World.planned))
    def dispatch(self, number: int, first: int, count: int) -> None:
        """Some of the prompts from about the first that is missing on, once the episode before has
        all of its own: else the two might wait for each other's credits.
        """
        before = self.run.episodes.get(number - 1)
        if before and before.counters()["dispatched"] < World.planned:
            return
        known = self.run.episodes[number].counters()["dispatched"]
        some = self.prompts[number][max(0, known + first) :][:count]
        if not some:
            return
        expected = self.run.dispatch(number, [(prompt.index, prompt.id) for prompt in some])
        sent = self.do(self.queues.dispatch(number, some))
        assert (sent.sent, sent.known, sent.refused) == expected

    @rule(number=episodes, to=st.sampled_from(MOVES))
    def move(self, number: int, to: State) -> None:
        """Tried at any time: the server knows what is allowed."""
        try:
            self.run.move(number, to)
        except RefusedError:
            self.refused(self.store.move(number, to), StateError)
        else:
            self.do(self.store.move(number, to))

    @rule(number=episodes)
    def pause_or_resume(self, number: int) -> None:
        if self.run.episodes[number].state in HELD:
            self.resume(number)
        else:
            self.pause(number)

    def pause(self, number: int) -> None:
        to = {"PENDING": "PAUSED", "SAMPLING": "PAUSING"}.get(self.run.episodes[number].state)
        if to is None:
            self.refused(self.store.pause(number, change("")), StateError)
        else:
            self.run.move(number, to)
            self.do(self.store.pause(number, change("")))

    def resume(self, number: int) -> None:
        self.run.move(number, self.run.episodes[number].paused_from)
        self.do(self.store.resume(number, change("")))

    def publish(self, number: int) -> None:
        episode = self.run.episodes[number]
        if episode.state in ("PUBLISHING", "COMPLETED") and episode.archived is None:
            expected = self.run.published(number, number)
            assert self.do(self.queues.published(number, number)) == expected

    def put_away(self, number: int) -> None:
        """Once more where Redis forgot that it was."""
        episode = self.run.episodes[number]
        if episode.state == "COMPLETED" and episode.archived is None:
            ids = [prompt.id for prompt in self.prompts[number]]
            events = self.do(self.queues.ledger(number))
            assert ledger_audit(events, {number: ids}) == []
            counted = self.do(self.queues.counters(number))
            lost = sum(n for name, n in counted.items() if name.startswith("dropped:"))
            assert counted["dispatched"] == counted["trained"] + lost == World.planned
            assert sorted(self.checkpoint[number][0]) == sorted(episode.having("trained"))
            self.do(self.queues.forget(number))
            self.run.forget(number)

    @rule(
        what=st.sampled_from(["take over", "renew", "the one before", "end", "end before", "lost"])
    )
    def orchestrators(self, what: str) -> None:
        if what == "take over":
            self.take_over()
        elif what == "lost":  # that it took over; it does not know
            self.take_over()
            self.fall_back_by(1)
            self.keep_lease(self.lease)
        elif "end" in what:
            self.end_lease(self.before if "before" in what else self.lease)
        else:
            self.keep_lease(self.before if "before" in what else self.lease)

    def take_over(self) -> None:
        self.lease_run()
        self.store = self.open_store()
        self.open_queues()
        self.give_back_all()
        self.workers = [self.new_worker() for _ in range(WORKERS)]

    # The workers.

    @rule(
        number=episodes, who=workers, stream=streams, count=st.integers(1, 3), end=ends,
        times=st.integers(1, 3),
    )  # fmt: skip
    def turns(
        self, number: int, who: int, stream: StreamName, count: int, end: str, times: int
    ) -> None:
        for _ in range(times):
            self.turn(number, who, stream, count, end)

    @rule(number=episodes, who=workers, count=st.integers(1, 3), end=ends, sampled=ends)
    def both_turns(self, number: int, who: int, count: int, end: str, sampled: str) -> None:
        self.turn(number, who, "prompts", count, sampled)
        self.turn(number, who, "rollouts", count, end)

    def turn(self, number: int, who: int, stream: StreamName, count: int, end: str) -> None:
        """Some more work is there, somebody takes of it, and all of that has one end."""
        if self.run.episodes[number].state == "PENDING":
            self.move(number, State.SAMPLING)
        self.dispatch(number, 0, count)
        self.server.compare(self.run)
        before = len(self.deliveries)
        self.take_by(self.workers[who], stream, count)
        for place in range(len(self.deliveries) - before):
            if end == "held":
                continue
            if end == "fail":
                self.fail(place)
            elif end in ("died", "left"):
                self.ends(who, end == "died")
            else:
                self.commit(place, end)

    @rule(who=workers, stream=streams, count=st.integers(1, 3))
    def take(self, who: int, stream: StreamName, count: int) -> None:
        self.take_by(self.workers[who], stream, count)

    def late(self, which: int) -> Delivery:
        """One of the last, whatever became of it."""
        return self.deliveries[-1 - which % len(self.deliveries)]

    @busy
    @rule(which=recent, stream=streams)
    def a_late_one_takes(self, which: int, stream: StreamName) -> None:
        self.take_by(self.late(which).worker, stream, 1)

    @busy
    @rule(which=recent, end=st.sampled_from(["paired", "paired", "paired", *DROPS]))
    def commit(self, which: int, end: str) -> None:
        """Of what was delivered lately, also what was committed or lost since."""
        self.commit_one(self.late(which), end)

    @busy
    @rule(which=recent)
    def fail(self, which: int) -> None:
        delivery = self.late(which)
        worker, item = delivery.worker, delivery.item
        call = worker.queues.fail(delivery.stream, item, "on purpose")
        if self.older(worker.epoch):
            self.refused(call, ReplacedError)
            return
        expected = self.run.fail(delivery.stream, item.entry_id, worker.name)
        assert self.do(call) == expected
        worker.renewed[delivery.stream].discard(item.entry_id)

    @rule(who=workers, died=st.booleans())
    def ends(self, who: int, died: bool) -> None:
        """As the orchestrator sees it: the old one may still send something."""
        old = self.workers[who]
        for stream in get_args(StreamName):
            expected = self.run.give_back(stream, old.name, died)
            assert self.do(self.queues.give_back(stream, old.name, died)) == expected
        self.workers[who] = self.new_worker()

    @rule(who=workers)
    def starts_again_under_its_name(self, who: int) -> None:
        self.workers[who] = self.new_worker(self.workers[who].name)

    @busy
    @rule(which=recent)
    def stands_still(self, which: int) -> None:
        """It renews nothing of what it holds, for long."""
        name = self.late(which).worker.name
        for stream, items in self.run.streams.items():
            held = [item for item in items if item.holder == name]
            self.server.grow_old(stream, [(item.entry, name) for item in held])
            for item in held:
                item.stale = True

    @busy
    @rule(which=recent)
    def renews(self, which: int) -> None:
        worker = self.late(which).worker
        for stream in get_args(StreamName):
            held = dict.fromkeys(worker.renewed[stream], worker.name)
            call = worker.queues._leases._renew_stream(stream, held)
            if held and self.older(worker.epoch):
                self.refused(call, ReplacedError)
                continue
            self.do(call)
            for entry in held:
                item = self.run.found(stream, entry)
                if item and item.holder == worker.name and worker.name not in self.run.fenced:
                    item.stale = False
                else:
                    worker.renewed[stream].discard(entry)
                    if item and worker.name in self.run.fenced:
                        self.run.give_up(item, worker.name)
            assert (
                set(worker.queues._leases.entries(stream, worker.name)) == (worker.renewed[stream])
            )

    # The learner.

    @rule(number=episodes, left_out=st.booleans())
    def learn(self, number: int, left_out: bool) -> None:
        """Trains on what is there; one pair may be too long for it."""
        episode = self.run.episodes[number]
        if episode.state not in ("TRAINING", "PUBLISHING") or number in self.checkpoint:
            return
        pairs = [pair.id for pair in self.do(self.queues.pairs(number))]
        assert pairs == sorted(episode.having("paired"))
        dropped = self.do(self.queues.dropped(number))
        if left_out and pairs:
            dropped[pairs.pop()] = "TOO_LONG"
        self.learned[number] = (pairs, dropped)

    @rule(number=episodes)
    def checkpoint_and_commit(self, number: int) -> None:
        """Episode by episode; what is lost is committed again, from the first that is not over."""
        if number in self.learned and number == len(self.checkpoint) + 1:
            self.checkpoint[number] = self.learned[number]
        if number in self.checkpoint:
            self.commit_outcome(number, *self.checkpoint[number])

    @precondition(lambda self: self.checkpoint)
    @rule(number=episodes, place=st.integers(0, World.planned - 1))
    def contradict(self, number: int, place: int) -> None:
        """A learner that says otherwise of one prompt that was committed as trained."""
        trained, dropped = self.checkpoint.get(number, ([], {}))
        if place < len(trained) and trained[place] in self.run.episodes[number].having("trained"):
            others = [id_ for id_ in trained if id_ != trained[place]]
            self.commit_outcome(number, others, {trained[place]: "TOO_LONG", **dropped})

    # The server.

    @rule(number=episodes, steps=st.integers(1, 6), stream=streams)
    def what_a_checkpoint_holds_is_lost(self, number: int, steps: int, stream: StreamName) -> None:
        """And partly done again, with some of it waiting, before the learner sees that."""
        self.all_goes_well_for_a_while(number, 6)
        self.fall_back_by(steps)
        self.dispatch(number, 0, World.planned)
        self.turn(number, 0, "prompts", 2, "held" if stream == "prompts" else "paired")
        self.checkpoint_and_commit(number)

    @rule(steps=st.integers(1, 6))
    def fall_back(self, steps: int) -> None:
        self.fall_back_by(steps)

    @invariant()
    def the_server_holds_what_the_model_does(self) -> None:
        self.server.compare(self.run)
        self.remember()

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.finish()
        finally:
            self.close()

    def finish(self) -> None:
        """Everything goes on to its end, whatever happened before."""
        self.take_over()
        for number, episode in self.run.episodes.items():
            if episode.state in HELD:
                self.resume(number)
        for _ in range(40):
            for number in sorted(self.run.episodes, reverse=True):  # the later one presses on
                self.go_on(number)
                self.server.compare(self.run)
        assert all(episode.archived is not None for episode in self.run.episodes.values())
        assert self.do(self.queues.credits_in_use()) == 0
        assert all(not items for items in self.run.streams.values())

    @rule(number=episodes, turns=st.integers(1, 6))
    def all_goes_well_for_a_while(self, number: int, turns: int) -> None:
        for _ in range(turns):
            self.go_on(number)
            self.server.compare(self.run)
            self.remember()

    def go_on(self, number: int) -> None:
        """As loop, learner and workers do: a step of each."""
        state = self.run.episodes[number].state
        if number in self.checkpoint and state != "COMPLETED":
            self.checkpoint_and_commit(number)
        if state == "PENDING":
            self.move(number, State.SAMPLING)
        elif state == "SAMPLING":
            self.dispatch(number, 0, World.planned)
            for stream in get_args(StreamName):
                before = len(self.deliveries)
                self.server.compare(self.run)
                self.take_by(self.workers[0], stream, 2)
                for delivery in self.deliveries[before:]:
                    self.commit_one(delivery, "paired")
            self.move(number, State.TRAINING)
        elif state == "TRAINING":
            self.move(number, State.PUBLISHING)
        elif state == "PUBLISHING":
            self.move(number, State.COMPLETED)  # too early, the first time
            self.publish(number)
            self.learn(number, left_out=False)
            self.checkpoint_and_commit(number)
        else:
            self.publish(number)
            self.put_away(number)


@pytest.mark.timeout(1800)  # about 15 s of one core: a machine may have little of it
def test_the_queues_do_what_their_model_does(redis_url: str) -> None:
    run_state_machine_as_test(lambda: QueuesMachine(redis_url), settings=profile(60, 30))
