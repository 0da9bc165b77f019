"""What pre-training makes before it trains: once, whole, and the same each time."""

import json
from pathlib import Path

import pytest

from orchestrator.jobs.pretrain import Pretrain
from orchestrator.jobs.pretrain_run import prepare, prepared
from services.errors import DataError
from services.learner.jobs.settings import PretrainSettings

FIELDS = {"texts", "sequence_length", "model"}


def job(tmp_path: Path, **changes: object) -> Pretrain:
    texts = [f"A text about the number {n}, and then about {n + 1} too." for n in range(40)]
    for name, found in {"t": [*texts, "short"], "long": [" ".join(texts)]}.items():
        rows = "".join(json.dumps({"text": text}) + "\n" for text in found)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    given = {
        "texts": {"path": str(tmp_path / "t.jsonl")},
        "tokenizer": {"vocab_size": 300},
        "filters": {"min_chars": 20, "near_duplicate_similarity": 1.0},
        "sequence_length": 64,
        "model": {"rope_theta": 10_000.0, "max_positions": 64},
    }
    return Pretrain.model_validate(given | changes)


def lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def test_texts_are_cleaned_split_and_the_same_each_time(tmp_path: Path) -> None:
    given = job(tmp_path)
    for name in ("a", "b"):
        prepare(given, tmp_path / name)
    for file in ("texts.jsonl", "heldout.jsonl", "tokenizer/tokenizer.json", "counts.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    ready = prepared(given, tmp_path / "a")
    assert ready.heldout is not None
    assert (len(lines(ready.texts.path)), len(lines(ready.heldout.path))) == (39, 1)
    assert ready.tokenizer == str(tmp_path / "a" / "tokenizer")
    counts = json.loads((tmp_path / "a" / "counts.json").read_text())
    assert counts == {"texts": 39, "heldout_texts": 1, "dropped_too_short": 1}


def test_an_extension_has_texts_of_its_own(tmp_path: Path) -> None:
    longer = {"sequence_length": 256, "texts": {"path": str(tmp_path / "long.jsonl")}}
    given = job(tmp_path, context_extension=longer)
    prepare(given, tmp_path / "a")
    ready = prepared(given, tmp_path / "a").context_extension
    assert ready is not None
    assert ready.texts is not None
    assert len(lines(ready.texts.path)) == 1
    assert ready.sequence_length == 256
    too_strict = {"min_chars": 10**5, "near_duplicate_similarity": 1.0}
    with pytest.raises(DataError, match=r"t\.jsonl: no text is left after the filters"):
        prepare(job(tmp_path, filters=too_strict), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_an_extension_decides_the_positions_of_the_model(tmp_path: Path) -> None:
    assert job(tmp_path).new_shape().max_positions == 64
    longer = {"sequence_length": 256, "rope_theta": 20_000.0}
    made = job(tmp_path, context_extension=longer).new_shape()
    assert (made.max_positions, made.rope_theta) == (256, 20_000.0)
    stretched = job(tmp_path, context_extension=longer | {"yarn_factor": 4}).new_shape()
    assert stretched.max_positions == 1024


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"sequence_length": 65}, r"sequence_length 65 is more than model\.max_positions 64"),
        (
            {"context_extension": {"sequence_length": 64}},
            r"length 64 is not more than seq",
        ),
        (
            {"context_extension": {"sequence_length": 128, "rope_theta": 200}},
            r"rope_theta 200 is less than model\.rope_theta 10000; longer contexts need",
        ),
    ],
)
def test_lengths_that_contradict_are_refused(
    changed: dict[str, object], refused: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=refused):
        PretrainSettings.model_validate(job(tmp_path).model_dump(include=FIELDS) | changed)


def test_a_base_too_small_for_the_context_is_warned_of(tmp_path: Path) -> None:
    longer = {"sequence_length": 32_768, "rope_theta": 100_000.0}
    (text,) = [t for t in job(tmp_path, context_extension=longer).warnings() if "rope" in t]
    assert text.startswith("context_extension.rope_theta 100000 is below 9.5e+05, the least")
    enough = longer | {"rope_theta": 1e6}
    assert not [t for t in job(tmp_path, context_extension=enough).warnings() if "rope" in t]
