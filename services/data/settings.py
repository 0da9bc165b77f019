"""Settings of data: where examples come from and how texts are filtered."""

from pydantic import Field

from services.settings import Settings


class DataSource(Settings):
    """A JSONL or Parquet file, a folder of them, or a hub dataset."""

    path: str
    """File, folder, hub name, or "@stage/file" inside a recipe."""
    split: str = "train"
    """Of a hub dataset."""
    limit: int | None = Field(None, ge=1)
    """Take the first so many rows."""
    field: str | None = None
    """Column to read; by default the first of the usual names that is there."""


class FilterSettings(Settings):
    """Heuristic filters of pre-training text; every drop is counted by reason."""

    min_chars: int = Field(80, ge=0)
    """Shorter texts go."""
    max_chars: int = Field(200_000, ge=1)
    """Longer texts go."""
    max_symbol_ratio: float = Field(0.4, gt=0.0, le=1.0)
    """Characters that are neither letters, digits nor spaces, over all."""
    max_line_repetition: float = Field(0.4, gt=0.0, le=1.0)
    """Share of lines that repeat an earlier line of the same text."""
    max_ngram_repetition: float = Field(0.3, gt=0.0, le=1.0)
    """Share of 5-grams of words that repeat an earlier one."""
    near_duplicate_similarity: float = Field(0.8, gt=0.0, le=1.0)
    """Estimated Jaccard similarity of 5-word shingles (MinHash); 1 drops exact copies alone."""


class TokenizerSettings(Settings):
    """A byte-level BPE trained on the job's own texts, with Qwen2's three control tokens."""

    vocab_size: int = Field(151_646, ge=300)
    """Regular and control tokens together."""
