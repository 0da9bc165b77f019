"""What an episode costs the orchestrator, by workers and by episodes that are planned.

    .venv/bin/python bench/orchestrator_scale.py [--workers 1 16 256] [--planned 10 100 1000 10000]
        [--window 100] [--prompts 32] [--repeats 3]

The real loop (orchestrator/loop.py) on the real store, queues and ledger archive with an embedded
Redis; the work is fake: W consumers of either stream in up to four processes commit small messages
made beforehand, the learner commits its pairs at once, nothing is published to. Of each plan the
first `window` episodes are run, and, by a run that goes on from another that published all but
those, the last: whether they cost the same is what is asked, so those between are left out. The
first tenth of a window warms up and is not counted. The last line is one JSON object; memory is
per counted episode.
"""

import argparse
import asyncio
import contextlib
import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

import psutil

from bench import measure
from bench.consumers import Counted, consumers, fresh_redis
from bench.data_plane_child import SETTINGS
from bench.payloads import Payloads, payloads
from orchestrator.episodes import EpisodeStore
from orchestrator.loop import run_episodes
from orchestrator.online.archive import LedgerArchive
from orchestrator.online.ports import LoopPorts, Weights
from pairloop.data.v1.rollout_pb2 import Prompt
from services.queues.queues import RunQueues
from services.queues.settings import EpisodeSettings
from services.telemetry.record.events import EpisodeFinished, Event

_RUN = "bench"
_SAMPLES, _TOKENS = 2, 16
Place = Literal["first", "last"]


@dataclass(frozen=True)
class Case:
    """What is run."""

    workers: int
    planned: int
    place: Place
    window: int
    prompts: int

    @property
    def published(self) -> int:
        """Episodes before those that are run."""
        return self.planned - self.count if self.place == "last" else 0

    @property
    def count(self) -> int:
        """Episodes that are run."""
        return min(self.window, self.planned)


class WindowOverError(Exception):
    """Enough episodes were run."""


@dataclass
class Fakes:
    """The loop's ports: real queues and states, and no work."""

    case: Case
    queues: RunQueues
    store: EpisodeStore
    archive: LedgerArchive
    given: Payloads
    learned: int
    url: str
    marks: list[tuple[float, float, int, int, Counted]] = field(default_factory=list)
    """At the end of each episode that is looked at: seconds, CPU seconds, bytes that this process
    holds, objects that Python has, and the server's figures."""
    ends: list[float] = field(default_factory=list)

    async def prompts(self, episode: int) -> list[Prompt]:
        """Small ones, made now."""
        return self.given.prompts(_RUN, episode, self.case.prompts)

    async def weights(self, version: int, timeout_s: float) -> Weights:
        """The learner: it commits the pairs of every episode up to this one."""
        for episode in range(self.learned + 1, version + 1):
            ids = [pair.prompt.id for pair in await self.queues.pairs(episode)]
            if len(ids) != self.case.prompts:
                raise SystemExit(f"{len(ids)} pairs of {self.case.prompts} prompts")
            planned = planned_ids(episode, self.case.prompts)
            await self.queues.commit_trained(episode, episode, planned, {})
            self.learned = episode
        return Weights(self.learned, None, {})

    async def publish(self, weights: Weights) -> None:
        """To no engine."""
        await self.queues.published(weights.version, weights.version)

    async def statistics(self, episode: int) -> dict[str, float]:
        """None."""
        return {}

    async def failures(self, episode: int) -> str:
        """None."""
        return ""

    async def put_away(self, episode: int) -> bool:
        """The real one, but for episodes of another run; it ends the window."""
        if episode <= self.case.published:
            return True
        over = await self.archive.put_away(episode)
        done = episode - self.case.published
        self.ends.append(time.perf_counter())
        if done in (warm(self.case), self.case.count):
            self.marks.append(await asyncio.to_thread(self._mark))
        if done == self.case.count:
            raise WindowOverError
        return over

    def report(self, event: Event) -> None:
        """To nobody, but checked."""
        if isinstance(event, EpisodeFinished) and event.pairs != self.case.prompts:
            raise SystemExit(f"episode {event.number} has {event.pairs} pairs")

    def ports(self) -> LoopPorts:
        """All of them."""
        return LoopPorts(
            stage="bench",
            episodes=self.store,
            prompts=self.prompts,
            dispatch=self.queues.dispatch,
            weights=self.weights,
            publish=self.publish,
            statistics=self.statistics,
            failures=self.failures,
            archive=self.put_away,
            report=self.report,
            changed=self.store.changed,
        )

    def _mark(self) -> tuple[float, float, int, int, Counted]:
        gc.collect()
        held = psutil.Process().memory_info().rss
        cpu = time.process_time()
        return time.perf_counter(), cpu, held, sys.getallocatedblocks(), Counted.of(self.url)


