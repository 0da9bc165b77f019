"""The objectives against plain forward passes: values, weights and token counts."""

import copy
import math
from typing import Any

import pytest
import torch

from services.learner.losses.objectives import DirectPreference, LanguageModelling, RewardModelling
from services.learner.model.load import new_model, new_reward_model
from services.learner.model.policy import Policy, ScoreModel
from services.learner.settings import DPOSettings
from services.learner.train.encoding import EncodedPair, EncodedText
from tests.unit import learner_parts as parts

SHORT = EncodedPair("short", [5, 6, 7], [8, 9, 10, 11], [12, 13])
LONG = EncodedPair("long", [14, 15], [16], [17, 18, 19])


@pytest.fixture(scope="module")
def model() -> Any:
    return new_model(parts.SHAPE, parts.tokenizer(), 3).eval()


def policy(model: Any) -> Policy:
    """Of a copy: the plain passes use the model with its usual attention."""
    return Policy(copy.deepcopy(model), "float32")


def answer_logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    """log p(answer | prompt) in nats from one unpadded row, in float64."""
    ids = [*prompt, *answer]
    with torch.no_grad():
        plain = torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)
    return sum(plain[at - 1, ids[at]].item() for at in range(len(prompt), len(ids)))


def test_dpo_measures_each_answer_against_its_own_reference(model: Any) -> None:
    reference = {"short": (-30.0, -9.0), "long": (-4.0, -18.0)}
    objective = DirectPreference(policy(model), DPOSettings(beta=0.3), reference)
    loss, metrics = objective.sums([SHORT, LONG])
    rewards = []
    for pair in (SHORT, LONG):
        held = reference[pair.id]
        rewards.append(
            [
                0.3 * (answer_logprob(model, list(pair.prompt), list(answer)) - of_reference)
                for answer, of_reference in zip((pair.chosen, pair.rejected), held, strict=True)
            ]
        )
    margins = [chosen - rejected for chosen, rejected in rewards]
    # The references differ enough that one margin is positive and the other is not.
    assert sorted(margin > 0 for margin in margins) == [False, True]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["dpo_margin"].item() == pytest.approx(sum(margins), rel=1e-5)
    assert metrics["chosen_reward"].item() == pytest.approx(sum(c for c, _ in rewards), rel=1e-5)
    assert metrics["rejected_reward"].item() == pytest.approx(sum(r for _, r in rewards), rel=1e-5)
    assert metrics["accuracy"].item() == 1.0
    drifts = [metrics[f"{which}_drift"].item() for which in ("chosen", "rejected")]
    assert drifts == pytest.approx(
        [sum(c for c, _ in rewards) / 0.3, sum(r for _, r in rewards) / 0.3]
    )


def test_what_went_through_is_kept_while_it_is_asked_for(model: Any) -> None:
    reference = {"short": (-30.0, -9.0), "long": (-4.0, -18.0)}
    objective = DirectPreference(policy(model), DPOSettings(), reference)
    objective.sums([SHORT])
    objective.seen = {}
    objective.sums([LONG, SHORT])
    seen, objective.seen = objective.seen, None
    objective.sums([SHORT])
    assert list(seen) == ["long", "short"]
    for pair in (SHORT, LONG):
        for answer, logprobs in zip((pair.chosen, pair.rejected), seen[pair.id], strict=True):
            assert len(logprobs) == len(answer)
            expected = answer_logprob(model, list(pair.prompt), list(answer))
            assert logprobs.sum().item() == pytest.approx(expected, rel=1e-5)


def test_a_pair_counts_its_prompt_once_and_weighs_one(tmp_path: Any) -> None:
    head = new_reward_model(parts.policy(tmp_path / "policy"), parts.tokenizer(), 5)
    objective = RewardModelling(ScoreModel(head, "float32"))
    assert [objective.tokens(pair) for pair in (SHORT, LONG)] == [3 + 4 + 2, 2 + 1 + 3]
    assert [objective.weight(pair) for pair in (SHORT, LONG)] == [1.0, 1.0]
    assert objective.name(LONG) == "long"


def test_language_modelling_counts_learnt_tokens_alone(model: Any) -> None:
    # The first token has nothing to be predicted from, so its 1 does not count.
    masked = EncodedText("masked", [5, 6, 7, 8, 9], [1, 0, 0, 1, 1])
    whole = EncodedText("whole", [10, 11, 12], [1, 1, 1])
    objective = LanguageModelling(policy(model))
    assert [objective.weight(text) for text in (masked, whole)] == [2.0, 2.0]
    assert [objective.tokens(text) for text in (masked, whole)] == [5, 3]
    loss, _ = objective.sums([masked, whole])
    expected = answer_logprob(model, [5, 6, 7], [8, 9]) + answer_logprob(model, [10], [11, 12])
    assert loss.item() == pytest.approx(-expected, rel=1e-5)


def test_the_reward_model_learns_from_score_differences(tmp_path: Any) -> None:
    head = new_reward_model(parts.policy(tmp_path / "policy"), parts.tokenizer(), 5).eval()
    loss, metrics = RewardModelling(ScoreModel(copy.deepcopy(head), "float32")).sums([SHORT, LONG])
    margins = []
    for pair in (SHORT, LONG):
        with torch.no_grad():
            scores = [
                head(torch.tensor([[*pair.prompt, *answer]])).logits.item()
                for answer in (pair.chosen, pair.rejected)
            ]
        margins.append(scores[0] - scores[1])
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["margin"].item() == pytest.approx(sum(margins), abs=1e-5)
    assert metrics["accuracy"].item() == sum(margin > 0 for margin in margins)
