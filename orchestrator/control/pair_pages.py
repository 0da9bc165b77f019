"""Pages of a run's pairs, read from where the page before ended.

    <stage>/pairs.jsonl                                       of a finished stage
    .work/<stage>-<trunk>/learner/pairs/episode-00001.jsonl   of an online stage that goes on

A page's token is "stage:episode:offset" of its first line; episode 0 is the whole stage's file.
"""

import bisect
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.artifacts.store import LEARNER
from orchestrator.control.pair_shown import shown
from orchestrator.control.run_folder import RunFolder
from pairloop.admin.v1.admin_pb2 import Pair
from services.admin.ports import MESSAGE_BYTES, Page
from services.errors import UnknownPageError
from services.learner.online.pair_record import pair_files

_LINE_BYTES = 16 * 2**20
_OFFSET = re.compile("[0-9]{1,18}")


@dataclass(frozen=True)
class _Source:
    stage: str
    episode: int
    """0: of every episode of a stage, or of a stage that has none."""
    path: Path


def pair_page(folder: RunFolder, episode: int, size: int, token: str) -> Page[Pair]:
    """Up to `size` pairs, of one episode or (0) of all. Raises StateError, UnknownPageError."""
    sources = [each for each in _sources(folder) if not episode or each.episode in (0, episode)]
    first, offset = _begin(sources, token)
    pairs: list[Pair] = []
    room = MESSAGE_BYTES
    for source in sources[first:]:
        file = folder.opened(source.path)
        if file is None:
            continue  # the stage was finished or set aside meanwhile
        with file:
            if episode and not source.episode and not offset:
                offset = _first_line_of(file, episode)
            for start, line in _lines(file, offset):
                if episode and not source.episode and _episode(line) != episode:
                    break
                pair = shown(line)
                room -= pair.ByteSize()
                if len(pairs) == size or (pairs and room < 0):
                    return Page(pairs, f"{source.stage}:{source.episode}:{start}")
                pairs.append(pair)
        offset = 0
    return Page(pairs, "")


def _sources(folder: RunFolder) -> list[_Source]:
    """In the order they are trained; of a stage that was finished and goes on, what goes on."""
    found: dict[str, tuple[float, list[_Source]]] = {}
    for each in folder.finished():
        path = each.path / "pairs.jsonl"
        if folder.has(path):
            found[each.stage] = (each.time, [_Source(each.stage, 0, path)])
    for each in folder.begun():
        files = pair_files(each.path / LEARNER)
        if files and each.time > found.get(each.stage, (0.0, []))[0]:
            sources = [_Source(each.stage, number, path) for number, path in files.items()]
            found[each.stage] = (each.time, sources)
    return [each for _, sources in sorted(found.values(), key=lambda x: x[0]) for each in sources]


def _begin(sources: Sequence[_Source], token: str) -> tuple[int, int]:
    """Which source a page begins in, and at which byte."""
    if not token:
        return 0, 0
    place, _, offset = token.rpartition(":")
    for index, source in enumerate(sources):
        if f"{source.stage}:{source.episode}" == place and _OFFSET.fullmatch(offset):
            return index, int(offset)
    raise UnknownPageError(
        "begins no page of these pairs, or none since a stage ended; begin at the first"
    )


def _lines(file: BinaryIO, offset: int) -> Iterator[tuple[int, bytes]]:
    """Whole lines from a byte on, each with where it begins; one that is being written is none."""
    _to_line(file, offset)
    while True:
        start = file.tell()
        line = file.readline(_LINE_BYTES)
        rest = line
        while len(rest) == _LINE_BYTES and not rest.endswith(b"\n"):
            line, rest = b"", file.readline(_LINE_BYTES)  # no pair is so long
        if not rest.endswith(b"\n"):
            return
        yield start, line


def _to_line(file: BinaryIO, offset: int) -> None:
    """To the first line that begins at `offset` or after it."""
    file.seek(max(0, offset - 1))
    if offset:
        file.readline()


def _first_line_of(file: BinaryIO, episode: int) -> int:
    """About where an episode begins: a stage's file has them in order, and may be of gigabytes."""

    def number_at(offset: int) -> int:
        _to_line(file, offset)
        line = file.readline(_LINE_BYTES)
        return _episode(line) if line.endswith(b"\n") else 2**32

    return bisect.bisect_left(range(file.seek(0, 2)), episode, key=number_at)


def _episode(line: bytes) -> int:
    """0 where a line is of none."""
    try:
        number = json.loads(line)["episode"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0
    return number if isinstance(number, int) else 0
