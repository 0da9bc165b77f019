"""A preference set may lose some prompts to errors of the reward, and says which and why."""

from collections.abc import Sequence

import pytest

from orchestrator.jobs.preference_scores import score_rollouts, told_lost
from pairloop.data.v1.pair_pb2 import Score
from pairloop.data.v1.rollout_pb2 import Prompt, Rollout, Sample
from services.errors import WorkerError
from services.reward.settings import RewardSettings

CHECKER = RewardSettings.model_validate({"parts": [{"kind": "checker"}]})


def _groups(prompts: int, without_answer: Sequence[int]) -> list[Rollout]:
    return [
        Rollout(
            prompt=Prompt(
                id=f"preferences/e00000/p{index:05d}",
                metadata={"topic": "sums"} if index in without_answer else {"answer": "4"},
            ),
            samples=[Sample(index=0, text="4"), Sample(index=1, text="5")],
        )
        for index in range(prompts)
    ]


def _scored(rollouts: list[Rollout]) -> list[list[Score] | str]:
    found = score_rollouts(CHECKER, ".", [each.SerializeToString() for each in rollouts])
    return [
        group if isinstance(group, str) else [Score.FromString(one) for one in group]
        for group in found
    ]


def test_a_group_that_cannot_be_scored_leaves_the_others_their_scores() -> None:
    rollouts = _groups(20, without_answer=[3, 11])
    scores = _scored(rollouts)
    totals = [[one.total for one in group] for group in scores if not isinstance(group, str)]
    assert totals == [[1.0, 0.0]] * 18
    assert told_lost(rollouts, scores, max_failed=0.1) == (
        "2 of 20 prompts were lost to an error: 2 x DataError: a prompt: the checker needs metadata"
        ' "answer" or "pattern" and the prompt has topic'
    )


def test_above_the_budget_the_job_fails_with_the_causes() -> None:
    rollouts = _groups(20, without_answer=[0, 3, 11])
    words = r"3 of 20 prompts were lost to an error \(max_failed allows 10%\): 3 x DataError: a pro"
    with pytest.raises(WorkerError, match=words):
        told_lost(rollouts, _scored(rollouts), max_failed=0.1)


def test_nothing_lost_is_nothing_said_and_all_lost_is_a_failure_at_any_budget() -> None:
    whole, none = _groups(3, without_answer=[]), _groups(3, without_answer=[0, 1, 2])
    assert told_lost(whole, _scored(whole), max_failed=0.0) == ""
    with pytest.raises(WorkerError, match="every prompt was lost to an error: 3 x DataError"):
        told_lost(none, _scored(none), max_failed=1.0)
