"""Scores of a preference set's answers, and what becomes of the prompts that errors take away."""

from collections.abc import Sequence
from pathlib import Path

import ray

from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Rollout
from services.causes import causes, lost_to_errors, too_many_lost
from services.errors import DataError, WorkerError, one_line
from services.reward.settings import RewardSettings

_KEPT = 1000
"""Characters of an error."""


async def score(reward: RewardSettings, rollouts: Sequence[Rollout]) -> list[list[Score] | str]:
    """Of each group the scores of its samples, or the error that it is lost to.

    From one Ray task: a set that is scored once needs no service.
    """
    payload = [rollout.SerializeToString() for rollout in rollouts]
    task = ray.remote(num_cpus=reward.num_cpus, num_gpus=reward.num_gpus)(score_rollouts)
    answer: list[list[bytes] | str] = await task.remote(reward, str(Path.cwd()), payload)
    return [
        group if isinstance(group, str) else [Score.FromString(one) for one in group]
        for group in answer
    ]


def score_rollouts(
    reward: RewardSettings, folder: str, rollouts: list[bytes]
) -> list[list[bytes] | str]:
    """Of each serialized rollout a serialized Score a sample, or its error."""
    from services.reward.composite import build

    composite = build(reward, folder)
    groups: list[list[bytes] | str] = []
    for payload in rollouts:
        group = Rollout.FromString(payload)
        try:
            scores = composite.score(group.prompt, group.samples)
        except (DataError, WorkerError) as error:
            groups.append(one_line(error, _KEPT))
        else:
            groups.append([one.SerializeToString() for one in scores])
    return groups


def told_lost(
    rollouts: Sequence[Rollout], scores: Sequence[Sequence[Score] | str], max_failed: float
) -> str:
    """How many prompts are lost to errors, and to which; "" for none.

    Raises WorkerError with the causes when they are more than the share `max_failed` of all, or
    all of them.
    """
    lost = [
        (rollout.prompt.id, group)
        for rollout, group in zip(rollouts, scores, strict=True)
        if isinstance(group, str)
    ]
    if not lost:
        return ""
    count, why = len(rollouts), causes(lost)
    if too_many_lost(len(lost), count, max_failed):
        said = lost_to_errors(len(lost), count, why, f"max_failed allows {max_failed:.0%}")
        raise WorkerError(f"{said}; mend the cause and run the same command again")
    return lost_to_errors(len(lost), count, why)
