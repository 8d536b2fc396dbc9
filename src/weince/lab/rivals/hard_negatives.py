"""Hard-negative weighting, debiased."""

from __future__ import annotations

import math

import torch
from torch import nn

from weince import INFONCE, ContestLoss, LossOutput
from weince.contest import Contest
from weince.lab.rivals.dense_contest import logits_of, output_of, over_negatives, wide
from weince.temperature import Temperature

__all__ = ["HardNegatives"]


class HardNegatives(ContestLoss):
    """InfoNCE whose negatives weigh more the harder they are, debiased for those that are of the anchor's class.

        w_ij   = exp(b s_ij / tau) / mean_{k in N(i)} exp(b s_ik / tau)
        Ng_i   = max( (sum_{j in N(i)} w_ij exp(s_ij / tau) - c K exp(s_i+ / tau)) / (1 - c),  K exp(-1 / tau) )
        loss_i = log(1 + Ng_i / exp(s_i+ / tau))

    with K negatives, concentration b and class prior c. b = c = 0 is InfoNCE. The gradient passes through w.

    Args:
        temperature: tau, > 0.
        concentration: b, >= 0.
        class_prior: c, in [0, 1).

    Source: arXiv:2010.04592, equation 4 and section 3; the floor is that of arXiv:2007.00224.
    """

    def __init__(self, temperature: float = 0.5, concentration: float = 1.0, class_prior: float = 0.1) -> None:
        super().__init__(temperature, INFONCE, gather_distributed=True)
        self.concentration, self.class_prior = concentration, class_prior

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest of two views."""
        logits, won = logits_of(everyone := wide(contest), self.temperature)
        many = everyone.negatives
        # Over exp(s_i+ / tau), and in logarithms: exp(2 / tau) would overflow at low temperatures.
        ratio = over_negatives((1 + self.concentration) * logits, everyone) + math.log(many) - won
        ratio = ratio - over_negatives(self.concentration * logits, everyone)
        floor = math.log(many) - 1 / self.temperature - won
        if self.class_prior:
            false = torch.exp(math.log(self.class_prior * many) - ratio)
            left = torch.log1p(-false.clamp_max(0.999999)) - math.log1p(-self.class_prior)
            ratio = torch.where(false < 0.999999, ratio + left, floor)
        return output_of(nn.functional.softplus(torch.maximum(ratio, floor)))
