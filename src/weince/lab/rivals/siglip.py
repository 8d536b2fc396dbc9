"""SigLIP: every pair a question of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from weince import LearnableTemperature
from weince.checks import check_number
from weince.lab.rivals.rival import Rival, Rows
from weince.lab.rivals.setups import Setup

__all__ = ["SigLIP"]


class SigLIP(Rival):
    """The sigmoid loss: each pair of the batch is a positive or a negative, with a learnt scale and bias.

        loss_i = sum_j -log sigmoid(y_ij (t s_ij + b)),     y_ij = 1 for a positive, -1 for a negative

    t = exp(t') in [1, 100]. No softmax, so no setting of it is InfoNCE; with b = -log K and all logits far below 0 its
    negatives weigh as in InfoNCE's denominator. Defined for two towers, whose two directions are the same pairs, and
    for retrieval.

    Args:
        scale: t before training, in [1, 100].
        bias: b before training.
        learning_rate_multiple: of the encoder's learning rate, for t' and b (`parameter_groups`), >= 0.

    Source: arXiv:2303.15343.
    """

    SETUPS: ClassVar[frozenset[Setup]] = frozenset({"two-towers", "retrieval"})

    def __init__(self, scale: float = 10.0, bias: float = -10.0, learning_rate_multiple: float = 1.0) -> None:
        scale = check_number("scale", scale, "in [1, 100]", lambda v: 1 <= v <= 100)
        super().__init__(LearnableTemperature(1 / scale))
        self.bias = nn.Parameter(torch.tensor(check_number("bias", bias, "finite", lambda v: True)))
        self.learning_rate_multiple = check_number(
            "learning_rate_multiple", learning_rate_multiple, "finite and >= 0", lambda v: v >= 0
        )

    def per_anchor(self, rows: Rows) -> Tensor:
        logits = rows.similarity / rows.temperature + self.bias
        of_positives = rows.roles.positives(nn.functional.softplus(-logits), 0.0).sum(dim=1)
        return of_positives + rows.roles.only_negatives(nn.functional.softplus(logits), 0.0).sum(dim=1)
