"""The evidence: where would a power law fitted to the tails of a batch end, and is that about the cap?

An anchor's tail is its n exceedances y_k = s_(k) - u over its own threshold u. Two means say all that is used of them,

    G = (n + 1) / n * mean(y^2) / mean(y)^2        a = mean(y) / (1 - u)

    exponential tail, no end:      E G = 2  and  Var G = 4 (n - 1) / ((n + 2) (n + 3)),  exactly, for any scale
    GPD that ends at e:            E G -> 2 / (1 + R a),   R = (1 - u) / (e - u)

so R is the place of the end: 0 for none, 1 for the cap, 2 for half-way from the threshold to the cap. One anchor says
little of it (n is about 50), a batch a great deal: R is taken from the means of G and a over all anchors, and its
evidence from the sum of G, of which the null distribution is known. An anchor's own G moves its own R by the share of
the variance between anchors that is not noise.

What is calibrated is the test against *exponential* tails alone. Whether a law ends is not told by it: over the
threshold of a batch, normal scores are fitted with an end too, and where their spread puts it about 1 the gate opens
(0 +- 0.2 and 0.5 +- 0.1: weight 0.98), while uniform points on a sphere, which end at 1 exactly, are fitted with ends
far below it in 64 dimensions and more, and the gate is shut (0.006). It asks how the batch's tail looks, not what it is
in the limit.

Source: the coefficient of variation of exceedances, Castillo, Daoudi & Lockhart 2014, doi:10.1111/sjos.12012.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weince.tail import TailFit

__all__ = ["End", "beaten_weight", "end_of", "end_weight"]

SHARED = 2.0
"""Variance of the sum of G over that of independent anchors: among themselves, each pair is in two tails."""
NEEDED = 3.0
"""Standard deviations of the null at which the evidence counts half."""
STEEPNESS = 2.0
"""Of the evidence around that, per standard deviation."""
FEWEST = 8
"""Exceedances of an anchor that takes part."""
STEEPNESS_OF_SHARE = 20.0
"""Of the share of beaten anchors, around one half."""


class End(NamedTuple):
    """Of the tails of a batch; scalars.

    Attributes:
        place: R, 0 for no end, 1 for the cap, larger for an end below it.
        statistic: z of an exponential tail against one that ends; about N(0, 1) under the first.
        trust: share of an anchor's own deviation that is not noise, in [0, 1].
    """

    place: Tensor
    statistic: Tensor
    trust: Tensor


@torch.no_grad()
def end_of(tail: TailFit) -> End:
    """Where the law fitted to the tails of all anchors, taken together, ends.

    Size: of 200 batches with exponential similarities, at 64 and at 512 anchors, with and without shared rows, none has
    z > 3 and R in (1/2, 3/2). Power: of 200 with a power law at the cap, slopes 1 to 6, all do at 512 anchors; at 64
    all of slopes 1 and 3 and most of slope 6 (`tests/test_evidence.py`).

    Args:
        tail: fits with moments, of the whole batch.
    """
    inside = tail.points >= FEWEST
    n = torch.where(inside, tail.points, FEWEST)
    many = inside.sum().clamp_min(1)
    missing = torch.where(inside, 2 - tail.dispersion, 0.0)
    null = torch.where(inside, 4 * (n - 1) / ((n + 2) * (n + 3)), 0.0)
    statistic = missing.sum() / (SHARED * null.sum()).clamp_min(1e-12).sqrt()
    dispersion = 2 - missing.sum() / many
    excess = (torch.where(inside, tail.excess, 0.0).sum() / many).clamp_min(1e-6)
    place = (2 / dispersion - 1) / excess  # G is at least 1, by Cauchy and Schwarz
    away = torch.where(inside, tail.dispersion - _expected(place, tail.excess), 0.0)
    noise = torch.where(inside, _variance(dispersion) / n, 0.0).sum()
    trust = (1 - noise / away.square().sum().clamp_min(1e-12)).clamp(0, 1)
    return End(place, statistic, trust)


@torch.no_grad()
def end_weight(tail: TailFit, end: End, kappa: float) -> Tensor:
    """Weight of every anchor in [0, 1], (A,): near 1 where the end fitted to its tail is about the cap.

        lambda_i = sigmoid(2 (z - 3)) * sigmoid(kappa (R_i - 1/2)) * sigmoid(kappa (3/2 - R_i))

    Args:
        tail: fits of the anchors, with moments.
        end: of the batch.
        kappa: sharpness, per unit of R.
    """
    inside = tail.points >= FEWEST
    excess = tail.excess.clamp_min(1e-6)
    expected = _expected(end.place, excess)
    own = expected + end.trust * (tail.dispersion - expected)
    place = (2 / own - 1) / excess
    evidence = torch.sigmoid(STEEPNESS * (end.statistic - NEEDED))
    weight = evidence * torch.sigmoid(kappa * (place - 0.5)) * torch.sigmoid(kappa * (1.5 - place))
    return torch.where(inside, weight, 0.0)


@torch.no_grad()
def beaten_weight(tail: TailFit) -> Tensor:
    """Whether most positives of the batch are still beaten: near 1 where so, near 0 where they have won; scalar.

        sigmoid(20 (share - 1/2)),      share: of the anchors whose hardest negative is nearer than every positive

    Args:
        tail: fits of the whole batch that looked at positives. Without any positive it is 0.
    """
    share = tail.beaten.nanmean()
    return torch.sigmoid(STEEPNESS_OF_SHARE * (share - 0.5)).nan_to_num(nan=0.0)


def _expected(place: Tensor, excess: Tensor) -> Tensor:
    """E G of a tail that ends at R, where 1 + R a is positive (an R below 0 is noise around no end)."""
    return 2 / (1 + place * excess).clamp_min(0.5)


def _variance(dispersion: Tensor) -> Tensor:
    """n Var G under a GPD with this E G, from its first four moments."""
    xi = ((dispersion - 2) / (2 * (dispersion - 1)).clamp_min(1e-3)).clamp(-2.0, 0.2)
    m_2 = 2 * (1 - xi) / (1 - 2 * xi)
    m_3 = m_2 * 3 * (1 - xi) / (1 - 3 * xi)
    m_4 = m_3 * 4 * (1 - xi) / (1 - 4 * xi)
    return (m_4 - m_2**2) + 4 * m_2**2 * (m_2 - 1) - 4 * m_2 * (m_3 - m_2)
