"""The episodes of a run against a model: an admin asks, the loop moves on, workers finish.

All of it through the real store, one by one and at once; Redis falls back in between. What two
answer who asked at once must be what one after the other would have been answered.
"""

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from orchestrator.online.transitions import try_move
from pairloop.admin.v1.admin_pb2 import Episode
from services.errors import StateError, UnknownEpisodeError
from services.states import State
from tests.integration.test_queues_episodes import change
from tests.model.admin_model import Admin, shown
from tests.model.conftest import profile
from tests.model.run_model import RefusedError
from tests.model.world import World

episodes = st.integers(1, 3)
asked = st.integers(0, 4)
"""0: whichever it is; 4: there is none such."""
requests = st.sampled_from(["", "a", "b", "c", "d"])
reasons = st.sampled_from(["lunch", "the reward looks off"])


@dataclass(frozen=True)
class Act:
    """One thing that somebody does, to the server and to the model."""

    call: Callable[[], Coroutine[Any, Any, Any]]
    model: Callable[[Admin], Any]


class EpisodesMachine(World):
    count, planned = 3, 2

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.history.clear()
        self.admin = Admin(self.run)
        self.stores = (self.store, self.open_store())
        self.remember(self.admin)

    # What somebody may do.

    def ask(self, kind: str, number: int, which: int, reason: str, request: str) -> Act:
        store, asks = self.stores[which], change(request, reason)
        if kind == "pause":
            return Act(
                lambda: store.pause(number, asks), lambda m: m.pause(number, reason, request)
            )
        if kind == "resume":
            return Act(
                lambda: store.resume(number, asks), lambda m: m.resume(number, reason, request)
            )
        to, number = State(kind), number or 1
        return Act(
            lambda: store.move(number, to, asks), lambda m: m.abort(number, to, reason, request)
        )

    def loops(self, number: int, to: State) -> Act:
        """A move of the loop's own, which an admin's may have overtaken."""

        def model(admin: Admin) -> Any:
            failed = admin.run.episodes[number].state == "FAILED"
            try:
                admin.run.move(number, to)
                if failed:
                    admin.errors.pop(number, None)
            except RefusedError:
                if admin.run.episodes[number].state in ("FAILED", "CANCELLED"):
                    raise
                return None
            return admin.show(number)

        return Act(lambda: try_move(self.store, number, to), model)

    def dispatched(self, number: int) -> Act:
        prompts = self.prompts[number]
        places = [(prompt.index, prompt.id) for prompt in prompts]

        async def call() -> tuple[int, int, str]:
            sent = await self.queues.dispatch(number, prompts)
            return sent.sent, sent.known, sent.refused

        return Act(call, lambda admin: admin.run.dispatch(number, places))

    # One after the other.

    def one(self, act: Act) -> None:
        assert self.do(answer_of(act.call)) == expected_of(act, self.admin)

    asks = st.tuples(
        st.sampled_from(["pause", "pause", "resume", "resume", "resume"]),
        asked, st.integers(0, 1), reasons, requests,
    )  # fmt: skip

    @rule(asks=asks)
    def admin_asks(self, asks: tuple[str, int, int, str, str]) -> None:
        self.one(self.ask(*asks))

    @rule(
        kind=st.sampled_from(["CANCELLED", "FAILED"]), number=asked, reason=reasons,
        request=requests, sure=st.integers(0, 3),
    )  # fmt: skip
    def somebody_ends_it(
        self, kind: str, number: int, reason: str, request: str, sure: int
    ) -> None:
        if not sure:
            self.one(self.ask(kind, number, 0, reason, request))

    @rule(number=episodes, to=st.sampled_from(list(State)))
    def loop_moves(self, number: int, to: State) -> None:
        if to == State.PAUSED and self.run.episodes[number].state == "PAUSING":
            return  # the server alone does that
        self.one(self.loops(number, to))

    @rule(number=episodes)
    def loop_goes_on(self, number: int) -> None:
        after = {
            "PENDING": State.SAMPLING,
            "SAMPLING": State.TRAINING,
            "TRAINING": State.PUBLISHING,
        }
        self.one(self.loops(number, after.get(self.run.episodes[number].state, State.COMPLETED)))

    @rule(number=episodes)
    def dispatch(self, number: int) -> None:
        self.one(self.dispatched(number))

    @rule(
        stream=st.sampled_from(["prompts", "rollouts"]), end=st.sampled_from(["paired", "TIE"]),
        count=st.integers(1, 3),
    )  # fmt: skip
    def work(self, stream: Any, end: str, count: int) -> None:
        self.take_by(self.workers[0], stream, count)
        for delivery in self.deliveries:
            self.commit_one(delivery, end)
        self.deliveries.clear()

    @rule(number=episodes)
    def sample_all(self, number: int) -> None:
        for stream in ("dispatch", "prompts", "rollouts"):
            if stream == "dispatch":
                self.dispatch(number)
            else:
                self.work(stream, "paired", 3)
            self.server.compare(self.run)

    @rule(number=episodes)
    def learn(self, number: int) -> None:
        episode = self.run.episodes[number]
        if episode.state in ("TRAINING", "PUBLISHING"):
            dropped = {id_: why for id_, (kind, why) in episode.last().items() if kind == "dropped"}
            self.commit_outcome(number, episode.having("paired", "trained"), dropped)

    # At once.

    @rule(asks=asks, other=asks)
    def two_ask(self, asks: tuple[str, int, int, str, str], other: Any) -> None:
        self.at_once(self.ask(*asks), self.ask(*other))

    @rule(asks=asks, number=episodes, to=st.sampled_from([State.SAMPLING, State.TRAINING]))
    def admin_and_loop(self, asks: tuple[str, int, int, str, str], number: int, to: State) -> None:
        self.at_once(self.ask(*asks), self.loops(number, to))

    @rule(asks=asks, number=episodes)
    def admin_while_it_is_dispatched(
        self, asks: tuple[str, int, int, str, str], number: int
    ) -> None:
        self.at_once(self.ask(*asks), self.dispatched(number))

    def at_once(self, *acts: Act) -> None:
        async def both() -> list[Any]:
            return list(await asyncio.gather(*(answer_of(act.call) for act in acts)))

        answers = self.do(both())
        fitting = []
        for order in (0, 1), (1, 0):
            admin = copy.deepcopy(self.admin)
            expected = {place: expected_of(acts[place], admin) for place in order}
            if [expected[0], expected[1]] == answers:
                fitting.append(admin)
        seen = self.listed()
        fitting = [each for each in fitting if [each.show(n) for n in each.run.episodes] == seen]
        assert fitting, f"no order gives {answers}"
        self.admin = fitting[0]
        self.run = self.admin.run

    # The server.

    @rule(steps=st.integers(1, 6))
    def fall_back(self, steps: int) -> None:
        self.admin = self.fall_back_by(steps)

    def listed(self) -> list[Any]:
        return [shown(episode) for episode in self.do(self.store.list())]

    @invariant()
    def all_see_what_the_model_has(self) -> None:
        self.server.compare(self.run)
        assert self.listed() == [self.admin.show(number) for number in self.run.episodes]
        for store in self.stores:
            assert shown(self.do(store.get(0))) == self.admin.show(self.admin.current())
        self.remember(self.admin)

    @invariant()
    def what_a_pause_and_an_end_promise(self) -> None:
        found = list(self.run.episodes.values())
        assert not any(
            each.counters()["in_flight"] for each in found if each.state in ("PAUSED", "COMPLETED")
        )
        first = list(takewhile(lambda each: each.state == "COMPLETED", found))
        assert all(each.state != "COMPLETED" for each in found[len(first) :])
        assert all(each.counters()["trained"] == each.counters()["paired"] for each in first)

    def teardown(self) -> None:
        self.close()


async def answer_of(call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    try:
        answer = await call()
    except (StateError, UnknownEpisodeError) as error:
        return type(error).__name__
    return shown(answer) if isinstance(answer, Episode) else answer


def expected_of(act: Act, admin: Admin) -> Any:
    try:
        return act.model(admin)
    except RefusedError:
        return StateError.__name__
    except KeyError:
        return UnknownEpisodeError.__name__


@pytest.mark.timeout(1800)  # about 15 s of one core: a machine may have little of it
def test_the_episodes_do_what_their_model_does(redis_url: str) -> None:
    run_state_machine_as_test(lambda: EpisodesMachine(redis_url), settings=profile(40, 30))
