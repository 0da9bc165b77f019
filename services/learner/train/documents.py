"""Documents into rows of a length: whole where they fit, cut where they do not.

Best-fit decreasing ("Fewer Truncations Improve Language Modeling", arXiv 2404.10830): the longest
first, each into the fullest row that still holds it. Laid end to end instead, as GPT-2 was trained,
most documents would be cut at a row's end, and the second half would be learnt without its first.
The documents of a row never see each other (services/learner/model/packing.py), so which ones share
one matters only for how full it is: usually above 99%, and what stays free costs nothing, since no
padding goes through the model. Rows are a function of the lengths alone; their order in training is
`plan_batches`'s, by the seed.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

from services.learner.train.encoding import EncodedRow, EncodedText

_SHORTEST = 2
"""Tokens: the first of a text is learnt from nothing."""


@dataclass(frozen=True)
class PackedRows:
    """Rows of documents, and what the packing did."""

    rows: list[EncodedRow]
    length: int
    """Tokens a row can hold."""
    documents: int
    cut: int
    """Documents longer than a row, which are in it as pieces."""

    @property
    def fill(self) -> float:
        """Tokens over the tokens that the rows could hold; 0 without rows."""
        held = sum(row.length for row in self.rows)
        return held / (len(self.rows) * self.length) if self.rows else 0.0

    def share_beyond(self, length: int) -> float:
        """Tokens in pieces of more than `length` tokens, over all; 0 without rows."""
        pieces = [piece.length for row in self.rows for piece in row.segments]
        return sum(n for n in pieces if n > length) / (sum(pieces) or 1)

    def __str__(self) -> str:
        """In words: "102 texts in 452 rows of 512 tokens, 99.7% full; 66 longer texts are cut"."""
        return (
            f"{self.documents:,} texts in {len(self.rows):,} rows of {self.length:,} tokens,"
            f" {self.fill:.1%} full; {self.cut:,} longer texts are cut"
        )


def pack_documents(texts: Sequence[Sequence[int]], end: int, length: int) -> PackedRows:
    """Rows of at most `length` tokens from token ids; each document is closed by `end`.

    No token is lost: all count but the first of each document, which nothing predicts.
    """
    pieces: list[EncodedText] = []
    cut = 0
    for at, text in enumerate(texts):
        parts = cut_document([*text, end], length)
        cut += len(parts) > 1
        pieces += [EncodedText(f"text {at}", part, [1] * len(part)) for part in parts]
    rows = best_fit([piece.length for piece in pieces], length)
    return PackedRows(
        [
            EncodedRow(f"row {number}", [pieces[at] for at in row])
            for number, row in enumerate(rows)
        ],
        length,
        len(texts),
        cut,
    )


def cut_document(ids: Sequence[int], length: int) -> list[Sequence[int]]:
    """Pieces of at most `length` tokens; none of a document of one token.

    Each begins with the last token of the one before, so that every token but the document's first
    is predicted, once.
    """
    return [ids[at : at + length] for at in range(0, len(ids) - 1, length - 1)]


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of `lengths` (each at most `size`) in rows whose lengths sum to at most `size`.

    O(n log n): the rows that have room stand by the room they have.
    """
    rows: list[list[int]] = []
    rooms: list[int] = []
    """Different ones, ascending."""
    with_room: dict[int, list[int]] = {}
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        place = bisect_left(rooms, lengths[at])
        if place == len(rooms):
            row, room = len(rows), size
            rows.append([])
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[place]
        rows[row].append(at)
        left = room - lengths[at]
        if left < _SHORTEST:
            continue
        if left not in with_room:
            with_room[left] = []
            insort(rooms, left)
        with_room[left].append(row)
    return rows
