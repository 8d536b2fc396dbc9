"""DCL: the positive is left out of the denominator."""

from __future__ import annotations

from weince import INFONCE, ContestLoss
from weince.temperature import Temperature

__all__ = ["DCL"]


class DCL(ContestLoss):
    """InfoNCE whose denominator leaves the positive out, mean over anchors (DCL, without its weights).

        loss_i = -s_i+ / tau  +  log sum_{j in N(i)} exp(s_ij / tau)

    Defined for every setup; with several positives -s_i+ is their mean. Without a negative the loss is 0. Where
    InfoNCE is -log p it is -log(p / (1 - p)), whose gradient is InfoNCE's over 1 - p. Any loss of the package has it as
    an option: this is `ContestLoss(temperature, INFONCE, decoupled=True)`, with the candidates of all
    processes.

    Args:
        temperature: tau, > 0.

    Source: arXiv:2110.06848.
    """

    def __init__(self, temperature: Temperature = 0.1) -> None:
        super().__init__(temperature, INFONCE, decoupled=True, gather_distributed=True)
