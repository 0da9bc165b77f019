"""What an input is, whatever it is called and wherever it lies.

An artifact counts by its fingerprint, another file or folder by a hash of its bytes, a function by
its module's source, a hub name by itself. A hash is kept beside the runs and taken again only when
path, size or time of the file has changed: a copied data set is the same input, at no cost.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from orchestrator.artifacts.inputs import Input
from orchestrator.artifacts.store import FILE, read_artifact
from services.inputs import Function
from services.reward.function import source_of

_BLOCK = 1 << 22


class ContentIndex:
    """Tokens of inputs; hashes are kept in `cache`, a JSON file that may be deleted any time."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, str] = _read(cache)
        self._used: dict[str, str] = {}

    def token(self, each: Input) -> str:
        """What stands for an input in an identity."""
        if isinstance(each.mark, Function):
            return f"{each.value} {self._function(each.value)}"
        path = Path(each.value)
        for root in (path, path.parent):
            if (root / FILE).is_file() and (artifact := read_artifact(root)):
                rest = path.relative_to(root).as_posix()
                return f"artifact {artifact.fingerprint}" + (f"/{rest}" if rest != "." else "")
        if path.is_file():
            return f"file {self._hash(path)}"
        if path.is_dir():
            return f"folder {self._folder(path)}"
        return each.value

    def save(self) -> None:
        """Write the hashes that were used, for the next run. A folder not writable is no error."""
        if all(self._known.get(key) == value for key, value in self._used.items()):
            return
        partial = self._cache.with_name(f"{self._cache.name}.{os.getpid()}")
        try:
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._known | self._used, indent=0), encoding="utf-8")
            partial.rename(self._cache)
        except OSError:
            partial.unlink(missing_ok=True)

    def _function(self, path: str) -> str:
        source = source_of(path.split(":")[0])
        return self._hash(source) if source is not None else ""

    def _folder(self, folder: Path) -> str:
        digest = xxhash.xxh3_64()
        for file in _files(folder):
            digest.update(f"{file.relative_to(folder).as_posix()} {self._hash(file)}\n".encode())
        return digest.hexdigest()

    def _hash(self, file: Path) -> str:
        stat = file.stat()
        key = f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        found = self._used.get(key) or self._known.get(key) or _hashed(file)
        self._used[key] = found
        return found


def same_data(first: Path, second: Path) -> bool:
    """Whether two artifacts hold the same weights and tokenizer, or else the same rows."""
    return _data(first) == _data(second)


def _data(folder: Path) -> dict[str, str]:
    """A hash by name. Beside weights, rows tell of the making: times are in them."""
    weights = [*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]
    return {file.name: _hashed(file) for file in weights or folder.glob("*.jsonl")}


def _hashed(file: Path) -> str:
    digest = xxhash.xxh3_64()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    """In the order of their names; hidden ones are tools' own."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts):
            yield path


def _read(cache: Path) -> dict[str, str]:
    try:
        found = json.loads(cache.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
