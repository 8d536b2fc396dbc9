"""The curves: what the figures of a tail draw, as numbers, so that a PNG and a page show the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import expon, genpareto

from weince.extremes.domain import Tail

__all__ = ["Curves", "MeanExcess", "curves", "mean_excess"]

Array = NDArray[np.float64]


class Curves(NamedTuple):
    """The exceedances over one threshold beside the two laws fitted to them.

    Attributes:
        place: similarities, middles of the bins, (B,).
        width: of a bin.
        density: of the exceedances.
        gpd_density, exponential_density: of the fitted laws.
        quantile: similarities, (Q,), ascending.
        gpd_quantile, exponential_quantile: where the laws expect them.
    """

    place: Array
    width: float
    density: Array
    gpd_density: Array
    exponential_density: Array
    quantile: Array
    gpd_quantile: Array
    exponential_quantile: Array


class MeanExcess(NamedTuple):
    """Mean exceedance over each threshold, (T,), and twice its standard error, of independent pairs."""

    threshold: Array
    mean: Array
    error: Array


def curves(similarity: Array, tail: Tail, bins: int = 40, points: int = 120) -> Curves:
    """Of one tail.

    Args:
        similarity: of pairs, descending.
        tail: fitted to the largest of them.
        bins: of the density.
        points: of the quantiles, half of them among the largest twentieth.
    """
    y = similarity[: tail.n][::-1] - tail.threshold
    edges = np.linspace(0, y[-1], bins + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    shape, scale, mean = tail.best.shape, tail.best.scale, float(y.mean())
    last, half = tail.n - 1, points // 2
    rank = np.unique(np.concatenate([np.linspace(0, last, half), np.linspace(0.95 * last, last, half)]).astype(int))
    chance = (rank + 0.5) / tail.n
    return Curves(
        tail.threshold + middle,
        float(edges[1]),
        np.histogram(y, edges)[0] / (tail.n * edges[1]),
        genpareto.pdf(middle, shape, scale=scale),
        expon.pdf(middle, scale=mean),
        tail.threshold + y[rank],
        tail.threshold + genpareto.ppf(chance, shape, scale=scale),
        tail.threshold + expon.ppf(chance, scale=mean),
    )


def mean_excess(similarity: Array, most: int, steps: int = 40) -> MeanExcess:
    """Over many thresholds: it falls in a line of slope xi / (1 - xi) under a GPD, and is level under an exponential.

    Args:
        similarity: descending, more than `most`.
        most: exceedances of the lowest threshold.
        steps: thresholds.
    """
    sizes = np.unique(np.geomspace(20, most, steps).astype(int))[::-1]
    first, second = (np.cumsum(similarity[:most] ** power)[sizes - 1] for power in (1, 2))
    mean = first / sizes
    spread = np.sqrt(np.maximum(second / sizes - mean**2, 0) / sizes)
    return MeanExcess(similarity[sizes], mean - similarity[sizes], 2 * spread)
