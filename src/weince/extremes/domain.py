"""The domain of a tail: does it end, where, and is that the cap of cosine similarity, 1?

The largest similarities of all pairs are exceedances over a threshold u. A GPD is fitted to them at many thresholds;
what is said of the tail is said of one, after a look at the others. Pairs share rows, so every interval and every test
takes the variance that rows drawn anew would give (`dependence.py`).

    endpoint = u - sigma / xi,    xi < 0

Thresholds split no tie. What is said of the fits is in `verdict.py`.

Source: peaks over a threshold, as in `gpd.py`; similarity is bounded by 1, so an endpoint at 1 is what the shortfall
correction of arXiv:2606.00262 assumes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from weince.extremes.dependence import Dyads, covariance
from weince.extremes.gpd import (
    GPD,
    REGULAR_SHAPE,
    Interval,
    Test,
    endpoint_interval,
    exponential_influence,
    exponential_test,
    likelihood_fit,
    likelihood_influence,
    moment_fit,
    moment_influence,
    shape_interval,
)

__all__ = ["CAP", "Estimate", "Tail", "exponential_test_of_pairs", "fit_tail_at", "stability"]

Array = NDArray[np.float64]

CAP = 1.0
SIMULATIONS = 10_000
"""Of the null distribution of small tails; p-values are no smaller than their inverse there."""
LEAST = 100
"""Exceedances of the smallest tail that is fitted, where no ties stand in the way."""
FEWEST = 10
"""Exceedances below which nothing can be fitted."""
ROUNDING = 1e-6
"""Similarities as near as this are one value."""
TIE = 0.01
"""Share of a tail's pairs from which a tied value counts: fewer change no fit."""


class Estimate(NamedTuple):
    """One estimator's answer, with 95 % intervals that allow for shared rows.

    Where pairs with a row in common have a correlation of 0.15, they hold the truth 92 to 95 times in 100 with 80 rows,
    91 to 96 times with 300; those of independent pairs 43 to 74 times, 30 to 62 times.

    Attributes:
        shape, scale: of the GPD.
        shape_se: standard error of xi.
        shape_interval: of xi.
        endpoint: u - sigma / xi, a similarity; infinite for xi >= 0.
        endpoint_interval: of it.
        inflation: variance of xi over that of independent pairs.
    """

    shape: float
    scale: float
    shape_se: float
    shape_interval: Interval
    endpoint: float
    endpoint_interval: Interval
    inflation: float


class Tail(NamedTuple):
    """The tail above one threshold.

    Attributes:
        threshold: u, a similarity.
        n: exceedances.
        rows: how many rows they rest on, see `Dyads.rows`.
        values: how many different similarities they are.
        likelihood, moments: both estimates.
        regular: whether maximum likelihood has its normal limit (xi > -0.5); where not, moments speak.
        test: of xi = 0 against xi < 0.
        cap_slope: beta of a power law that ends at 1 exactly, n / sum log((1 - u) / (1 - s)).
    """

    threshold: float
    n: int
    rows: float
    values: int
    likelihood: Estimate
    moments: Estimate
    regular: bool
    test: Test
    cap_slope: float

    @property
    def best(self) -> Estimate:
        """The estimate that speaks for this tail."""
        return self.likelihood if self.regular else self.moments


def fit_tail_at(similarity: Array, dyads: Dyads | None, n: int) -> Tail:
    """The tail of the n largest similarities.

    Args:
        similarity: of pairs, descending, more than n.
        dyads: the rows of each; None for independent similarities.
        n: exceedances; the next one is the threshold, or half-way to it where the smallest exceedances are tied.
    """
    threshold = float(similarity[n])
    if _tied(similarity, n) > max(2, TIE * n):
        threshold = float((similarity[n - 1] + similarity[n]) / 2)
    y = similarity[:n] - threshold
    dyads = None if dyads is None else dyads.top(n)
    likelihood, moments = likelihood_fit(y), moment_fit(y)
    regular = likelihood.shape > REGULAR_SHAPE
    return Tail(
        threshold,
        n,
        2.0 * n if dyads is None else dyads.rows,
        1 + int(np.count_nonzero(similarity[: n - 1] - similarity[1:n] > _rounding(similarity))),
        _by_likelihood(likelihood, y, dyads, threshold),
        _by_moments(moments, y, dyads, threshold),
        regular,
        exponential_test_of_pairs(y, dyads),
        float(n / np.log((CAP - threshold) / np.maximum(CAP - similarity[:n], 1e-12)).sum()),
    )


