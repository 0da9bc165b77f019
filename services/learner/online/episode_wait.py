"""A run's queues for the learner: wait until an episode can be trained, read, commit."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.errors import LedgerError, StallError, StateError
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.online.ports import Connect, Queues, Trained
from services.learner.train.distributed import Worker
from services.ray_errors import GO_ON
from services.states import ABORTED, HELD, State

T = TypeVar("T")
_LOOK_S = 0.25
"""Longest time between two looks: what an episode waits for is announced, what the learner has to
do meanwhile is not."""
_AGAIN_S = 0.05
_TRIES = 3
_BROADCAST_EVERY_S = 2.0
"""The others hear from the main worker at least so often: a collective has a deadline too."""


class Readiness(IntEnum):
    """Whether an episode can be trained; a number, so that the main worker can broadcast it."""

    WAITING = 0
    READY = 1
    ENDED = 2
    """Failed or cancelled: there is nothing more to train."""
    TRAINED_BEFORE = 3
    """Its pairs were let go, so a checkpoint held it."""
    STALLED = 4
    """Nothing changed in it until the deadline."""


_READINESS: dict[str, Readiness] = {
    State.TRAINING: Readiness.READY,
    State.FAILED: Readiness.ENDED,
    State.CANCELLED: Readiness.ENDED,
    # Published and not yet in a checkpoint when the learner ended: its pairs are still there.
    State.PUBLISHING: Readiness.READY,
    State.COMPLETED: Readiness.TRAINED_BEFORE,
}
"""Of the states; WAITING in every other one."""


@dataclass(frozen=True)
class Sampled:
    """An episode as it is to be trained."""

    pairs: list[PreferencePair]
    """In canonical order."""
    dropped: dict[str, str]
    """Why the other prompts have none, by id."""


Work = Callable[[], None]
"""What is done between two looks; short."""


class EpisodeQueues:
    """The queues' asyncio interface, called from the learner's plain thread."""

    def __init__(
        self, settings: OnlineDPOSettings, place: OnlinePlace, connect: Connect, worker: Worker
    ) -> None:
        self._timeout_s = settings.episodes.timeout_s
        self._place, self._worker = place, worker
        self._committed = 0
        self._outcome_of: Callable[[int], Trained] = Trained
        self._runner = asyncio.Runner()
        try:
            self._queues: Queues = self._call(
                connect(place.redis_url.get_secret_value(), place.run, settings.queues, place.epoch)
            )
        except BaseException:
            self._runner.close()
            raise

    def wait_for_training(self, episode: int, meanwhile: Work) -> bool:
        """True once the episode is TRAINING; False when the run was failed or cancelled.

        `meanwhile` is called again and again. All workers return the same. Raises StallError after
        `timeout_s` without a change in an episode that is not paused, StateError when the episode
        was trained and no checkpoint holds it.
        """
        deadline = _Deadline(self._timeout_s)
        while True:
            # The main worker alone looks; what it sees goes to all, so that all do the same.
            if self._worker.is_main:
                seen = self._poll(episode, deadline, meanwhile)
            else:
                meanwhile()
                seen = Readiness.WAITING
            readiness = Readiness(self._worker.broadcast(seen))
            if readiness is Readiness.READY:
                return True
            if readiness is Readiness.ENDED:
                return False
            if readiness is Readiness.TRAINED_BEFORE:
                raise StateError(
                    f"episode {episode} was trained already and no checkpoint holds it; the "
                    f"checkpoints under {self._place.folder} belong to another run or were removed"
                )
            if readiness is Readiness.STALLED:
                raise StallError(
                    f"the learner waited {self._timeout_s:g} s for episode {episode} to "
                    "train and nothing moved in it; look at the rollout and pairing workers"
                )

    def wait_for_completion(self, episode: int, meanwhile: Work) -> None:
        """Return once the episode's weights are attested everywhere and its ledger is put away, or
        the run was ended.

        `meanwhile` is called again and again.
        Until then the workers must live: the arrays they handed out are theirs, and what Redis
        loses is made good. Raises StallError after `timeout_s` without a change.
        """
        deadline = _Deadline(self._timeout_s)
        while self._worker.is_main:
            self._recommit()
            state = self._state(episode)
            if state in ABORTED or (state == State.COMPLETED and self._put_away(episode)):
                break
            if deadline.passed(state, paused=state in HELD):
                raise StallError(
                    f"the learner waited {self._timeout_s:g} s for the weights of episode "
                    f"{episode} to reach the rollout workers; it is still {state or 'unknown'}"
                )
            meanwhile()
            self._call(self._queues.changed(_LOOK_S))

    def arrived(self, episode: int) -> list[PreferencePair]:
        """The pairs of an episode that are there by now, in canonical order."""
        return self._call(self._queues.pairs(episode))

    def sampled(self, episode: int) -> Sampled | None:
        """What became of every prompt of an episode that can be trained; all workers the same.

        None when Redis fell back meanwhile to where it cannot: wait once more. Raises LedgerError
        when pairs are missing.
        """
        found = self._sampled(episode) if self._worker.is_main else None
        count = self._worker.broadcast(-1 if found is None else len(found.pairs))
        if count < 0 or self._worker.is_main:
            return found
        found = self._sampled(episode)
        if found is None or len(found.pairs) != count:
            raise LedgerError(
                f"episode {episode}: Redis changed between two workers of the learner; {GO_ON}"
            )
        return found

    def make_good(self, version: int, outcome_of: Callable[[int], Trained]) -> None:
        """Commit what the checkpoint of a version holds, here and whenever Redis loses it again.

        `outcome_of`: of every episode up to the last that was committed.
        """
        self._committed, self._outcome_of = version, outcome_of
        self._recommit()

    def commit_trained(self, done: Trained) -> None:
        """Let an episode's pairs go: a checkpoint holds them. The main worker alone does it."""
        self._committed = done.episode
        if self._worker.is_main:
            self._call(
                self._queues.commit_trained(done.episode, done.episode, done.trained, done.dropped)
            )

    def close(self) -> None:
        """Close connection and event loop."""
        try:
            self._call(self._queues.close())
        finally:
            self._runner.close()

    def _sampled(self, episode: int) -> Sampled | None:
        for _ in range(_TRIES):
            pairs = self.arrived(episode)
            dropped = self._call(self._queues.dropped(episode))
            # The last of all: nothing of what was read has changed if it still can be trained.
            state, counters = self._call(self._queues.look(episode))
            if _READINESS.get(state) is not Readiness.READY:
                return None
            if len(pairs) == (paired := counters["paired"]):
                return Sampled(pairs, dropped)
            time.sleep(_AGAIN_S)
        raise LedgerError(
            f"episode {episode} has {paired} pairs by its counters and Redis holds {len(pairs)} of"
            " them: it lost some; begin the stage anew with --fresh"
        )

    def _recommit(self) -> None:
        """Redis may have lost commits, of more than one episode where those are short.

        It loses from the end: an episode that it has as COMPLETED it has whole.
        """
        lost, episode = list[int](), self._committed
        while self._worker.is_main and episode and self._state(episode) != State.COMPLETED:
            lost.append(episode)
            episode -= 1
        for episode in reversed(lost):
            self.commit_trained(self._outcome_of(episode))

    def _put_away(self, episode: int) -> bool:
        return not self._call(self._queues.ledger(episode))

    def _state(self, episode: int) -> str:
        return self._call(self._queues.episode_state(episode))

    def _poll(self, episode: int, deadline: "_Deadline", meanwhile: Work) -> Readiness:
        """Look until the wait is over, or the other workers are due a word that it is not."""
        until = time.monotonic() + _BROADCAST_EVERY_S
        self._recommit()
        while True:
            state, counters = self._call(self._queues.look(episode))
            readiness = _READINESS.get(state, Readiness.WAITING)
            if readiness is Readiness.TRAINED_BEFORE:
                return readiness
            if readiness is not Readiness.WAITING:
                return Readiness.TRAINED_BEFORE if counters.get("trained") else readiness
            if deadline.passed((state, tuple(sorted(counters.items()))), paused=state in HELD):
                return Readiness.STALLED
            meanwhile()
            if time.monotonic() >= until:
                return Readiness.WAITING
            self._call(self._queues.changed(_LOOK_S))

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)


class _Deadline:
    """Starts anew whenever what is seen changes, and while it is paused."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._seen: object = None
        self._since = time.monotonic()

    def passed(self, seen: object, *, paused: bool) -> bool:
        if seen != self._seen or paused:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since > self._timeout_s
