"""pairs.jsonl: what each line holds, and that episodes join in order."""

import json
from pathlib import Path

from datasets import load_dataset

from services.data.rows import PairRow, read_pairs
from services.data.settings import DataSource
from services.learner.online.pair_record import join_pairs, pair_row, write_pairs
from services.pairs.build import make_pair
from tests.unit.test_pairs_build import SCORES, SELECTION, rollout


def test_a_line_holds_the_pair_its_group_and_where_it_came_from() -> None:
    row = pair_row(make_pair(rollout(7, versions=[2, 3]), SCORES, SELECTION, "1.0*checker"))
    assert row == {
        "episode": 4,
        "index": 7,
        "id": "r/e4/p7",
        "prompt": [{"role": "user", "content": "question 7"}],
        "chosen": "abcd",
        "rejected": "ab",
        "chosen_score": 2.0,
        "rejected_score": -1.0,
        "margin": 3.0,
        "length_gap": 2,
        "answers": [
            {"text": "abcd", "score": 2.0, "parts": {"checker": 1.0, "model": 2.0}},
            {"text": "ab", "score": -1.0, "parts": {"checker": 1.0, "model": -1.0}},
            {"text": "ab", "score": 0.5, "parts": {"checker": 1.0, "model": 0.5}},
        ],
        "min_policy_version": 2,
        "max_policy_version": 3,
        "weights": [{"version": 2, "sha256": ""}, {"version": 3, "sha256": ""}],
        "rule": "best-worst",
        "scorer": "1.0*checker",
        "metadata": {"skill": "sort"},
    }


def test_episodes_join_in_order_and_read_as_pairs(tmp_path: Path) -> None:
    pairs = [make_pair(rollout(index), SCORES, SELECTION, "s") for index in range(3)]
    pairs[2].prompt.metadata["pattern"] = "a+"
    write_pairs(tmp_path, 2, pairs[2:])
    write_pairs(tmp_path, 1, pairs[:1])
    write_pairs(tmp_path, 1, pairs[:2])  # trained once more after a crash
    write_pairs(tmp_path, 4, pairs)  # of a run that went further
    out = tmp_path / "pairs.jsonl"
    assert join_pairs(tmp_path, 3, out) == 3
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == ["r/e4/p0", "r/e4/p1", "r/e4/p2"]
    first = read_pairs(DataSource(path=str(out)))[0]
    assert isinstance(first, PairRow)
    assert (first.messages, first.chosen, first.rejected) == (
        [{"role": "user", "content": "question 0"}],
        "abcd",
        "ab",
    )
    assert (first.metadata["skill"], "pattern" in first.metadata) == ("sort", False)
    assert [row["metadata"]["pattern"] for row in rows] == [None, None, "a+"]
    loaded = load_dataset(
        "json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded[2]["answers"][0]["parts"] == {"checker": 1.0, "model": 2.0}