def exponential_test_of_pairs(exceedances: Array, dyads: Dyads | None) -> Test:
    """`exponential_test` of pairs that share rows.

    Where pairs with a row in common have a correlation of 0.15, exponential samples of 100 rows are rejected 6 times in
    100 at the 5 % level, of 300 rows 5 times; taken as independent, 27 times and more.

    Args:
        exceedances: of pairs.
        dyads: the rows of each; None for independent ones.
    """
    influence = exponential_influence(exceedances)
    return exponential_test(exceedances, SIMULATIONS, inflation=_inflation(influence[:, 0], dyads))


def _inflation(influence: Array, dyads: Dyads | None) -> float:
    """Variance of an estimate over that of independent pairs, at least 1: less is noise.

    Both variances are the sample's: where its largest exceedances happen to be small both are, and a test keeps its
    size.
    """
    if dyads is None:
        return 1.0
    return max(1.0, float(covariance(influence[:, None], dyads)[0, 0] / np.square(influence).sum()))


def _by_likelihood(fit: GPD, y: Array, dyads: Dyads | None, threshold: float) -> Estimate:
    shape, scale = fit.shape, fit.scale
    if not fit.regular:
        nothing = Interval(np.nan, np.nan)
        return Estimate(shape, scale, np.nan, nothing, threshold + fit.endpoint, nothing, np.nan)
    influence = likelihood_influence(fit, y)
    inflation = _inflation(influence[:, 0], dyads)
    low, high = endpoint_interval(y, inflation=_inflation(influence @ _to_rate(fit), dyads))
    return Estimate(
        shape,
        scale,
        fit.shape_se * np.sqrt(inflation),
        shape_interval(y, inflation=inflation),
        threshold + fit.endpoint,
        Interval(threshold + low, threshold + high),
        inflation,
    )


def _by_moments(fit: GPD, y: Array, dyads: Dyads | None, threshold: float) -> Estimate:
    """Normal intervals, of xi and of 1 / endpoint."""
    shape, scale = fit.shape, fit.scale
    influence = moment_influence(fit, y)
    of_rate = influence @ _to_rate(fit)
    inflation = _inflation(influence[:, 0], dyads)
    z = float(norm.ppf(0.975))
    error = float(np.sqrt(inflation * np.square(influence[:, 0]).sum()))
    rate_error = np.sqrt(_inflation(of_rate, dyads) * np.square(of_rate).sum())
    # No end below the largest exceedance.
    rates = -shape / scale + z * rate_error * np.array([1, -1])
    low, high = (max(1 / rate, y.max()) if rate > 0 else np.inf for rate in rates)
    return Estimate(
        shape,
        scale,
        error,
        Interval(shape - z * error, shape + z * error),
        threshold + max(fit.endpoint, float(y.max())),
        Interval(threshold + low, threshold + high),
        inflation,
    )


def _to_rate(fit: GPD) -> Array:
    """Derivative of 1 / endpoint, -xi / sigma, in xi and sigma."""
    return np.array([-1 / fit.scale, fit.shape / fit.scale**2])


def stability(similarity: Array, dyads: Dyads | None, most: int, steps: int = 9) -> list[Tail]:
    """The tail at many thresholds, from the lowest (most exceedances) to the highest.

    Args:
        similarity: as in `fit_tail_at`.
        dyads: as there.
        most: exceedances at the lowest threshold.
        steps: thresholds; counts of exceedances are even on a logarithmic scale, down to 100, and smaller where a
            threshold would fall among tied similarities.
    """
    sizes = np.unique(np.geomspace(most, min(LEAST, most), steps).round().astype(int))[::-1]
    tails = []
    for n in dict.fromkeys(_between_ties(similarity, int(size)) for size in sizes):
        if n >= FEWEST and similarity[0] - similarity[n - 1] > ROUNDING:  # otherwise nothing but rounding is left
            tails.append(fit_tail_at(similarity, dyads, n))
    return tails


def _between_ties(similarity: Array, n: int) -> int:
    """The largest tail of at most n that splits no tie; a pair may stand there twice, once from either end."""
    rounding = _rounding(similarity)
    if similarity[n - 1] - similarity[n] > rounding:
        return n
    above = _tied(similarity, n)
    tied = above + int(np.count_nonzero(similarity[n - 1] - similarity[n:] <= rounding))
    return n - above if tied > max(2, TIE * n) else n


def _tied(similarity: Array, n: int) -> int:
    """How many of the first n have the value of the last of them."""
    return int(np.count_nonzero(similarity[:n] - similarity[n - 1] <= _rounding(similarity)))


def _rounding(similarity: Array) -> float:
    return min(ROUNDING, 1e-4 * float(similarity[0] - similarity[-1]))
