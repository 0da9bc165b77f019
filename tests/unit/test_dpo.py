import math

import pytest
import torch

from services.learner.losses.bradley_terry import bradley_terry_loss
from services.learner.losses.dpo import dpo_loss
from services.learner.settings import DPOSettings


def test_dpo_is_equation_7_by_hand() -> None:
    result = dpo_loss(
        torch.tensor([-10.0, -5.0]),
        torch.tensor([-12.0, -4.0]),
        torch.tensor([-11.0, -5.0]),
        torch.tensor([-11.0, -6.0]),
        DPOSettings(beta=0.5),
    )
    # 0.5 * ((-10+11) - (-12+11)) = 1 and 0.5 * (0 - 2) = -1
    assert result.dpo_margin.tolist() == [1.0, -1.0]
    assert result.chosen_reward.tolist() == [0.5, 0.0]
    assert result.rejected_reward.tolist() == [-0.5, 1.0]
    assert result.accuracy.tolist() == [1.0, 0.0]
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))]
    assert result.loss.tolist() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_mixes_in_the_flipped_label() -> None:
    arguments = [torch.tensor([value]) for value in (-1.0, -2.0, -1.5, -1.5)]
    result = dpo_loss(*arguments, DPOSettings(beta=1.0, label_smoothing=0.2))
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))
    assert result.loss.item() == pytest.approx(0.8 * right + 0.2 * wrong, rel=1e-6)


def test_the_gradient_is_minus_beta_sigmoid_of_the_negative_margin() -> None:
    chosen = torch.tensor([-3.0], requires_grad=True)
    other = torch.tensor([-3.0])
    dpo_loss(chosen, other, other, other, DPOSettings(beta=0.1)).loss.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.05)


def test_bradley_terry_by_hand() -> None:
    loss = bradley_terry_loss(torch.tensor([2.0]), torch.tensor([0.5]))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-6)
