"""Raw rows out of JSONL and Parquet files, folders of them, and hub datasets.

Nothing heavy is imported for JSONL; pyarrow and datasets are imported where they are needed.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from services.data.settings import DataSource
from services.errors import DataError, one_line
from services.hub import is_hub_name

_SUFFIXES = (".jsonl", ".parquet")

RawRow = tuple[str, dict[str, object]]
"""Where a row stands ("file.jsonl, line 17") and its columns."""


def files_of(path: str) -> list[Path]:
    """The data files `path` stands for, in name order; empty for the name of a hub dataset.

    Raises DataError when there is no such file, or a folder holds none.
    """
    found = Path(path)
    if found.is_dir():
        files = sorted(file for file in found.iterdir() if file.suffix in _SUFFIXES)
        if not files:
            raise DataError(f"{path}: no .jsonl or .parquet file in this folder")
        return files
    if found.is_file():
        if found.suffix not in _SUFFIXES:
            raise DataError(f"{path}: neither .jsonl nor .parquet; convert it to one of them")
        return [found]
    if not is_hub_name(path):
        raise DataError(f"{path}: no such file or folder")
    return []


def raw_rows(source: DataSource) -> Iterator[RawRow]:
    """Rows of a source in order, up to its limit. Raises DataError with file and line."""
    files = files_of(source.path)
    rows = _rows_of_files(files) if files else _hub_rows(source)
    empty = True
    for row in islice(rows, source.limit):
        empty = False
        yield row
    if empty:
        raise DataError(f"{source.path}: empty, no row in it")


def row_count(source: DataSource) -> int:
    """Rows of a source in files, up to its limit, without reading what is in them."""
    count = sum(map(_count, files_of(source.path)))
    return count if source.limit is None else min(count, source.limit)


def _count(file: Path) -> int:
    if file.suffix == ".jsonl":
        with file.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def _rows_of_files(files: list[Path]) -> Iterator[RawRow]:
    for file in files:
        yield from _jsonl_rows(file) if file.suffix == ".jsonl" else _parquet_rows(file)


def _jsonl_rows(file: Path) -> Iterator[RawRow]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip())
            except UnicodeDecodeError as error:
                raise DataError(f"{where}: not UTF-8 text ({error.reason})") from error
            except json.JSONDecodeError as error:
                at = f"{error.msg} at column {error.pos + 1}"
                raise DataError(f"{where}: not JSON ({at})") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{where}: a JSON object is needed, this is a {_kind(row)}")
            yield where, row


def _parquet_rows(file: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{file}, row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file}, after row {number}: not readable Parquet ({one_line(error)})"
        ) from error


def _hub_rows(source: DataSource) -> Iterator[RawRow]:
    import datasets

    try:
        rows = datasets.load_dataset(source.path, split=source.split)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source.path}: no such file or folder, and not to be had from the hub"
            f" ({one_line(error)})"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{source.path}[{source.split}], row {number}", row


def _kind(value: object) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
