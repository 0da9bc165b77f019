"""Waiting for an episode's signal to train, over the run's queues, on every worker alike."""

import asyncio
import time
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, TypeVar

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.errors import StallError, StateError
from services.learner.jobs.settings import OnlineDPOSettings, OnlinePlace
from services.learner.online.ports import Connect, Queues
from services.learner.train.distributed import Worker
from services.states import HELD, OVER, State

T = TypeVar("T")
_POLL_S = 0.05
_WORD_EVERY_S = 2.0
"""The leading worker tells the others at least this often that it still waits."""


class EpisodeSignal(IntEnum):
    """What an episode's state means to the learner."""

    WAIT = 0
    TRAIN = 1
    STOP = 2
    TOO_LATE = 3
    STALLED = 4


_SIGNALS: dict[str, EpisodeSignal] = {
    State.TRAINING: EpisodeSignal.TRAIN,
    State.FAILED: EpisodeSignal.STOP,
    State.CANCELLED: EpisodeSignal.STOP,
    State.PUBLISHING: EpisodeSignal.TOO_LATE,
    State.COMPLETED: EpisodeSignal.TOO_LATE,
}


class EpisodeQueues:
    """The queues' asyncio interface, called from the learner's plain thread."""

    def __init__(
        self, settings: OnlineDPOSettings, place: OnlinePlace, connect: Connect, worker: Worker
    ) -> None:
        self._timeout_s = settings.episodes.timeout_s
        self._place, self._worker = place, worker
        self._runner = asyncio.Runner()
        try:
            self._queues: Queues = self._call(
                connect(place.redis_url.get_secret_value(), place.run, settings.queues)
            )
        except BaseException:
            self._runner.close()
            raise

    def wait_for_training(self, episode: int) -> bool:
        """True once the episode is TRAINING; False when the run was failed or cancelled.

        All workers return the same. Raises StallError after `timeout_s` without a change in an
        episode that is not paused, StateError when the episode was trained and no checkpoint
        holds it.
        """
        deadline = _Deadline(self._timeout_s)
        while True:
            signal = self._poll(episode, deadline) if self._worker.is_main else EpisodeSignal.WAIT
            signal = EpisodeSignal(self._worker.broadcast(signal))
            if signal is EpisodeSignal.TRAIN:
                return True
            if signal is EpisodeSignal.STOP:
                return False
            if signal is EpisodeSignal.TOO_LATE:
                raise StateError(
                    f"episode {episode} was trained already and no checkpoint holds it; the "
                    f"checkpoints under {self._place.folder} belong to another run or were removed"
                )
            if signal is EpisodeSignal.STALLED:
                raise StallError(
                    f"the learner waited {self._timeout_s:g} s for episode {episode} to "
                    "train and nothing moved in it; look at the rollout and pairing workers"
                )

    def wait_for_completion(self, episode: int) -> None:
        """Return once the episode's weights are attested everywhere, or the run was ended.

        Until then the workers must live: the arrays they handed out are theirs. Raises StallError
        after `timeout_s` without a change.
        """
        deadline = _Deadline(self._timeout_s)
        while self._worker.is_main:
            state = self._call(self._queues.episode_state(episode))
            if state in OVER:
                break
            if deadline.passed(state, paused=state in HELD):
                raise StallError(
                    f"the learner waited {self._timeout_s:g} s for the weights of episode "
                    f"{episode} to reach the rollout workers; it is still {state or 'unknown'}"
                )
            time.sleep(_POLL_S)

    def pairs(self, episode: int) -> list[PreferencePair]:
        """The episode's kept pairs, in canonical order."""
        return self._call(self._queues.pairs(episode))

    def commit_trained(self, episode: int) -> None:
        """Let the episode's pairs go: a checkpoint holds them. The leading worker alone does it."""
        if self._worker.is_main:
            self._call(self._queues.commit_trained(episode, episode))

    def close(self) -> None:
        """Close connection and event loop."""
        try:
            self._call(self._queues.close())
        finally:
            self._runner.close()

    def _poll(self, episode: int, deadline: "_Deadline") -> EpisodeSignal:
        """Look until something is to be told to the other workers."""
        until = time.monotonic() + _WORD_EVERY_S
        while True:
            state = self._call(self._queues.episode_state(episode))
            signal = _SIGNALS.get(state, EpisodeSignal.WAIT)
            if signal is not EpisodeSignal.WAIT:
                return signal
            counters = self._call(self._queues.counters(episode))
            if deadline.passed((state, tuple(sorted(counters.items()))), paused=state in HELD):
                return EpisodeSignal.STALLED
            if time.monotonic() >= until:
                return EpisodeSignal.WAIT
            time.sleep(_POLL_S)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


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
