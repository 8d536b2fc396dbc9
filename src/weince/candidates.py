"""Who competes: the anchors, their candidates, and which candidate is a positive or a negative of which anchor.

A setting (two views, and whatever else InfoNCE is used for) is one function that returns `Candidates`; the tail,
the gate and the formula never ask which setting it was.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Candidates", "Roles", "two_views", "unit_rows"]


class Roles(NamedTuple):
    """Bool masks (A, M). A column in neither (the anchor itself, say) takes no part."""

    positive: Tensor
    negative: Tensor


class Candidates(NamedTuple):
    """One contest per anchor.

    Attributes:
        anchors: (A, D), unit rows (or zero rows); carries gradient.
        candidates: (M, D), likewise.
        positive: int64 (A,), the column of each anchor's positive.
        itself: int64 (A,), the column that is the anchor, or -1: never a candidate.
        negatives: K, how many negatives an anchor has at most.
    """

    anchors: Tensor
    candidates: Tensor
    positive: Tensor
    itself: Tensor
    negatives: int

    def of(self, rows: slice) -> Candidates:
        """The contest of some of the anchors, against all candidates."""
        return self._replace(anchors=self.anchors[rows], positive=self.positive[rows], itself=self.itself[rows])

    def similarity(self) -> Tensor:
        """Cosine similarities s, (A, M), with gradient."""
        return self.anchors @ self.candidates.T

    def roles(self) -> Roles:
        """Which column is what to which anchor, as masks (A, M)."""
        column = torch.arange(self.candidates.shape[0], device=self.anchors.device)
        positive = column == self.positive.unsqueeze(1)
        negative = ~positive & (column != self.itself.unsqueeze(1))
        return Roles(positive, negative)


def two_views(z_a: Tensor, z_b: Tensor) -> Candidates:
    """The SimCLR setting: every view is an anchor, every other view a candidate, the same example's the positive.

    Args:
        z_a: embeddings of the first view, (N, D), any scale.
        z_b: embeddings of the second view, (N, D); row i is the example of row i of z_a.

    Returns:
        Candidates with A = M = 2N (all of view a, then all of view b) and K = 2N - 2.

    Source: arXiv:2002.05709 (SimCLR), section 2.1.
    """
    views = unit_rows(torch.cat([z_a, z_b]))
    itself = torch.arange(views.shape[0], device=views.device)
    return Candidates(
        anchors=views,
        candidates=views,
        positive=itself.roll(z_a.shape[0]),
        itself=itself,
        negatives=views.shape[0] - 2,
    )


def unit_rows(z: Tensor) -> Tensor:
    """Rows scaled to length 1, in float32 or better, whatever their scale.

        u = z / |z|,      0 for a zero row, whose gradient is zero too

    The row is divided by its largest entry first, so the squares neither overflow nor underflow. A row whose largest
    entry is below tiny / eps of the dtype (1e-31 in float32) counts as zero: its gradient, 1 / |z|, would overflow.

    Args:
        z: (N, D), floating point. Half precision is raised to float32.

    Returns:
        (N, D), float32 or float64. NaN in a row with NaN or infinity.

    >>> unit_rows(torch.tensor([[3e30, 4e30], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    limits = torch.finfo(z.dtype)
    largest = z.detach().abs().amax(dim=1, keepdim=True)
    zero = largest < limits.tiny / limits.eps
    one = torch.ones_like(largest)
    scaled = torch.where(zero, torch.zeros_like(z), z) / torch.where(zero, one, largest)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(zero, one, length)
