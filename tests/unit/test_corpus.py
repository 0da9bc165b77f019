from pathlib import Path

import pytest

from services.data.demo_corpus import library_corpus
from services.errors import DataError

MODULE = '''"""What module {name} is for."""

# A comment about the
# function below.
def function():
    """What the function does."""
    return 1  # not a full-line comment
'''


def _library(root: Path, count: int) -> Path:
    for at in range(count):
        (root / f"m{at}.py").write_text(MODULE.format(name=at))
    (root / "test").mkdir()
    (root / "test" / "hidden.py").write_text('"""Never read."""')
    (root / "latin.py").write_bytes(b'# -*- coding: latin-1 -*-\n"""caf\xe9 au lait"""\n')
    return root


def test_prose_then_source_without_tests(tmp_path: Path) -> None:
    corpus = library_corpus(1.0, _library(tmp_path, 60))
    texts = corpus.texts + corpus.heldout
    assert len(texts) == 2 * 61
    prose = [text for text in texts if text.startswith("What module 7 is for.")]
    assert prose == [
        "What module 7 is for.\n\nWhat the function does.\n\nA comment about the\nfunction below."
    ]
    assert MODULE.format(name=7) in texts
    assert any("café au lait" in text for text in texts)
    assert not any("Never read" in text for text in texts)


def test_modules_are_held_out_whole(tmp_path: Path) -> None:
    corpus = library_corpus(1.0, _library(tmp_path, 60))
    modules = [
        {line for text in part for line in text.splitlines() if "What module" in line}
        for part in (corpus.texts, corpus.heldout)
    ]
    names = [{line.strip('"') for line in part} for part in modules]
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]


def test_size_bound_and_order(tmp_path: Path) -> None:
    root = _library(tmp_path, 60)
    small = library_corpus(0.001, root)
    assert 1000 <= sum(map(len, small.texts + small.heldout)) < 1000 + len(MODULE) + 10
    assert library_corpus(0.001, root) == small
    whole = library_corpus(1.0, root)
    assert whole.texts[: len(small.texts)] == small.texts


def test_no_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Python source"):
        library_corpus(1.0, tmp_path)


def test_the_running_library_has_enough() -> None:
    corpus = library_corpus(0.3)
    total = sum(map(len, corpus.texts + corpus.heldout))
    assert 300_000 <= total <= 340_000
