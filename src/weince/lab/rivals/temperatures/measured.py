"""A temperature for each anchor, measured on its hardest negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from weince import PAPER, Gate
from weince.checks import check_number
from weince.lab.rivals.rival import Rival, Rows
from weince.tail import ROUNDING, largest, tail_size, tail_sizes
from weince.temperature import Temperature

__all__ = ["MeasuredTemperature"]


class MeasuredTemperature(Rival):
    """InfoNCE with each anchor's own temperature: the mean exceedance of its hardest negatives.

        logit_ij = s_ij / tau_i,     tau_i = max( mean_{k < K} (s_(k) - s_(K)),  least_temperature )

    s_(1) >= ... >= s_(K) is the tail that WEINCE measures. tau_i is the maximum-likelihood scale of an exponential
    tail, as the slope of `WEIBIT` is the exponent of a power law: the control that has one coordinate for the other.
    It carries no gradient. Defined for every setup, several positives as in SupCon. Without a tail (fewer than two
    negatives, or a spread no wider than rounding) an anchor is InfoNCE at `temperature`, and so is every anchor whose
    tail has that mean exceedance.

    Args:
        temperature: tau of anchors without a tail, > 0.
        gate: whose tail fraction and least size are taken.
        least_temperature: bound, > 0; the default is CLIP's clamp of 1 / tau at 100.
    """

    def __init__(self, temperature: Temperature = 0.1, gate: Gate = PAPER, least_temperature: float = 0.01) -> None:
        super().__init__(temperature, gate)
        self.least = check_number("least_temperature", least_temperature, "finite and > 0", lambda v: v > 0)

    def per_anchor(self, rows: Rows) -> Tensor:
        measured, valid = self.measured(rows)
        tau = torch.where(valid, measured.clamp_min(self.least), rows.temperature)
        return rows.softmax(rows.similarity / tau.unsqueeze(1))

    @torch.no_grad()
    def measured(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean exceedance of each anchor's tail, (A,), and whether it has one."""
        rule, counts = self.options.gate.rule, rows.roles.differing_counts()
        negatives = rows.roles.only_negatives(rows.similarity.detach(), float("-inf"))
        hardest = largest(negatives, tail_size(rows.contest.negatives, rule.fraction, rule.minimum))
        if hardest.shape[1] < 2:
            nothing = torch.zeros_like(rows.similarity[:, 0])
            return nothing, nothing.bool()
        sizes = None if counts is None else tail_sizes(counts, rule)
        number = hardest.shape[1] if sizes is None else sizes
        if isinstance(number, Tensor):
            inside = torch.arange(hardest.shape[1], device=hardest.device) < number.unsqueeze(1)
            last = hardest.gather(1, (number - 1).clamp_min(0).unsqueeze(1))
            total = torch.where(inside, hardest - last, 0.0).sum(dim=1)
            points = (number - 1).clamp_min(1)
        else:
            total, points = (hardest - hardest[:, -1:]).sum(dim=1), number - 1
        rounding = ROUNDING * torch.finfo(hardest.dtype).eps
        valid = total > rounding * points
        return total / points, valid if isinstance(number, int) else valid & (number >= 2)
