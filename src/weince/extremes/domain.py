"""The domain of a tail: does it end, where, and is that the cap of cosine similarity, 1?

The largest similarities of all pairs are exceedances over a threshold u. A GPD is fitted to them at many thresholds;
what is said of the tail is said of one, after a look at the others. Pairs share rows, so every interval and every test
takes the variance that rows drawn anew would give (`dependence.py`).

    endpoint = u - sigma / xi,    xi < 0

Source: peaks over a threshold, as in `gpd.py`; similarity is bounded by 1, so an endpoint at 1 is what the shortfall
correction of arXiv:2606.00262 assumes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

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

__all__ = ["Estimate", "Kind", "Tail", "Verdict", "exponential_test_of_pairs", "fit_tail_at", "judge", "stability"]

Array = NDArray[np.float64]

CAP = 1.0
LEVEL = 0.05
NO_PROMISE = (
    "It does not tell whether WEINCE would beat InfoNCE: where both were compared, tails that hold the cap went with "
    "gains and with losses. `weince compare` measures it."
)
"""Said with every verdict (experiments/predict_gain.csv)."""
NEAR_ENOUGH = 0.1
"""An interval of the end holds the cap when it comes as near as this share of 1 - u: with many pairs, intervals exclude
the cap for a bias of the third digit."""
FEW_ROWS = 50
"""Below so many rows the variance over rows is itself badly known."""
SIMULATIONS = 10_000
"""Of the null distribution of small tails; p-values are no smaller than their inverse there."""
LEAST = 100
"""Exceedances of the smallest tail that is fitted."""

Kind = Literal["cap", "short", "beyond", "unsettled", "exponential", "heavy"]


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
        likelihood, moments: both estimates.
        regular: whether maximum likelihood has its normal limit (xi > -0.5); where not, moments speak.
        test: of xi = 0 against xi < 0.
        cap_slope: beta of a power law that ends at 1 exactly, n / sum log((1 - u) / (1 - s)).
    """

    threshold: float
    n: int
    rows: float
    likelihood: Estimate
    moments: Estimate
    regular: bool
    test: Test
    cap_slope: float

    @property
    def best(self) -> Estimate:
        """The estimate that speaks for this tail."""
        return self.likelihood if self.regular else self.moments


class Verdict(NamedTuple):
    """What the tail is, in one word and in plain ones.

    Attributes:
        kind: "cap": it ends, and the cap lies within the interval of its end; "short": it ends below the cap;
            "beyond": it ends, but fitted beyond the cap, where no similarity is; "unsettled": the end still moves with
            the threshold; "exponential": nothing speaks against an exponential tail; "heavy": heavier than that.
        text: one sentence.
        notes: what to know beside it.
    """

    kind: Kind
    text: str
    notes: list[str]


