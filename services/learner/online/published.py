"""Which weights went out under which number, as the learner itself wrote it down.

    published/version-00007.json    the digests of version 7: services/weights/manifest.py

A pair names the versions that sampled it, and the digest that the engine attested under each. One
whose digest never went out under its number was sampled by others' weights: of an engine that
outlived its run, or of a run that published the same number without this folder. It is left out.

There is a second digest under a number where a version was made again after a crash on kernels that
are not deterministic, or for engines of another dtype: both were this learner's, both count
(docs/adr/0018-digests-of-weights.md).
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pairloop.data.v1.pair_pb2 import DROP_REASON_FOREIGN_WEIGHTS, PreferencePair
from services.learner.online.episode_wait import Sampled
from services.learner.train.durable import replaced_file
from services.queues.ledger import reason_name

_FOLDER = "published"
_REASON = reason_name(DROP_REASON_FOREIGN_WEIGHTS)


def record_published(folder: Path, version: int, digest: str) -> None:
    """A version went out with this digest; a second time with the same one changes nothing."""
    known = _published(folder, version)
    if digest not in known:
        with replaced_file(_path(folder, version)) as file:
            file.write(json.dumps([*known, digest]).encode())


def without_foreign(folder: Path, sampled: Sampled) -> Sampled:
    """The episode, those pairs dropped that were sampled by weights which never went out.

    Nothing is dropped where nothing was recorded: a replay has no engines.
    """
    if not (folder / _FOLDER).is_dir():
        return sampled
    spans = [span for pair in sampled.pairs for span in pair.provenance.policy_versions]
    known = {span.version: _published(folder, span.version) for span in spans}
    kept = [
        pair
        for pair in sampled.pairs
        if pair.provenance.policy_versions
        and all(s.weights_sha256 in known[s.version] for s in pair.provenance.policy_versions)
    ]
    held = {pair.id for pair in kept}
    foreign = {pair.id: _REASON for pair in sampled.pairs if pair.id not in held}
    return Sampled(kept, {**sampled.dropped, **foreign})


def told(episode: int, before: Sequence[PreferencePair], after: Iterable[PreferencePair]) -> str:
    """A line on what was left out; "" for nothing."""
    held = {pair.id for pair in after}
    if not (out := [pair for pair in before if pair.id not in held]):
        return ""
    workers = ", ".join(sorted({pair.provenance.rollout_worker or "?" for pair in out}))
    return (
        f"episode {episode}: {len(out)} of {len(before)} pairs were sampled by weights that were"
        f" never published under their number (by {workers}) and are left out; look for engines"
        " of another run on this Redis"
    )


def _published(folder: Path, version: int) -> list[str]:
    path = _path(folder, version)
    if not path.is_file():
        return []
    digests: list[str] = json.loads(path.read_bytes())
    return digests


def _path(folder: Path, version: int) -> Path:
    return folder / _FOLDER / f"version-{version:05d}.json"
