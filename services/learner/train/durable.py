"""Files and folders that are complete or absent: written beside, flushed to disk, renamed."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replaced_file(target: Path) -> Iterator[BinaryIO]:
    """A file to fill, which becomes `target` when the block ends well; its folder is made.

    An interrupted write leaves "<stem>.partial" beside it, which the next one overwrites.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A new empty folder to fill, which becomes `target` when the block ends well.

    What stood there before stays until that moment, and for good when the block raises. Leftovers
    of an interrupted write (".<name>.<id>.tmp" beside it) are removed by the next one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        shutil.rmtree(leftover)
    fresh = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    fresh.mkdir()
    try:
        yield fresh
        for path in sorted(fresh.rglob("*")):
            _flush(path)
        _flush(fresh)
        if target.exists():
            aside = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
            target.rename(aside)
            fresh.rename(target)
            shutil.rmtree(aside)
        else:
            fresh.rename(target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _flush(target.parent)


def _flush(path: Path) -> None:
    """fsync a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
