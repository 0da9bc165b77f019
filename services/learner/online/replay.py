"""An online run's training once more, from the rollouts it recorded: the learner and nothing else.

The same learner on other queues: what it would wait for is there. With the settings of the
recorded run it comes to the same weights, byte for byte on the same machine in float32; with
others, to what this data would have given under them. Only the data are the recorded policy's:
far from it they are no longer what the trained one would sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import SecretStr

from pairloop.data.v1.pair_pb2 import PreferencePair
from services.errors import DataError
from services.learner.jobs.settings import (
    OnlineDPOSettings,
    OnlinePlace,
    Place,
    ReplayDPOSettings,
)
from services.learner.online.learner import online_learner
from services.learner.online.ports import WeightVersion
from services.learner.online.rollouts import read_rollouts, rollouts_in
from services.learner.train.loop import Report
from services.queues.ledger import LedgerEvent
from services.queues.settings import QueueSettings
from services.states import State
from services.telemetry.record.events import EpisodeFinished
from services.weights.manifest import Array, Shared


def replay_dpo(settings: ReplayDPOSettings, place: Place, report: Report) -> dict[str, float]:
    """Train every recorded episode; as `online_learner`, from files.

    An interrupted replay goes on from its last checkpoint. Raises ArtifactError for an episode
    that is missing or damaged, DataError when none has a pair.
    """
    queues = RecordedQueues(rollouts_in(Path(settings.rollouts)))
    if not any(queues.kept(episode) for episode in range(1, settings.episodes.count + 1)):
        raise DataError(f"{settings.rollouts}: no recorded episode has a pair to train on")
    how = {name: getattr(settings, name) for name in _OF_BOTH}
    return online_learner(
        OnlineDPOSettings.model_validate(how),
        OnlinePlace(
            **place.model_dump(),
            run=place.stage,
            redis_url=SecretStr(""),
            canary_tokens=[0, 0],
        ),
        report,
        queues.open,
        _Reporting(place.stage, settings.episodes.count, report),
    )


_OF_BOTH = ("policy", "reference", "base", "episodes", "dpo", "train")


class RecordedQueues:
    """The learner's queues, of a run that is over: every episode is sampled."""

    def __init__(self, rollouts: Path) -> None:
        self._rollouts = rollouts
        self._trained = 0

    async def open(
        self, url: str, run: str, settings: QueueSettings, epoch: int
    ) -> "RecordedQueues":
        """As `Connect`: there is nothing to connect to."""
        return self

    def kept(self, episode: int) -> list[PreferencePair]:
        """The episode's pairs, from its file."""
        return read_rollouts(self._rollouts, episode)

    async def episode_state(self, episode: int) -> str:
        """TRAINING until it is trained, then COMPLETED: no engine waits for the weights."""
        return State.COMPLETED if episode <= self._trained else State.TRAINING

    async def look(self, episode: int) -> tuple[str, dict[str, int]]:
        """Of the counters that of the pairs: nothing is sampled."""
        return await self.episode_state(episode), {"paired": len(self.kept(episode))}

    async def changed(self, seconds: float) -> None:
        """Nothing is waited for: every episode is there."""

    async def pairs(self, episode: int) -> list[PreferencePair]:
        """As `kept`."""
        return self.kept(episode)

    async def dropped(self, episode: int) -> dict[str, str]:
        """Not recorded."""
        return {}

    async def ledger(self, episode: int) -> list[LedgerEvent]:
        """It is where the rollouts came from."""
        return []

    async def commit_trained(
        self, episode: int, version: int, trained: Sequence[str], dropped: Mapping[str, str]
    ) -> int:
        """Nothing is let go."""
        self._trained = episode
        return 0

    async def close(self) -> None:
        """There is nothing to close."""


class _Reporting:
    """In place of the engines: each version is told of, as the loop of a run does it."""

    def __init__(self, stage: str, episodes: int, report: Report) -> None:
        self._stage, self._episodes, self._report = stage, episodes, report

    def share(self, tensors: Iterable[tuple[str, Array]]) -> Shared:
        """The learner's own arrays: nobody else reads them, so nothing is held to compare with."""
        return Shared(dict(tensors), {})

    def __call__(self, version: WeightVersion) -> str:
        if version.version > 0:
            self._report(self._finished(version))
        return ""

    def _finished(self, version: WeightVersion) -> EpisodeFinished:
        return EpisodeFinished(
            stage=self._stage,
            number=version.version,
            total=self._episodes,
            version=version.version,
            pairs=int(version.metrics["trained_pairs"]),
            dropped={},
            metrics=dict(version.metrics),
        )

    def look(self) -> None:
        """Nothing is handed out that could be lost."""
