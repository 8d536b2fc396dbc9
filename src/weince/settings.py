"""The settings: where InfoNCE is used, each as one function from embeddings to `Candidates`."""

from __future__ import annotations

import torch
from torch import Tensor

from weince.candidates import Candidates, unit_rows

__all__ = ["two_views"]


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
    return Candidates(views, views, views.shape[0] - 2, positive=itself.roll(z_a.shape[0]), itself=itself)