def warm(case: Case) -> int:
    """Episodes at the beginning of a window that are not counted."""
    return max(1, case.count // 10)


def planned_ids(episode: int, count: int) -> list[str]:
    """Of its prompts: what bench/payloads.py calls them."""
    return [f"{_RUN}/e{episode:05d}/p{index:05d}" for index in range(count)]


async def run(case: Case, url: str, folder: Path) -> dict[str, float]:
    """The loop over one window."""
    settings = EpisodeSettings(count=case.planned, prompts=case.prompts, timeout_s=60.0)
    queues = await RunQueues.open(url, _RUN, SETTINGS)
    store = await EpisodeStore.open(url, _RUN, 5.0)
    await store.create(case.planned, case.prompts, case.published)
    archive = LedgerArchive(folder, queues, lambda number: planned_ids(number, case.prompts), print)
    given = payloads(_SAMPLES, _TOKENS)
    fakes = Fakes(case, queues, store, archive, given, case.published, url)
    with contextlib.suppress(WindowOverError):
        await run_episodes(fakes.ports(), settings)
    await queues.close()
    await store.close()
    return _figures(case, fakes)


def _figures(case: Case, fakes: Fakes) -> dict[str, float]:
    start, end = fakes.marks
    ends = fakes.ends[warm(case) :]
    count = len(ends) - 1
    steps = [after - before for before, after in pairwise(ends)]
    return {
        "ms_per_episode": 1000 * median(steps),
        "loop_cpu_ms_per_episode": 1000 * (end[1] - start[1]) / count,
        "redis_cpu_ms_per_episode": 1000 * (end[4].cpu_seconds - start[4].cpu_seconds) / count,
        "redis_commands_per_episode": (end[4].commands - start[4].commands) / count,
        "redis_bytes_per_episode": (end[4].memory - start[4].memory) / count,
        "redis_mib": end[4].memory / 2**20,
        "python_bytes_per_episode": (end[2] - start[2]) / count,
        "python_objects_per_episode": (end[3] - start[3]) / count,
        "python_mib": end[2] / 2**20,
    }


def measured(case: Case) -> measure.Outcome:
    """One window, on a server of its own."""
    began = time.perf_counter()
    with (
        fresh_redis() as url,
        tempfile.TemporaryDirectory(prefix="pairloop-bench-") as folder,
        consumers("ours", url, _RUN, case.workers, _SAMPLES, _TOKENS) as working,
    ):
        figures = asyncio.run(run(case, url, Path(folder)))
        working.stop()
    return measure.Outcome(figures, 0, time.perf_counter() - began)


def cases_of(options: argparse.Namespace) -> list[Case]:
    """Of each plan both ends, where they are not the same."""
    return [
        Case(workers, planned, place, options.window, options.prompts)
        for workers in options.workers
        for planned in options.planned
        for place in places(planned, options.window)
    ]


def places(planned: int, window: int) -> Sequence[Place]:
    """A plan that is no longer than the window is run whole."""
    return ("first", "last") if planned > window else ("first",)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=(1, 16, 256))
    parser.add_argument("--planned", type=int, nargs="+", default=(10, 100, 1000, 10_000))
    parser.add_argument("--window", type=int, default=100, help="episodes that are run")
    parser.add_argument("--prompts", type=int, default=32, help="of an episode")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cases = cases_of(options)
    rows, results = [], list[dict[str, Any]]()
    arms = {case: f"{case.workers}+{case.workers} {case.planned} {case.place}" for case in cases}
    found = measure.alternate(
        {name: lambda _, case=case: measured(case) for case, name in arms.items()},
        options.repeats,
    )
    for case, name in arms.items():
        figures = {
            each: measure.spread([outcome.result[each] for outcome in found[name]])
            for each in found[name][0].result
        }
        ran = {"workers": case.workers, "planned": case.planned, "published": case.published}
        results.append({**ran, "ran": case.count, **figures})
        rows.append([name, *(f"{figure['median']:.4g}" for figure in figures.values())])
    head = ["workers, planned", *found[arms[cases[0]]][0].result]
    measure.finish(measure.table(head, rows), {"prompts": options.prompts, "cases": results})


if __name__ == "__main__":
    main()
