"""The statistics of a comparison: paired differences over seeds, their intervals, and what they allow one to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

__all__ = ["Interval", "holm", "p_value", "paired", "sampling_error", "sentence"]

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Mean and two-sided t-interval; the bounds are None for fewer than two values."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return _points(self.mean)
        return f"{_points(self.mean)} [{_points(self.low)}, {_points(self.high)}]"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # + 0.0: no minus before a rounded zero


def paired(differences: Sequence[float], sampling_error: float = 0.0) -> Interval:
    """Mean of paired differences and its 95 % t-interval, no narrower than the test set allows.

        mean +- max( t_{0.975, n - 1} * sd / sqrt(n),  1.96 * sampling_error )

    Seeds share the test set: that they agree says nothing of its own chance, which the second term is.

    Args:
        differences: one per seed, both runs of a pair from the same initial weights and data.
        sampling_error: standard error of the mean difference over test examples; 0 where it is not known.

    Examples:
        >>> str(paired([0.01, 0.02, 0.03]))
        '+2.0 [-0.5, +4.5]'
        >>> str(paired([0.02, 0.02], sampling_error=0.01))
        '+2.0 [+0.0, +4.0]'
    """
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, None, None)
    level = 0.5 + CONFIDENCE / 2
    of_seeds = student.ppf(level, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    half = float(max(of_seeds, norm.ppf(level) * sampling_error))
    return Interval(mean, mean - half, mean + half)


def p_value(differences: Sequence[float], sampling_error: float = 0.0) -> float | None:
    """Two-sided p-value of no difference, below 0.05 where the interval of `paired` leaves zero out.

    The larger one of the paired t-test's and, where the error of the test set is known, of its normal test's.

    Args:
        differences, sampling_error: as in `paired`.

    Returns:
        None for fewer than two seeds, or where neither seeds nor test examples tell of any chance.
    """
    values = np.asarray(differences, dtype=float)
    mean, spread = abs(values.mean()), values.std(ddof=1) if len(values) > 1 else 0.0
    # Equal differences of unequal scores differ in their last digits, and would seem to be beyond all doubt.
    spread = spread if spread > 1e-12 else 0.0
    if len(values) < 2 or max(spread, sampling_error) <= 0:
        return None
    found = [2 * student.sf(mean / (spread / np.sqrt(len(values))), len(values) - 1)] if spread > 0 else []
    found += [2 * norm.sf(mean / sampling_error)] if sampling_error > 0 else []
    return float(max(found))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number: rejecting those <= alpha makes any false rejection at most alpha likely.

        adjusted_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),    p_(1) <= ... <= p_(m)

    Nothing is assumed of how the tests depend on each other.

    Args:
        p_values: m of them, each in [0, 1].

    Returns:
        The adjusted ones, in the order given.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.

    Examples:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    found, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        found[index] = least
    return found


def sampling_error(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Standard error of the mean paired difference of two scores over the examples of one test set.

        sd over examples of mean over seeds (o_i - t_i),  over sqrt(examples)

    Args:
        ours: outcomes (examples,), one array a seed, whose mean is the score: 0 or 1 where it is a share.
        theirs: likewise, of the same examples.

    Returns:
        The error; 0 where seeds have other numbers of examples, so that nothing can be paired, or one example alone.
    """
    if len({len(outcomes) for outcomes in (*ours, *theirs)}) != 1 or len(ours[0]) < 2:
        return 0.0
    by_example = np.mean(np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float), axis=0)
    return float(by_example.std(ddof=1) / np.sqrt(len(by_example)))


def sentence(name: str, reference: str, metric: str, difference: Interval, seeds: int) -> str:
    """What the paired differences allow one to say, in points of per cent.

    Examples:
        >>> sentence("WEINCE at 0.1", "InfoNCE at 0.2", "recall@1", paired([0.01, 0.02, 0.03]), 3)
        'No difference shown: WEINCE at 0.1 − InfoNCE at 0.2 is +2.0 [-0.5, +4.5] points of recall@1, 3 paired seeds.'
    """
    what = f"{name} − {reference} is {difference} points of {metric}"
    if difference.low is None or difference.high is None:
        return f"Nothing can be said from one seed: {what}."
    if difference.low > 0:
        verdict = f"{name.split(' at ')[0]} is better"
    elif difference.high < 0:
        verdict = f"{reference.split(' at ')[0]} is better"
    else:
        verdict = "No difference shown"
    return f"{verdict}: {what}, {seeds} paired seeds."
