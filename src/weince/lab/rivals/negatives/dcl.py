"""DCL: the positive is left out of the denominator."""

from __future__ import annotations

from torch import Tensor

from weince.lab.rivals.rival import Rival, Rows

__all__ = ["DCL"]


class DCL(Rival):
    """InfoNCE whose denominator leaves the positive out, mean over anchors (DCL, without its weights).

        loss_i = -s_i+ / tau  +  log sum_{j in N(i)} exp(s_ij / tau)

    Defined for every setup; with several positives -s_i+ is their mean. Without a negative the loss is 0. Where
    InfoNCE is -log p it is -log(p / (1 - p)), whose gradient is InfoNCE's over 1 - p.

    Args:
        temperature: tau, > 0.

    Source: arXiv:2110.06848.
    """

    def per_anchor(self, rows: Rows) -> Tensor:
        logits = rows.similarity / rows.temperature
        return rows.with_negatives(rows.lost(logits) - rows.won(logits).mean)
