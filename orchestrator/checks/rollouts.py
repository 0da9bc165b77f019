"""Recorded rollouts: is there a record, and does it hold what is to be replayed?"""

from pathlib import Path

from orchestrator.artifacts.store import read_artifact
from orchestrator.checks.folders import meant
from services.errors import ArtifactError, ConfigError
from services.learner.online.rollouts import recorded_episodes, rollouts_in


def check_rollouts(path: str, key: str) -> None:
    """ArtifactError unless the path is a folder with at least one recorded episode."""
    if not Path(path).is_dir():
        raise ArtifactError(f"'{key}': there is no folder {path}{meant(path)}")
    if recorded_episodes(rollouts_in(Path(path))):
        return
    made = read_artifact(path)
    if made is not None and made.kind == "online_dpo":
        raise ArtifactError(
            f"'{key}': {path} was run without a record of its rollouts; make it anew with"
            f" record=true and --fresh {Path(path).name}"
        )
    raise ArtifactError(
        f"'{key}': {path} holds no recorded rollouts; name the artifact of an online run with"
        " record=true"
    )


def check_recorded(path: str, episodes: int) -> None:
    """ConfigError when one of the episodes 1 to `episodes` is not there."""
    there = set(recorded_episodes(rollouts_in(Path(path))))
    missing = [number for number in range(1, episodes + 1) if number not in there]
    if missing:
        raise ConfigError(
            f"'episodes.count': {episodes} episodes are to be replayed, and {path} has no record of"
            f" episode {missing[0]}; set a smaller count, or record a run from its start"
        )
