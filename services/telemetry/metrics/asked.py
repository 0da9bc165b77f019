"""What no event tells and has to be asked for: asked when somebody scrapes, and never else."""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from services.errors import PairloopError


@dataclass(frozen=True)
class Asked:
    """What an online stage answers."""

    entries: Mapping[str, int]
    """Of each work stream: what waits and what is worked on."""
    credits_in_use: int
    credits: int
    """At most."""
    dead_letters: int
    workers: Mapping[tuple[str, str], int]
    """How many, by kind and state."""
    memory_bytes: int | None
    """Of the Redis server; None where its user may not ask."""
    max_memory_bytes: int = 0
    """Of that server; 0: no limit."""


Question = Callable[[], Awaitable[Asked]]


@dataclass(frozen=True)
class _Stage:
    question: Question
    loop: asyncio.AbstractEventLoop
    waiting: set["concurrent.futures.Future[Asked]"]


class Asking(Collector):
    """A collector whose values are asked of the event loop that the stage runs on."""

    def __init__(self, answer_s: float = 2.0) -> None:
        """A scrape waits `answer_s` seconds for what is asked, and no longer."""
        self._answer_s = answer_s
        self._stages: dict[str, _Stage] = {}

    @asynccontextmanager
    async def of(self, stage: str, question: Question) -> AsyncIterator[None]:
        """While this is open, a scrape asks. On the running event loop."""
        asked = self._stages[stage] = _Stage(question, asyncio.get_running_loop(), set())
        try:
            yield
        finally:
            del self._stages[stage]
            for each in list(asked.waiting):
                each.cancel()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """In the thread of the scrape. Without an answer: `pairloop_redis_up` 0, and no other."""
        up = GaugeMetricFamily(
            "pairloop_redis_up", "1: it answered the scrape in time", labels=["stage"]
        )
        entries = _family("queue_entries", "Waiting or worked on", "queue")
        used = _family("credits_in_use", "Prompts dispatched and neither trained nor dropped")
        credits = _family("credits", "In use at most")
        letters = _family("dead_letters", "Items that kept failing")
        workers = _family("workers", "By kind and state", "kind", "state")
        memory = _family("redis_memory_bytes", "Of the server")
        most = _family("redis_max_memory_bytes", "Of the server; 0: no limit")
        for stage, how in list(self._stages.items()):
            answer = _answer(how, self._answer_s)
            up.add_metric([stage], float(answer is not None))
            if answer is None:
                continue
            for queue, count in answer.entries.items():
                entries.add_metric([stage, queue], count)
            used.add_metric([stage], answer.credits_in_use)
            credits.add_metric([stage], answer.credits)
            letters.add_metric([stage], answer.dead_letters)
            for (kind, state), count in answer.workers.items():
                workers.add_metric([stage, kind, state], count)
            if answer.memory_bytes is not None:
                memory.add_metric([stage], answer.memory_bytes)
                most.add_metric([stage], answer.max_memory_bytes)
        return up, entries, used, credits, letters, workers, memory, most


def _family(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"pairloop_{name}", about, labels=["stage", *labels])


def _answer(stage: _Stage, answer_s: float) -> Asked | None:
    async def ask() -> Asked:
        async with asyncio.timeout(answer_s):
            return await stage.question()

    asking = ask()
    try:
        future = asyncio.run_coroutine_threadsafe(asking, stage.loop)
    except RuntimeError:  # the loop was closed this moment
        asking.close()
        return None
    stage.waiting.add(future)
    try:
        return future.result(2 * answer_s)  # a loop that is busy does not even begin
    except (TimeoutError, concurrent.futures.CancelledError, PairloopError):
        future.cancel()
        return None
    finally:
        stage.waiting.discard(future)
