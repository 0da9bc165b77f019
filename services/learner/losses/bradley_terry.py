"""The reward model's loss (Bradley and Terry 1952; arXiv 2203.02155, Eq. 1)."""

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected), one value a pair; rewards are float32 [pairs]."""
    return -F.logsigmoid(chosen - rejected)
