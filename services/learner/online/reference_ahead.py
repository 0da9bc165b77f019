"""Reference log-probabilities of an episode, computed while its pairs still arrive."""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import torch

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.learner.model.frozen import FrozenPolicy
from services.learner.model.reference import AnswerLogprobs, pair_logprobs
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair, sampled_pairs

_LOOK_EVERY_S = 1.0


class ReferenceAhead:
    """This worker's share of the pairs, by prompt; each pair in a pass of its own.

    So what is found for a pair does not depend on when it came or on what came with it, and a
    restart finds the same to the bit. A thread that runs when nothing else wants to works ahead:
    where the engines sample on the same cores it takes what they leave, and what it leaves is
    computed at the end, by the same number of threads.
    """

    def __init__(self, reference: FrozenPolicy, max_length: int, worker: Worker) -> None:
        self._reference, self._max_length, self._worker = reference, max_length, worker
        self._found: dict[str, AnswerLogprobs] = {}
        self._asked: set[str] = set()
        self._waiting: queue.SimpleQueue[EncodedPair] = queue.SimpleQueue()
        self._ahead: Future[None] | None = None
        self._hurry = threading.Event()
        self._looked = 0.0

    def look(self, arrived: Callable[[], Sequence[PreferencePair]]) -> None:
        """Once a second: hand what has arrived since to the thread that works ahead."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return
        for pair in self._mine(arrived()):
            if pair.id not in self._asked:
                self._asked.add(pair.id)
                self._waiting.put(pair)
        if not self._waiting.empty() and (self._ahead is None or self._ahead.done()):
            self._join()
            self._ahead = _in_thread(self._work)
        self._looked = time.monotonic()

    def finish(self, kept: Sequence[PreferencePair]) -> dict[str, AnswerLogprobs]:
        """Of this worker's share of an episode's pairs; the reference's weights are let go."""
        self._hurry.set()
        self._join()
        self._hurry.clear()
        found, self._found = self._found, {}
        self._asked, self._waiting = set(), queue.SimpleQueue()
        mine = self._mine(kept)
        for pair in mine:
            if pair.id not in found:
                found[pair.id] = pair_logprobs(self._reference, pair)
        self._reference.release()
        return {pair.id: found[pair.id] for pair in mine}

    def _work(self) -> None:
        while not self._hurry.is_set():
            try:
                pair = self._waiting.get_nowait()
            except queue.Empty:
                return
            self._found[pair.id] = pair_logprobs(self._reference, pair)

    def _join(self) -> None:
        if self._ahead is not None:
            self._ahead.result()
        self._ahead = None

    def _mine(self, kept: Sequence[PreferencePair]) -> list[EncodedPair]:
        world, rank = self._worker.world, self._worker.rank
        mine = [pair for pair in kept if pair.prompt.index % world == rank]
        pairs, _ = sampled_pairs(mine, self._max_length)
        return pairs


def _in_thread(work: Callable[[], None]) -> "Future[None]":
    """Run it beside, on as many torch threads as the caller, and after everybody else."""
    future: Future[None] = Future()
    threads = torch.get_num_threads()

    def run() -> None:
        try:
            if sys.platform == "linux":  # where a thread is scheduled on its own
                # Not by niceness: a thread of the least still takes turns of milliseconds, and an
                # engine's threads wait for each other.
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            torch.set_num_threads(threads)
            work()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the future gets it
            future.set_exception(error)

    threading.Thread(target=run, name="reference", daemon=True).start()
    return future
