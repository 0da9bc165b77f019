"""Pairing: takes rollouts, has them scored, commits a pair or the reason why there is none.

    [rollouts] -> stale? -> score -> select -> commit_pair -> [pairs]
                    |                   |
                    +---> commit_drop <-+

Every item ends in exactly one commit; the queue's script decides who was first, and only who
was first counts it. An item that fails goes back and, in the end, to the dead letters. A reward
that falls behind is asked for less at once. One that is not there, or reads another tokenizer, is
no item's fault: it ends the worker.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from google.protobuf.message import DecodeError

from pairloop.data.v1.pair_pb2 import DROP_REASON_STALE, DropReason, PreferencePair, Score
from pairloop.data.v1.rollout_pb2 import Rollout
from services.errors import DataError, LineageError, ReplacedError, UnreachableError, one_line
from services.pairs.build import make_pair, stale
from services.pairs.concurrency import Concurrency
from services.pairs.sampled_examples import Examples
from services.pairs.select import Selection, select
from services.pairs.settings import PairSettings
from services.pairs.stats import EpisodeStats, group_row
from services.queues.ledger import reason_name
from services.reward.scorer import Scorer
from services.telemetry.record.events import Event
from services.telemetry.tracing.spans import Spans, now

POLL_S = 0.5
"""How long one look at the queue blocks: bounds how late a stop or a failure is seen."""

_KEPT = 1000
"""Characters of a failure that stay with its item."""
ENDS_THE_WORKER = (UnreachableError, LineageError, ReplacedError)


class Item(Protocol):
    """A delivered rollout."""

    @property
    def payload(self) -> bytes:
        """A serialised Rollout."""


class Queues(Protocol):
    """What pairing asks of the queues; an item goes back to them as it came."""

    async def take(
        self, stream: Literal["rollouts"], consumer: str, count: int, block_s: float
    ) -> Sequence[Item]:
        """Up to `count` items, waiting `block_s` for the first."""

    async def commit_pair(self, item: Any, pair: PreferencePair) -> bool:
        """Finish an item with a pair; False when it was finished already."""

    async def commit_drop(self, item: Any, reason: DropReason) -> bool:
        """Finish an item without one; False when it was finished already."""

    async def fail(self, stream: Literal["rollouts"], item: Any, error: str) -> bool:
        """Give an item back, or to the dead letters (True) after its last try."""


class PairWorker:
    """One consumer of the rollout stream."""

    def __init__(
        self,
        queues: Queues,
        scorer: Scorer,
        report: Callable[[Event], None],
        settings: PairSettings,
        *,
        consumer: str,
        stage: str,
        spans: Spans | None = None,
    ) -> None:
        self._queues = queues
        self._spans = spans
        self._scorer = scorer
        self._report = report
        self._settings = settings
        self._consumer = consumer
        self._asked = Concurrency(settings.concurrency)
        self._stopping = False
        self._description = ""
        self._stats = EpisodeStats()
        self._examples = Examples(stage)

    async def run(self) -> None:
        """StageContext until `stop`; what is in flight is finished first.

        Raises UnreachableError when the reward or the queues are gone, LineageError when
        the reward model reads another tokenizer than the policy's.
        """
        self._description = await self._scorer.describe()
        working: set[asyncio.Task[None]] = set()
        try:
            while not self._stopping:
                working = await self._round(working)
            await asyncio.gather(*working)
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    def stop(self) -> None:
        """Take nothing more; `run` returns when what is in flight is committed."""
        self._stopping = True

    def episodes(self) -> list[int]:
        """The latest ones that this worker finished groups of."""
        return self._stats.episodes()

    def stats(self, episode: int) -> dict[str, float]:
        """Figures of the groups this worker was the first to finish in an episode.

        "groups" and "pairs" count them; reward_mean, reward_max, reward_min, reward_<part>,
        unique_answers, answer_tokens and truncated (a share) are means over groups, margin and
        length_gap over pairs. Each call also reports the episode's examples that are new: at a
        pause those so far, after its last commit the first ones in canonical order.
        """
        for example in self._examples.take(episode):
            self._report(example)
        return self._stats.summary(episode)

    async def _round(self, working: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Start what there is room for; raise what a finished group raised."""
        room = self._settings.concurrency - len(working)
        if room > 0:
            items = await self._queues.take("rollouts", self._consumer, room, POLL_S)
            working |= {asyncio.create_task(self._finish(item)) for item in items}
        else:
            await asyncio.wait(working, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        done = {task for task in working if task.done()}
        for task in done:
            task.result()
        return working - done

    async def _finish(self, item: Item) -> None:
        """One item to its commit; its own failure goes to the queue with its cause."""
        try:
            await self._pair(item)
        except ENDS_THE_WORKER:
            raise
        except Exception as error:  # noqa: BLE001 - recorded with the item, then retried
            await self._queues.fail("rollouts", item, one_line(error, _KEPT))

    async def _pair(self, item: Item) -> None:
        rollout = _parse(item.payload)
        prompt, began = rollout.prompt, now()
        if stale(rollout):
            if await self._queues.commit_drop(item, DROP_REASON_STALE):
                self._record(prompt.id, began, reason_name(DROP_REASON_STALE))
            return
        scores = await self._asked.ask(lambda: self._scorer.score(prompt, rollout.samples))
        scored = now()
        choice = select(
            [score.total for score in scores],
            [sample.text for sample in rollout.samples],
            self._settings.min_margin,
            prompt.sampling.seed,
        )
        if not isinstance(choice, Selection):
            if await self._queues.commit_drop(item, choice):
                self._count(rollout, scores, None)
                self._record(prompt.id, began, reason_name(choice), scored)
            return
        pair = make_pair(rollout, scores, choice, self._description)
        if await self._queues.commit_pair(item, pair):
            self._count(rollout, scores, pair)
            self._examples.add(pair)
            self._record(prompt.id, began, "paired", scored)

    def _record(self, prompt: str, began: int, outcome: str, scored: int | None = None) -> None:
        """The steps of a prompt that this worker was the first to finish."""
        if self._spans is None:
            return
        worker = {"worker": self._consumer}
        if scored is not None:
            self._spans.record("score", prompt, began, end=scored, about=worker)
        self._spans.record(
            "pair",
            prompt,
            began if scored is None else scored,
            after="sample" if scored is None else None,
            about=worker | {"outcome": outcome},
        )

    def _count(
        self, rollout: Rollout, scores: Sequence[Score], pair: PreferencePair | None
    ) -> None:
        row = group_row(rollout, scores, pair)
        self._stats.add(rollout.prompt.episode, rollout.prompt.index, row)


def _parse(payload: bytes) -> Rollout:
    try:
        return Rollout.FromString(payload)
    except DecodeError as error:
        raise DataError("an item of the rollout stream is no Rollout message") from error
