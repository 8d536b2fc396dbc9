"""The dependence: pairs that share a row are not two observations.

An estimate is a sum of the influences of pairs. Rows are drawn independently, pairs are not: its variance is summed
over all pairs of pairs that have a row in common.

    V = sum_rows S_r S_r^T - sum_dyads S_d S_d^T,    S: sum of the influences of the pairs with row r, of dyad d

It is what resampling rows (an anchor and a candidate are rows alike) converges to, without its random numbers and
without the excess of multiplied weights, which triples the noise of pairs that share nothing.

Source: Aronow, Samii & Assenova 2015, doi:10.1093/pan/mpv018 (dyadic clusters); Chandler & Bate 2007,
doi:10.1093/biomet/asm015 (likelihoods of dependent data, adjusted to the right curvature).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dyads", "covariance"]

Array = NDArray[np.float64]


class Dyads(NamedTuple):
    """The two rows of every pair, (n,) each. A row has one number wherever it stands."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]

    def top(self, n: int) -> Dyads:
        """Of the first n pairs."""
        return Dyads(self.first[:n], self.second[:n])

    @property
    def rows(self) -> float:
        """How many rows the pairs rest on: (sum n_r)^2 / sum n_r^2, n_r the pairs of row r."""
        counts = np.unique(np.concatenate(self), return_counts=True)[1].astype(float)
        return float(counts.sum() ** 2 / np.square(counts).sum())


def covariance(influence: Array, dyads: Dyads | None) -> Array:
    """Covariance (P, P) of an estimate of P numbers.

    Args:
        influence: (n, P), of every pair on the sum that is the estimate.
        dyads: who they are; None for independent observations.

    Examples:
        >>> one = np.array([[1.0], [-1.0]])
        >>> apart, joined = Dyads(np.array([0, 1]), np.array([2, 3])), Dyads(np.array([0, 0]), np.array([2, 3]))
        >>> float(covariance(one, apart)[0, 0]), float(covariance(one, joined)[0, 0])
        (2.0, 0.0)
    """
    if dyads is None:
        return influence.T @ influence
    names, nodes = np.unique(np.concatenate(dyads), return_inverse=True)
    first, second = nodes.reshape(2, -1)
    of_rows = _sums(influence, first, len(names)) + _sums(influence, second, len(names))
    key = np.minimum(first, second) * len(names) + np.maximum(first, second)
    same, place = np.unique(key, return_inverse=True)
    of_dyads = _sums(influence, place, len(same))
    return of_rows.T @ of_rows - of_dyads.T @ of_dyads


def _sums(influence: Array, groups: NDArray[np.int64], count: int) -> Array:
    sums = [np.bincount(groups, column, count) for column in influence.T]
    return np.stack(sums, axis=1).astype(np.float64)
