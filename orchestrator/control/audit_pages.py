"""Pages of the audit stream, the latest entry first. A page's token is the id of the last entry
that was looked at before it.

It lies in Redis; of a run without one in its folder, as audit.jsonl: there an id is "0-<offset>".
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping

from orchestrator.control.records import RecordReader
from orchestrator.control.run_folder import RunFolder
from pairloop.admin.v1.admin_pb2 import AuditEntry, Run
from services.admin.ports import MESSAGE_BYTES, Page
from services.errors import UnknownPageError

Fields = Mapping[str, str]
Before = Callable[[str, int], Awaitable[list[tuple[str, Fields]]]]
"""Entries before an id, the latest first, and so many unless there are no more; "+": the last."""

AUDIT = "audit.jsonl"
_BATCH = 500
_BATCHES = 20
"""Looked through for one page of a run among many: then it may be short."""
_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
_BLOCK = 2**20


async def audit_page(before: Before, run: str, size: int, token: str) -> Page[AuditEntry]:
    """Up to `size` entries of a run, by its id, or ("") of all. Raises UnknownPageError."""
    if token and not _ID.fullmatch(token):
        raise UnknownPageError("is none that a page before gave")
    last, room = token or "+", MESSAGE_BYTES
    entries: list[AuditEntry] = []
    for _ in range(_BATCHES):
        found = await before(last, _BATCH)
        for id_, fields in found:
            if not run or fields.get("run") == run:
                entry = _entry(id_, fields)
                room -= entry.ByteSize()
                if len(entries) == size or (entries and room < 0):
                    return Page(entries, last)
                entries.append(entry)
            last = id_
        if len(found) < _BATCH:
            return Page(entries, "")
    return Page(entries, last)


def in_file(reader: RecordReader, run: Run) -> Before:
    """The entries in a run's folder."""

    async def before(id_: str, count: int) -> list[tuple[str, Fields]]:
        return await reader.read(run, lambda folder: _read_back(folder, id_, count))

    return before


def _read_back(folder: RunFolder, id_: str, count: int) -> list[tuple[str, Fields]]:
    file = folder.opened(folder.path / AUDIT)
    if file is None:
        return []
    with file:
        end = file.seek(0, 2)
        if id_ != "+":
            end = min(end, int(id_.split("-")[1]))
        block = _BLOCK
        while True:
            start = max(0, end - block)
            file.seek(start)
            lines = file.read(end - start).splitlines(keepends=True)
            if start == 0 or len(lines) > count:
                break
            block *= 2
    found: list[tuple[str, Fields]] = []
    for line in reversed(lines[1:] if start else lines):
        end -= len(line)
        if len(found) < count and line.endswith(b"\n"):
            found.append((f"0-{end}", _fields(line)))
    return found


def _fields(line: bytes) -> Fields:
    try:
        return {str(name): str(text) for name, text in json.loads(line).items()}
    except (ValueError, AttributeError):  # what was written after a crash stands behind its half
        return {"outcome": "this entry is damaged"}


def _entry(id_: str, fields: Fields) -> AuditEntry:
    entry = AuditEntry(
        id=id_,
        run=fields.get("run", ""),
        method=fields.get("method", ""),
        what=fields.get("what", ""),
        actor=fields.get("actor", ""),
        peer=fields.get("peer", ""),
        reason=fields.get("reason", ""),
        request_id=fields.get("request_id", ""),
        outcome=fields.get("outcome", ""),
    )
    if time := fields.get("time"):
        entry.time.FromJsonString(time)
    return entry
