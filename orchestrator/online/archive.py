"""The ledgers of a run's episodes: audited, written into its folder, and let go in Redis.

    ledger/episode-00001.jsonl.gz    one event a line: services/queues/ledger.py

One file an episode, whole or not at all, before Redis forgets it; the artifact has them end to end
as `ledger.jsonl.gz`, which is a gzip file as well. Its dead letters go the same way. So what Redis
holds of a run does not grow with its episodes, and what a run did is proven as it goes and not at
its end.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from orchestrator.online.dead_letters import keep_dead_letters
from services.errors import DataError, LedgerError
from services.full_disk import awaited_room
from services.learner.train.durable import replaced_file
from services.queues.items import DeadLetter
from services.queues.ledger import LedgerEvent, ledger_audit
from services.queues.ledger_file import packed, read_ledger_file

_FOLDER = "ledger"


class Ledgers(Protocol):
    """The part of the queues that holds them."""

    async def ledger(self, episode: int) -> list[LedgerEvent]:
        """Every event of an episode, in order; none once it was forgotten."""

    async def dead_letters(self) -> list[DeadLetter]:
        """Every item that kept failing, of episodes that were not forgotten."""

    async def forget(self, episode: int) -> bool:
        """Let go of an episode's ledger, dead letters and payloads; False if it is not over."""


class LedgerArchive:
    """In `folder`; `planned` names the prompts of an episode. It waits for a full disk, and `tell`
    hears of that."""

    def __init__(
        self,
        folder: Path,
        queues: Ledgers,
        planned: Callable[[int], Sequence[str]],
        tell: Callable[[str], None],
    ) -> None:
        self._scratch, self._folder = folder, folder / _FOLDER
        self._queues, self._planned, self._tell = queues, planned, tell

    async def put_away(self, episode: int) -> bool:
        """Audit an episode that is over, write its file and forget it; once is enough.

        False where Redis fell back meanwhile to before its end. Raises LedgerError when prompts
        are missing or doubled: nothing is forgotten then.
        """
        events = await self._queues.ledger(episode)
        if not events and self._path(episode).is_file():
            return True
        problems = ledger_audit(events, {episode: self._planned(episode)})
        if problems:
            raise LedgerError(
                f"the ledger of episode {episode} does not add up: {problems[0]}"
                f" ({len(problems)} problems); keep the run's folder and report it"
            )
        letters = await self._queues.dead_letters()
        await self._written(partial(self._write, episode, events))
        await self._written(partial(keep_dead_letters, self._scratch, episode, letters))
        return await self._queues.forget(episode)

    async def write_start(self) -> None:
        """The same for what is not of an episode: the publication of the first weights."""
        if events := await self._queues.ledger(0):
            await self._written(partial(self._write, 0, events))

    def join(self, first: int, last: int, before: Path | None, out: Path) -> None:
        """`out`: the ledger of the run that this one goes on from, then episodes first to last."""
        with out.open("wb") as whole:
            if before is not None and before.is_file():
                whole.write(before.read_bytes())
            for episode in (*((0,) if first == 1 else ()), *range(first, last + 1)):
                if self._path(episode).is_file():
                    whole.write(self._path(episode).read_bytes())

    async def _written(self, write: Callable[[], None]) -> None:
        await awaited_room(partial(asyncio.to_thread, write), "the run's", self._tell)

    def _write(self, episode: int, events: Sequence[LedgerEvent]) -> None:
        self._folder.mkdir(exist_ok=True)
        with replaced_file(self._path(episode)) as file:
            file.write(packed(events))

    def _path(self, episode: int) -> Path:
        return self._folder / f"episode-{episode:05d}.jsonl.gz"


def archived(folder: Path) -> dict[int, Path]:
    """The files in an archive's folder by episode, in order; 0 is the start."""
    found = sorted((folder / _FOLDER).glob("episode-*.jsonl.gz"))
    named = ((path.name.split(".")[0].removeprefix("episode-"), path) for path in found)
    return {int(number): path for number, path in named if number.isdecimal()}


def require_training(stage: str, ledger: Path) -> None:
    """DataError when no pair of a whole run was trained: its last version is its first."""
    dropped: Counter[str] = Counter()
    for event in read_ledger_file(ledger):
        if event.kind == "trained":
            return
        if event.kind == "dropped":
            dropped[event.detail] += 1
    reasons = ", ".join(f"{count} {reason.lower()}" for reason, count in dropped.most_common())
    raise DataError(
        f"{stage} trained on no pair: all {dropped.total()} groups were dropped ({reasons}), so the"
        " policy is unchanged; see sampling, pairs.min_margin and the reward, then begin anew:"
        f" --fresh {stage}"
    )
