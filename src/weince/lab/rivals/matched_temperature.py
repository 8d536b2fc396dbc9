"""A temperature for each anchor: the control of WEINCE."""

from __future__ import annotations

import torch

from weince import ContestLoss, Gate, LossOutput, contest_output
from weince.contest import Contest
from weince.formula import per_anchor_loss
from weince.lab.rivals.dense_contest import output_of, wide
from weince.temperature import Temperature

__all__ = ["MatchedTemperature"]


class MatchedTemperature(ContestLoss):
    """InfoNCE with a temperature for each anchor, as steep at its hardest negative as WEINCE would be.

        1 / tau_i = min( (1 - lambda_i) / tau + lambda_i * beta_i / rho_i,  1 / least_temperature )
        logit_ij  = s_ij / tau_i

    A control: is it the shortfall coordinate that helps, or an adaptive temperature? Without the bound it collapses,
    since an untrained encoder's hardest negatives lie at the cap.

    Args:
        temperature: tau of the blend that is matched, > 0.
        gate: of the blend.
        least_temperature: bound, > 0.
    """

    def __init__(self, temperature: float = 0.5, gate: Gate = Gate(), least_temperature: float = 0.03) -> None:
        super().__init__(temperature, gate, gather_distributed=True)
        if not gate.needs_fit:
            raise ValueError("Parameter `gate` should measure weight or slope: a fixed pair leaves nothing to match.")
        self.steepest = 1 / least_temperature

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest of two views, with the weights and fits of the blend."""
        with torch.no_grad():
            blend = contest_output(contest, self.temperature, self.options)
            assert blend.tail is not None
            pull = blend.weight * blend.tail.slope / blend.tail.nearness
            steepness = ((1 - blend.weight) / self.temperature + pull).clamp_max(self.steepest)
        everyone = wide(contest)
        logits, roles = everyone.similarity() * steepness.unsqueeze(1), everyone.roles()
        nowhere = torch.finfo(logits.dtype).min
        per_anchor = per_anchor_loss(roles.positives(logits, nowhere), roles.only_negatives(logits, nowhere))
        return output_of(per_anchor)._replace(weight=blend.weight, slope=blend.slope, tail=blend.tail)
