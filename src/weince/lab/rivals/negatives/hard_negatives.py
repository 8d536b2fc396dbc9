"""Hard-negative weighting, debiased."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from weince.checks import check_number
from weince.lab.rivals.rival import Rival, Rows
from weince.temperature import Temperature

__all__ = ["HardNegatives"]


class HardNegatives(Rival):
    """InfoNCE whose negatives weigh more the harder they are, debiased for those that are of the anchor's class.

        w_ij   = exp(b s_ij / tau) / mean_{k in N(i)} exp(b s_ik / tau)
        Ng_i   = max( (sum_{j in N(i)} w_ij exp(s_ij / tau) - c K exp(s_i+ / tau)) / (1 - c),  K exp(-1 / tau) )
        loss_i = log(1 + Ng_i / exp(s_i+ / tau))

    with K negatives, concentration b and class prior c. b = c = 0 is InfoNCE; b = 0 alone is the debiased loss. The
    gradient passes through w. Defined for every setup: with several positives exp(s_i+ / tau) in Ng is their mean, and
    the loss is the mean over them of -log(exp(s_ip / tau) / (sum over P(i) + Ng_i)), as in SupCon.

    Args:
        temperature: tau, > 0.
        concentration: b, >= 0.
        class_prior: c, in [0, 1).

    Source: arXiv:2010.04592, equation 4 and section 3; the floor is that of arXiv:2007.00224.
    """

    def __init__(self, temperature: Temperature = 0.1, concentration: float = 1.0, class_prior: float = 0.1) -> None:
        super().__init__(temperature)
        self.concentration = check_number("concentration", concentration, "finite and >= 0", lambda v: v >= 0)
        self.class_prior = check_number("class_prior", class_prior, "in [0, 1)", lambda v: 0 <= v < 1)

    def per_anchor(self, rows: Rows) -> Tensor:
        logits = rows.similarity / rows.temperature
        won, counts = rows.won(logits), rows.roles.differing_counts()
        mean = won.total - won.log_count  # of the exponentials
        many = max(1, rows.contest.negatives) if counts is None else counts.clamp_min(1).to(logits.dtype)
        log_many = math.log(many) if counts is None else counts.clamp_min(1).to(logits.dtype).log()
        # Over exp(s_i+ / tau), and in logarithms: exp(2 / tau) would overflow at low temperatures.
        ratio = rows.lost((1 + self.concentration) * logits) + log_many - mean
        ratio = ratio - rows.lost(self.concentration * logits)
        floor = log_many - 1 / rows.temperature - mean
        if self.class_prior:
            share = math.log(self.class_prior * many) if isinstance(many, int) else torch.log(self.class_prior * many)
            false = torch.exp(share - ratio)
            left = torch.log1p(-false.clamp_max(0.999999)) - math.log1p(-self.class_prior)
            ratio = torch.where(false < 0.999999, ratio + left, floor)
        beaten = nn.functional.softplus(torch.maximum(ratio, floor) - won.log_count)
        return rows.with_negatives(beaten) + won.spread
