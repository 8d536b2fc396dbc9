"""Retrieval of pairs: how often the partner stands among the nearest, from either side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from weince.units import unit_rows

__all__ = ["pair_outcomes"]


@torch.no_grad()
def pair_outcomes(left: Tensor, right: Tensor, ids: np.ndarray | None, at: Sequence[int]) -> dict[str, np.ndarray]:
    """Whether row i of one side finds row i of the other among its k nearest; the mean of both directions.

    A text that comes twice is found with either copy. Of equal similarities the partner is taken to come last.

    Args:
        left, right: embeddings (N, D), a pair each.
        ids: numbers of the texts of both sides (N, 2), where some come twice.
        at: the k of recall@k.

    Returns:
        recall_at_K for each K: (N,) of 0, 1/2 or 1.
    """
    similarity = unit_rows(left) @ unit_rows(right).T
    numbers = torch.arange(len(left)).repeat(2, 1).T if ids is None else torch.from_numpy(ids)
    ranks = [_rank(similarity, numbers[:, 1]), _rank(similarity.T, numbers[:, 0])]
    return {f"recall_at_{k}": np.mean([(rank < k).numpy() for rank in ranks], axis=0) for k in at}


def _rank(similarity: Tensor, numbers: Tensor) -> Tensor:
    """How many others stand before the partner of each row, by columns' numbers."""
    partner = numbers.unsqueeze(0) == numbers.unsqueeze(1)
    best = similarity.masked_fill(~partner, float("-inf")).amax(dim=1, keepdim=True)
    return ((similarity >= best) & ~partner).sum(dim=1)
