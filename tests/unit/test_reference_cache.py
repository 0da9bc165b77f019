"""The reference's log-probabilities are computed once for what they follow from."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.jobs.offline_dpo import keep_known_reference
from orchestrator.stages.context import RunContext, StageContext
from services.learner.model.export import export_model
from services.learner.model.load import new_model
from services.learner.model.precision import Dtype
from services.learner.model.reference_cache import ReferenceCache, Sums
from services.learner.model.rope import set_rope
from services.learner.train.distributed import Worker
from services.learner.train.encoding import EncodedPair
from tests.unit import learner_parts as parts

PAIRS = [EncodedPair(f"pair {n}", [5, 6], [7] * (n + 1), [8, 9]) for n in range(3)]


class Computed:
    """Sums that are told apart, and how often they were asked for."""

    def __init__(self) -> None:
        self.times = 0

    def of(self, pairs: Sequence[EncodedPair]) -> Sums:
        self.times += 1
        return {pair.id: (-0.1 * at, -1.0 - at / 3) for at, pair in enumerate(pairs)}


def ask(
    folder: Path | None,
    reference: str,
    computed: Computed,
    pairs: Sequence[EncodedPair] = PAIRS,
    dtype: Dtype = "float32",
) -> Sums:
    cache = ReferenceCache(folder, reference, dtype, Worker())
    return cache.sums(pairs, lambda: computed.of(pairs))


def test_a_second_job_computes_nothing_and_has_the_same_numbers(tmp_path: Path) -> None:
    reference, computed = parts.policy(tmp_path / "reference"), Computed()
    first = ask(tmp_path / "kept", reference, computed)
    second = ask(tmp_path / "kept", reference, computed)
    assert computed.times == 1
    assert second == first
    assert first["pair 2"] == pytest.approx((-0.2, -1.0 - 2 / 3))


def test_what_the_numbers_follow_from_is_in_the_key(tmp_path: Path) -> None:
    reference, computed = parts.policy(tmp_path / "reference"), Computed()
    ask(tmp_path / "kept", reference, computed)
    other = parts.policy(tmp_path / "other", seed=1)
    ask(tmp_path / "kept", other, computed)
    assert computed.times == 2
    stretched = new_model(parts.SHAPE, parts.tokenizer(), 0)
    set_rope(stretched, 10_000.0, 128)
    export_model(stretched, parts.tokenizer(), tmp_path / "stretched")
    ask(tmp_path / "kept", str(tmp_path / "stretched"), computed)
    assert computed.times == 3
    ask(tmp_path / "kept", reference, computed, dtype="bfloat16")
    assert computed.times == 4
    ask(tmp_path / "kept", reference, computed, PAIRS[::-1])
    ask(tmp_path / "kept", reference, computed, PAIRS[:2])
    assert computed.times == 6
    # A token that moves from the prompt to the answer is another pair.
    moved = [EncodedPair("pair 0", [5], [6, 7], [8, 9])]
    ask(tmp_path / "kept", reference, computed, PAIRS[:1])
    ask(tmp_path / "kept", reference, computed, moved)
    assert computed.times == 8
    # Where the model lies is no part of it.
    again = parts.policy(tmp_path / "elsewhere")
    ask(tmp_path / "kept", again, computed)
    assert computed.times == 8


def test_a_file_cut_short_is_computed_again(tmp_path: Path) -> None:
    reference, computed = parts.policy(tmp_path / "reference"), Computed()
    expected = ask(tmp_path / "kept", reference, computed)
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    assert ask(tmp_path / "kept", reference, computed) == expected
    assert computed.times == 2
    ask(tmp_path / "kept", reference, computed)
    assert computed.times == 2


def test_what_was_used_is_copied_and_nothing_without_a_folder(tmp_path: Path) -> None:
    reference, computed = parts.policy(tmp_path / "reference"), Computed()
    ask(tmp_path / "kept", reference, computed, PAIRS[:1])
    cache = ReferenceCache(tmp_path / "kept", reference, "float32", Worker())
    cache.sums(PAIRS, lambda: computed.of(PAIRS))
    assert cache.sums([], lambda: computed.of(PAIRS)) == {}
    cache.copy_used(tmp_path / "out")
    (copied,) = (tmp_path / "out").iterdir()
    assert len(list((tmp_path / "kept").iterdir())) == 2
    ask(tmp_path / "out", reference, computed)
    assert computed.times == 2
    assert copied.read_bytes() == (tmp_path / "kept" / copied.name).read_bytes()
    ask(None, reference, computed)
    ask(None, reference, computed)
    assert computed.times == 4


def test_a_job_has_what_the_artifact_in_its_place_knows(tmp_path: Path) -> None:
    reference, computed = parts.policy(tmp_path / "reference"), Computed()
    run = RunContext("r", tmp_path / "r", lambda _: None)
    ask(run.folder / "offline_dpo" / "reference", reference, computed)
    scratch = run.folder / ".work" / "offline_dpo-1"
    context = StageContext(run, "offline_dpo", 0, scratch / "out", scratch, "1")
    keep_known_reference(context)
    ask(scratch / "learner" / "reference", reference, computed)
    assert computed.times == 1
    other = StageContext(run, "first_of_its_name", 0, scratch / "out", scratch, "1")
    keep_known_reference(other)  # there is none
