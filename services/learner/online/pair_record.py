"""pairs.jsonl: every pair of an online run as one line, for people and for other jobs.

The learner writes an episode's file before the checkpoint that holds the episode. An episode that
is trained once more after a crash has the same kept pairs, so its file is the same as well.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pairloop.data.v1.pair_pb2 import PreferencePair, Score
from services.data.messages import plain_messages
from services.learner.train.durable import replaced_file

_FOLDER = "pairs"


def write_pairs(folder: Path, episode: int, pairs: Sequence[PreferencePair]) -> None:
    """One episode's file, whole or not at all: its pairs in canonical order."""
    with replaced_file(_path(folder, episode)) as file:
        for pair in pairs:
            file.write((json.dumps(pair_row(pair), ensure_ascii=False) + "\n").encode())


def join_pairs(folder: Path, episodes: int, out: Path) -> int:
    """Lay the files of episodes 1 to `episodes` end to end; returns the lines written.

    Every row's metadata has the same names, else `datasets` does not read them as one table.
    """
    names = sorted({name for row in _rows(folder, episodes) for name in row["metadata"]})
    lines = 0
    with out.open("w", encoding="utf-8") as whole:
        for row in _rows(folder, episodes):
            row["metadata"] = {name: row["metadata"].get(name) for name in names}
            whole.write(json.dumps(row, ensure_ascii=False) + "\n")
            lines += 1
    return lines


def pair_files(folder: Path) -> dict[int, Path]:
    """The files that `write_pairs` made, by episode, in order."""
    found = sorted((folder / _FOLDER).glob("episode-*.jsonl"))
    named = ((path.stem.removeprefix("episode-"), path) for path in found)
    return {int(number): path for number, path in named if number.isdecimal()}


def _rows(folder: Path, episodes: int) -> Iterator[dict[str, Any]]:
    for episode in range(1, episodes + 1):
        path = _path(folder, episode)
        if path.is_file():
            with path.open(encoding="utf-8") as part:
                yield from map(json.loads, part)


def pair_row(pair: PreferencePair) -> dict[str, Any]:
    """Columns that our jobs read as pairs, and what else is known of a pair.

    `answers` are those of the whole group, in sample order; every line has the same columns.
    """
    prompt, source = pair.prompt, pair.provenance
    return {
        "episode": prompt.episode,
        "index": prompt.index,
        "id": pair.id,
        "prompt": plain_messages(prompt),
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "chosen_score": pair.chosen_score.total,
        "rejected_score": pair.rejected_score.total,
        "margin": pair.margin,
        "length_gap": pair.length_gap,
        "answers": [
            {"text": text, "score": score.total, "parts": _parts(score)}
            for text, score in zip(source.group_answers, source.group_scores, strict=False)
        ],
        "min_policy_version": source.min_policy_version,
        "max_policy_version": source.max_policy_version,
        "weights": [
            {"version": span.version, "sha256": span.weights_sha256}
            for span in source.policy_versions
        ],
        "rule": source.rule,
        "scorer": source.scorer,
        "metadata": dict(sorted(prompt.metadata.items())),
    }


def _parts(score: Score) -> dict[str, float]:
    return {name: score.parts[name] for name in sorted(score.parts)}


def _path(folder: Path, episode: int) -> Path:
    return folder / _FOLDER / f"episode-{episode:05d}.jsonl"
