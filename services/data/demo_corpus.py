"""Pre-training texts that any machine has: the running Python's own library.

Each module gives its prose (docstrings and comments) as one text and its source as another.
"""

import ast
import hashlib
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.errors import DataError

_LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "encodings"}
_LONGEST = 40_000
_HELD_OUT_OF = 20


@dataclass(frozen=True)
class Corpus:
    """Texts to train on and texts of other modules, held out."""

    texts: list[str]
    heldout: list[str]


def library_corpus(megabytes: float, library: Path | None = None) -> Corpus:
    """About `megabytes` (10^6 characters) of texts, and a twentieth of the modules held out.

    Prose of all modules first, then sources, so that a small corpus is mostly English. Whether
    a module is held out follows from its name alone; the order too. Raises DataError when
    `library` (by default the running Python's) has no Python source in it.
    """
    root = library or Path(sysconfig.get_paths()["stdlib"])
    corpus = Corpus([], [])
    left = int(megabytes * 1e6)
    modules = [(name, source) for name, source in _sources(root) if source.strip()]
    if not modules:
        raise DataError(f"{root}: no Python source; install Python with its library's sources")
    for extract in (_prose, str):
        for name, source in modules:
            if left <= 0:
                return corpus
            text = extract(source)[:_LONGEST]
            if not text.strip():
                continue
            (corpus.heldout if _held_out(name) else corpus.texts).append(text)
            left -= len(text)
    return corpus


def _sources(root: Path) -> Iterator[tuple[str, str]]:
    """Names and sources of modules, in an order that mixes packages but never changes."""
    files = {
        file.relative_to(root).as_posix(): file
        for file in root.rglob("*.py")
        if not _LEFT_OUT.intersection(file.relative_to(root).parts)
    }
    for name in sorted(files, key=_digest):
        with files[name].open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        yield name, files[name].read_text(encoding=encoding)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _held_out(name: str) -> bool:
    return int(_digest(name)[:8], 16) % _HELD_OUT_OF == 0


def _prose(source: str) -> str:
    """Docstrings in order, then the comments, blocks joined to paragraphs."""
    tree = ast.parse(source)
    with_docs = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, with_docs)]
    return "\n\n".join([doc for doc in docs if doc] + list(_comments(source)))


def _comments(source: str) -> Iterator[str]:
    """Blocks of full-line comments, without their marks."""
    block: list[str] = []
    for line in [*source.splitlines(), ""]:
        text = line.strip()
        if text.startswith("#"):
            block.append(text.lstrip("#!: "))
        elif block:
            yield "\n".join(block)
            block = []
