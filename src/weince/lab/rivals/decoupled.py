"""DCL: the positive is left out of the denominator."""

from __future__ import annotations

from weince import INFONCE, ContestLoss, LossOutput
from weince.contest import Contest
from weince.lab.rivals.dense_contest import logits_of, output_of, over_negatives, wide
from weince.temperature import Temperature

__all__ = ["Decoupled"]


class Decoupled(ContestLoss):
    """InfoNCE whose denominator leaves the positive out, mean over anchors (DCL, without its weights).

        loss_i = -s_i+ / tau  +  log sum_{j in N(i)} exp(s_ij / tau)

    Args:
        temperature: tau, > 0.

    Source: arXiv:2110.06848.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__(temperature, INFONCE, gather_distributed=True)

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest of two views."""
        logits, won = logits_of(everyone := wide(contest), self.temperature)
        return output_of(over_negatives(logits, everyone) - won)
