"""rollouts/: the pairs of an online run as the learner trained them, to be trained on again.

    rollouts/episode-00001.pb    PreferencePair messages (protos/pairloop/data/v1/pair.proto) in
                                 canonical order, each after its length as a varint

That is protobuf's delimited format, which its libraries read in every language. A pair has the
prompt, both answers (token ids, the sampler's log-probabilities, policy versions), their scores,
and of the other answers of its group text and scores. An episode whose groups gave no pair is an
empty file.

The learner writes an episode's file before the checkpoint that holds the episode, as it does
pairs.jsonl, the same for people.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from google.protobuf.message import DecodeError
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.errors import ArtifactError
from services.learner.train.durable import replaced_file

ROLLOUTS = "rollouts"
"""In the learner's folder, and in the artifact."""


def write_rollouts(folder: Path, episode: int, pairs: Sequence[PreferencePair]) -> None:
    """One episode's file in `folder`/rollouts, whole or not at all."""
    whole = BytesIO()
    for pair in pairs:
        serialize_length_prefixed(pair, whole)
    with replaced_file(_path(folder / ROLLOUTS, episode)) as file:
        file.write(whole.getbuffer())


def read_rollouts(rollouts: Path, episode: int) -> list[PreferencePair]:
    """The episode's pairs, in canonical order. ArtifactError when they are missing or damaged."""
    path, pairs = _path(rollouts, episode), list[PreferencePair]()
    try:
        whole = path.read_bytes()
        stream = BytesIO(whole)
        while stream.tell() < len(whole):
            pairs.append(parse_length_prefixed(PreferencePair, stream))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path}: episode {episode} was not recorded; record the run from its start"
        ) from None
    except (DecodeError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); copy it again") from None
    return pairs


def rollouts_in(path: Path) -> Path:
    """The folder of episodes: `path` itself, or in an artifact its rollouts/."""
    return path / ROLLOUTS if (path / ROLLOUTS).is_dir() else path


def recorded_episodes(rollouts: Path) -> list[int]:
    """The numbers of the episodes that are there, in order."""
    found = rollouts.glob("episode-*.pb")
    return sorted(int(path.stem.removeprefix("episode-")) for path in found)


def _path(rollouts: Path, episode: int) -> Path:
    return rollouts / f"episode-{episode:05d}.pb"
