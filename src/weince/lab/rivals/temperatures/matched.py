"""A temperature for each anchor: the control of WEINCE."""

from __future__ import annotations

import torch

from weince import PAPER, Gate, LossOutput, contest_output
from weince.checks import check_number
from weince.contest import Contest
from weince.lab.rivals.rival import Rival
from weince.precision import full_precision
from weince.temperature import Temperature

__all__ = ["MatchedTemperature"]


class MatchedTemperature(Rival):
    """InfoNCE with a temperature for each anchor, as steep at its hardest negative as WEINCE would be.

        1 / tau_i = min( (1 - lambda_i) / tau + lambda_i * beta_i / rho_i,  1 / least_temperature )
        logit_ij  = s_ij / tau_i

    A control: is it the shortfall coordinate that helps, or an adaptive temperature? Without the bound it collapses,
    since an untrained encoder's hardest negatives lie at the cap. An anchor of weight 0 is InfoNCE at tau; with a bound
    above tau all are, at the bound. Defined for every setup, several positives as in SupCon.

    Args:
        temperature: tau of the blend that is matched, > 0.
        gate: of the blend.
        least_temperature: bound, > 0.
    """

    def __init__(self, temperature: Temperature = 0.1, gate: Gate = PAPER, least_temperature: float = 0.03) -> None:
        super().__init__(temperature, gate)
        if not gate.needs_fit:
            raise ValueError("Parameter `gate` should measure weight or slope: a fixed pair leaves nothing to match.")
        self.steepest = 1 / check_number("least_temperature", least_temperature, "finite and > 0", lambda v: v > 0)

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest, with the weights and fits of the blend."""
        with full_precision(contest.anchors.device.type):
            rows = self.rows(contest, self.temperature if temperature is None else temperature)
            with torch.no_grad():
                blend = contest_output(contest, rows.temperature, self.options)
                assert blend.tail is not None
                pull = blend.weight * blend.tail.slope / blend.tail.nearness
                steepness = ((1 - blend.weight) / rows.temperature + pull).clamp_max(self.steepest)
            output = self.output(rows.softmax(rows.similarity * steepness.unsqueeze(1)), rows)
        return output._replace(weight=blend.weight, slope=blend.slope, tail=blend.tail)
