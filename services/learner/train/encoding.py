"""Examples as token ids: what a training phase is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.data.chat import encode_answer, encode_dialogue, render_prompt
from services.data.rows import Conversation, PairRow
from services.learner.model.packing import PrefixGroup


class Text(Protocol):
    """One example of language modelling."""

    @property
    def id(self) -> str:
        """What an error calls it."""

    @property
    def length(self) -> int:
        """Tokens."""

    @property
    def learnt(self) -> int:
        """Tokens that are learnt."""

    def groups(self) -> list[PrefixGroup]:
        """What goes through the model; no part of it sees another."""


@dataclass(frozen=True)
class EncodedText:
    """Token ids and which of them are learnt: 1 counts; the first token never does."""

    id: str
    ids: Sequence[int]
    mask: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.ids)

    @property
    def learnt(self) -> int:
        """Tokens that are learnt."""
        return sum(self.mask[1:])

    def groups(self) -> list[PrefixGroup]:
        """One, without a prefix."""
        return [PrefixGroup((), (self.ids,), (self.mask,))]


@dataclass(frozen=True)
class EncodedRow:
    """Documents that train together and never see each other."""

    id: str
    segments: Sequence[EncodedText]

    @property
    def length(self) -> int:
        """Tokens."""
        return sum(segment.length for segment in self.segments)

    @property
    def learnt(self) -> int:
        """Tokens that are learnt: of each document all but the first."""
        return sum(segment.learnt for segment in self.segments)

    def groups(self) -> list[PrefixGroup]:
        """One a document."""
        return [group for segment in self.segments for group in segment.groups()]


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and its two answers, as token ids."""

    id: str
    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of the two rows."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    def group(self) -> PrefixGroup:
        """The prompt once, with chosen and rejected; all of the answers' tokens count."""
        return PrefixGroup(self.prompt, (self.chosen, self.rejected))


def encode_conversations(
    tokenizer: Any, conversations: Sequence[Conversation], max_length: int
) -> list[EncodedText]:
    """Dialogues cut at `max_length`; what has no token to learn left is left out."""
    encoded = []
    for at, conversation in enumerate(conversations):
        ids, mask = encode_dialogue(tokenizer, conversation.messages)
        example = EncodedText(f"dialogue {at}", ids[:max_length], mask[:max_length])
        if example.learnt:
            encoded.append(example)
    return encoded


def encode_rows(rows: Sequence[Sequence[int]]) -> list[EncodedText]:
    """Packed rows of a corpus: every token is learnt."""
    return [EncodedText(f"row {at}", row, [1] * len(row)) for at, row in enumerate(rows)]


def encode_pairs(
    tokenizer: Any, pairs: Sequence[PairRow], max_length: int
) -> tuple[list[EncodedPair], int]:
    """Pairs within `max_length`, and how many were longer and left out."""
    encoded = []
    for at, pair in enumerate(pairs):
        _, prompt = render_prompt(tokenizer, pair.messages)
        chosen = encode_answer(tokenizer, pair.chosen)
        rejected = encode_answer(tokenizer, pair.rejected)
        encoded.append(EncodedPair(f"pair {at}", prompt, chosen, rejected))
    return _within(encoded, max_length)


def sampled_pairs(
    pairs: Sequence[PreferencePair], max_length: int
) -> tuple[list[EncodedPair], int]:
    """As `encode_pairs`, from the very tokens that were sampled."""
    encoded = [
        EncodedPair(
            pair.id,
            list(pair.prompt.token_ids),
            list(pair.chosen.token_ids),
            list(pair.rejected.token_ids),
        )
        for pair in pairs
    ]
    return _within(encoded, max_length)


def _within(pairs: list[EncodedPair], max_length: int) -> tuple[list[EncodedPair], int]:
    kept = [pair for pair in pairs if pair.length <= max_length]
    return kept, len(pairs) - len(kept)
