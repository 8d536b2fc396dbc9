"""One slope for all anchors, in the place of a temperature."""

from __future__ import annotations

from weince import ContestLoss, Gate

__all__ = ["OneSlope"]


class OneSlope(ContestLoss):
    """WEINCE with weight 1 and one slope for every anchor: a power law in the place of the exponential.

        logit_ij = -beta log(max(1 - s_ij, eps))

    It is `StudentT` with offset 0, and WEINCE with `Gate(evidence=1.0, slope=beta)`, by its code, tiles included.
    Defined for every setup, several positives as in SupCon.

    Args:
        slope: beta, >= 0.

    Source: arXiv:2606.00262, the Weibull coordinate alone.
    """

    def __init__(self, slope: float = 8.0) -> None:
        super().__init__(gate=Gate(evidence=1.0, slope=slope), gather_distributed=True)
