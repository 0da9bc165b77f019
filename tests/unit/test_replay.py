"""Recorded rollouts: what is kept, and that training on them again gives the same weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from services.errors import ArtifactError, DataError
from services.learner.jobs.settings import OnlineDPOSettings, Place, ReplayDPOSettings
from services.learner.online.learner import online_learner
from services.learner.online.replay import replay_dpo
from services.learner.online.rollouts import (
    read_rollouts,
    recorded_episodes,
    rollouts_in,
    write_rollouts,
)
from services.pairs.build import make_pair
from services.telemetry.record.events import EpisodeFinished, Event
from tests.unit import learner_parts as parts
from tests.unit.test_online_learner import queues, setting
from tests.unit.test_pairs_build import SCORES, SELECTION, rollout

WEIGHTS = "model.safetensors"


def recorded(tmp_path: Path, **changes: object) -> tuple[OnlineDPOSettings, Path]:
    """The settings of a learner on fake queues, and the folder in which it recorded."""
    settings, place = setting(tmp_path, "online", **changes)
    settings = settings.model_copy(update={"record": True})
    source = queues()
    online_learner(settings, place, lambda _: None, source.open, parts.FakeBoard(source.history))
    return settings, tmp_path / "online"


def replay(
    tmp_path: Path,
    settings: OnlineDPOSettings,
    rollouts: Path,
    *,
    folder: str = "replay",
    report: Callable[[Event], None] = lambda _: None,
    **changes: object,
) -> dict[str, float]:
    """As the job does it; the model is then in <folder>/out."""
    same = {
        name: getattr(settings, name)
        for name in ("policy", "reference", "base", "episodes", "dpo", "train")
    }
    place = Place(
        stage="replay",
        seed=11,
        out=str(tmp_path / folder / "out"),
        folder=str(tmp_path / folder),
    )
    asked = ReplayDPOSettings.model_validate({"rollouts": str(rollouts)} | same | changes)
    return replay_dpo(asked, place, report)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "out" / WEIGHTS))


def test_a_record_holds_every_field_of_the_pairs_in_protobufs_delimited_format(
    tmp_path: Path,
) -> None:
    pairs = [make_pair(rollout(index), SCORES, SELECTION, "s") for index in (2, 5)]
    write_rollouts(tmp_path, 3, pairs)
    write_rollouts(tmp_path, 11, [])  # an episode whose groups gave no pair
    folder = rollouts_in(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [
        "episode-00003.pb",
        "episode-00011.pb",
    ]
    assert recorded_episodes(folder) == [3, 11]
    assert read_rollouts(folder, 3) == pairs
    assert read_rollouts(folder, 11) == []
    assert rollouts_in(folder) == folder
    # Length as a varint, then the message, until the file ends.
    first = pairs[0].SerializeToString()
    assert 128 <= len(first) < 1 << 14
    head = bytes([len(first) & 127 | 128, len(first) >> 7])
    assert (folder / "episode-00003.pb").read_bytes().startswith(head + first)


def test_a_missing_or_damaged_episode_is_named(tmp_path: Path) -> None:
    write_rollouts(tmp_path, 1, [make_pair(rollout(0), SCORES, SELECTION, "s")])
    folder = rollouts_in(tmp_path)
    with pytest.raises(ArtifactError, match="episode 2 was not recorded"):
        read_rollouts(folder, 2)
    whole = (folder / "episode-00001.pb").read_bytes()
    for cut in (1, 50, len(whole) - 1):
        (folder / "episode-00001.pb").write_bytes(whole[:cut])
        with pytest.raises(ArtifactError, match=r"episode-00001\.pb is damaged"):
            read_rollouts(folder, 1)


def test_a_learner_records_only_when_asked_to(tmp_path: Path) -> None:
    settings, place = setting(tmp_path, "silent", count=1)
    source = queues()
    online_learner(settings, place, lambda _: None, source.open, parts.FakeBoard(source.history))
    assert not (tmp_path / "silent" / "rollouts").exists()
    _, folder = recorded(tmp_path)
    assert recorded_episodes(rollouts_in(folder)) == [1, 2, 3]
    for episode, pairs in queues().kept.items():
        assert read_rollouts(rollouts_in(folder), episode) == pairs


def test_an_episode_is_recorded_before_the_checkpoint_that_holds_it(tmp_path: Path) -> None:
    settings, place = setting(tmp_path, "a")
    settings = settings.model_copy(update={"record": True})
    source = queues()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rollouts").write_text("in the way")
    with pytest.raises(OSError, match="rollouts"):
        online_learner(
            settings, place, lambda _: None, source.open, parts.FakeBoard(source.history)
        )
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_the_same_settings_give_the_same_weights_byte_for_byte(tmp_path: Path) -> None:
    settings, folder = recorded(tmp_path)
    events: list[Event] = []
    metrics = replay(tmp_path, settings, folder, report=events.append)
    assert (tmp_path / "replay" / "out" / WEIGHTS).read_bytes() == (
        folder / "out" / WEIGHTS
    ).read_bytes()
    assert (metrics["version"], metrics["trained_pairs"]) == (3, 7)
    told = [event for event in events if isinstance(event, EpisodeFinished)]
    assert [(each.number, each.total, each.pairs) for each in told] == [
        (1, 3, 8),
        (2, 3, 0),
        (3, 3, 7),
    ]
    assert told[2].metrics["loss"] == metrics["loss"] > 0


def test_another_beta_gives_other_weights_and_the_same_ones_each_time(tmp_path: Path) -> None:
    settings, folder = recorded(tmp_path)
    for name in ("first", "second"):
        replay(tmp_path, settings, folder, folder=name, dpo={"beta": 0.5})
    online, first, second = (weights(tmp_path / n) for n in ("online", "first", "second"))
    assert all(np.array_equal(first[name], value) for name, value in second.items())
    assert any(not np.array_equal(first[name], value) for name, value in online.items())


def test_fewer_episodes_give_the_weights_of_that_episode(tmp_path: Path) -> None:
    train = {"schedule": {"kind": "constant"}, "max_length": 128}
    settings, folder = recorded(tmp_path, train=train)
    source = queues()
    board = parts.FakeBoard(source.history)
    online_learner(settings, setting(tmp_path, "b")[1], lambda _: None, source.open, board)
    replay(tmp_path, settings, folder, episodes={"count": 1, "prompts": 8})
    for name, value in weights(tmp_path / "replay").items():
        assert np.array_equal(board.weights(1)[name], value)


def test_an_interrupted_replay_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings, folder = recorded(tmp_path)

    class Killed(Exception):
        pass

    def killed(event: Event) -> None:
        if isinstance(event, EpisodeFinished) and event.number == 3:
            raise Killed

    with pytest.raises(Killed):
        replay(tmp_path, settings, folder, report=killed)
    # What its checkpoint holds is not trained again.
    (folder / "rollouts" / "episode-00002.pb").write_bytes(
        (folder / "rollouts" / "episode-00003.pb").read_bytes()
    )
    replay(tmp_path, settings, folder)
    for name, value in weights(folder).items():
        assert np.array_equal(weights(tmp_path / "replay")[name], value)


def test_a_record_without_a_pair_is_refused(tmp_path: Path) -> None:
    settings, _ = setting(tmp_path, "a", count=2)
    for episode in (1, 2):
        write_rollouts(tmp_path / "empty", episode, [])
    with pytest.raises(DataError, match="no recorded episode has a pair"):
        replay(tmp_path, settings, tmp_path / "empty")
