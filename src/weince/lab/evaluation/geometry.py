"""What explains a score: how embeddings lie, by the measures of the field."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from weince.contest import Contest

__all__ = ["GEOMETRY", "geometry"]

GEOMETRY = {
    "alignment": "alignment",
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
    "mean_positive": "mean positive similarity",
    "mean_hardest_negative": "mean hardest-negative similarity",
}
"""Measure -> as a reader sees it."""


@torch.no_grad()
def geometry(contests: Sequence[Contest]) -> dict[str, float]:
    """How held-out embeddings lie on the unit sphere; the mean over contests.

        alignment              mean |u - v|^2 over positive pairs, 0 to 4, the lower the closer
        uniformity             log mean exp(-2 |u - v|^2) over all pairs of anchors, the lower the more uniform
        effective_rank         exp of the entropy of the normalised singular values of the anchors, 1 to D
        mean_positive          mean similarity of positive pairs
        mean_hardest_negative  mean over anchors of their hardest negative's similarity

    Anchors without a positive or a negative are left out of what needs one.

    Args:
        contests: as the setups make them of held-out embeddings.

    Source: arXiv:2005.10242 (alignment, uniformity), Roy & Vetterli 2007 (effective rank).
    """
    found = [_of(contest) for contest in contests]
    return {name: sum(one[name] for one in found) / len(found) for name in GEOMETRY}


def _of(contest: Contest) -> dict[str, float]:
    similarity, roles = contest.similarity(), contest.roles()
    positives = roles.positives(similarity, math.nan)
    positive = float(positives.nanmean())
    hardest = roles.only_negatives(similarity, -math.inf).amax(dim=1)
    anchors = contest.anchors.float()
    return {
        "alignment": 2 - 2 * positive,
        "uniformity": _uniformity(anchors),
        "effective_rank": _effective_rank(anchors),
        "mean_positive": positive,
        "mean_hardest_negative": float(hardest[hardest.isfinite()].mean()),
    }


def _uniformity(rows: Tensor) -> float:
    logits = 4 * (rows @ rows.T) - 4
    logits.fill_diagonal_(-math.inf)
    return float(torch.logsumexp(logits.flatten(), 0)) - math.log(len(rows) * (len(rows) - 1))


def _effective_rank(rows: Tensor) -> float:
    values = torch.linalg.svdvals(rows.double())
    shares = values / values.sum()
    return float(torch.exp(-torch.xlogy(shares, shares).sum()))