def fit_tail_at(similarity: Array, dyads: Dyads | None, n: int) -> Tail:
    """The tail of the n largest similarities.

    Args:
        similarity: of pairs, descending, more than n.
        dyads: the rows of each; None for independent similarities.
        n: exceedances; the next one is the threshold.
    """
    threshold = float(similarity[n])
    y = similarity[:n] - threshold
    dyads = None if dyads is None else dyads.top(n)
    likelihood, moments = likelihood_fit(y), moment_fit(y)
    regular = likelihood.shape > REGULAR_SHAPE
    return Tail(
        threshold,
        n,
        2.0 * n if dyads is None else dyads.rows,
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
        steps: thresholds; counts of exceedances are even on a logarithmic scale, down to 100.
    """
    sizes = np.unique(np.geomspace(most, min(LEAST, most), steps).round().astype(int))[::-1]
    tails = []
    for n in map(int, sizes):
        if similarity[0] - similarity[n - 1] > 1e-6:  # otherwise nothing but rounding is left
            tails.append(fit_tail_at(similarity, dyads, n))
    return tails


def judge(tails: list[Tail], largest: float) -> Verdict:
    """The verdict on the lowest threshold's tail, after a look at a higher one.

    Args:
        tails: as from `stability`.
        largest: similarity of all pairs.
    """
    tail = tails[0]
    best, end = tail.best, tail.best.endpoint_interval
    deeper = next((other for other in tails if other.n <= tail.n / 4), None)
    shape = f"xi = {best.shape:.2f} [{best.shape_interval.low:.2f}, {best.shape_interval.high:.2f}]"
    ends = f"endpoint {_place(best.endpoint)} [{_place(end.low)}, {_place(end.high)}]"
    settled = deeper is None or _holds(deeper, CAP)
    kind: Kind
    undecided = tail.test.p_value > LEVEL or np.isinf(best.endpoint)
    if undecided and best.shape_interval.low > 0:
        kind = "heavy"
        text = f"Heavier than exponential, {shape}: no sign of an end. Look for clusters of near-duplicates."
    elif undecided:
        kind = "exponential"
        told = -2 * norm.ppf(0.95) * np.sqrt(best.inflation / tail.n)
        text = (
            f"No evidence against an exponential tail at this sample size: {shape}, p = {tail.test.p_value:.2g}. "
            f"A tail of xi = {told:.2f} would have been told from it about 95 times in 100."
        )
    elif _holds(tail, CAP) and settled:
        kind, text = (
            "cap",
            f"Finite endpoint, {shape}, {ends}, holds the cap 1: a power law of the shortfall fits this tail.",
        )
    elif deeper is not None and settled != _holds(tail, CAP) and (not settled or not _holds(deeper, best.endpoint)):
        kind = "unsettled"
        low, high = deeper.best.endpoint_interval
        text = (
            f"Finite endpoint, {shape}, {ends}, but the end moves with the threshold: over {_place(deeper.threshold)} "
            f"it is {_place(deeper.best.endpoint)} [{_place(low)}, {_place(high)}]. "
            "Not settled whether it ends at the cap 1."
        )
    elif end.high < CAP:
        kind, text = (
            "short",
            f"Bounded, but ends at {_short(best.endpoint)}, below the cap 1: {shape}, {ends}.",
        )
    else:
        kind = "beyond"
        text = (
            f"Finite endpoint, {shape}, {ends}: the fit ends beyond 1, where no similarity is. Over this threshold the "
            "tail is not yet that of its end; nothing speaks for a power law at the cap."
        )
    return Verdict(kind, text, _notes(tail, deeper, largest))


def _notes(tail: Tail, deeper: Tail | None, largest: float) -> list[str]:
    notes = [
        f"The largest similarity of a negative is {_place(largest)}; the tail is what lies over "
        f"{_place(tail.threshold)}: {tail.n:,} pairs, which rest on {tail.rows:,.0f} rows."
    ]
    if not tail.regular:
        notes.append(
            f"Maximum likelihood finds xi = {tail.likelihood.shape:.2f}, at or below -0.5, where it has no normal "
            "limit: moments speak instead."
        )
    if tail.rows < FEW_ROWS:
        notes.append(f"The tail rests on {tail.rows:.0f} rows: its intervals are too narrow. Look for clusters.")
    if deeper is not None:
        low, high = deeper.best.endpoint_interval
        notes.append(
            f"Over the higher threshold {_place(deeper.threshold)} ({deeper.n:,} pairs): xi = {deeper.best.shape:.2f}, "
            f"endpoint {_place(deeper.best.endpoint)} [{_place(low)}, {_place(high)}]."
        )
    return [*notes, NO_PROMISE]


def _holds(tail: Tail, place: float) -> bool:
    low, high = tail.best.endpoint_interval
    margin = NEAR_ENOUGH * (CAP - tail.threshold)
    return low - margin <= place <= high + margin


def _place(value: float) -> str:
    if np.isinf(value):
        return "none"
    return f"{value:.3f}" if abs(CAP - value) >= 0.0005 else f"{value:.5f}"  # which side of the cap


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 0.99 else _place(value)
