"""A ledger as a file: one event a line, compressed; several files end to end are one as well."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from services.queues.ledger import LedgerEvent

LEDGER = "ledger.jsonl.gz"
"""In the artifact of an online run."""

UNREADABLE = (OSError, EOFError, ValueError, TypeError, zlib.error)
"""What reading one raises that was cut off or changed."""


def packed(events: Iterable[LedgerEvent]) -> bytes:
    """The file; the same events give the same bytes."""
    lines = "".join(json.dumps(asdict(event)) + "\n" for event in events)
    return gzip.compress(lines.encode(), mtime=0)


def read_ledger_file(path: Path) -> Iterator[LedgerEvent]:
    """The events of a file, in order. Raises FileNotFoundError."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield LedgerEvent(**json.loads(line))
