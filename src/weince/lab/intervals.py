"""The statistics of a comparison: paired differences over seeds, their intervals, and what they allow one to say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

__all__ = ["Interval", "paired", "sentence"]

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


def paired(differences: Sequence[float]) -> Interval:
    """Mean of paired differences and its 95 % t-interval.

        mean +- t_{0.975, n - 1} * sd / sqrt(n)

    Args:
        differences: one per seed, both runs of a pair from the same initial weights and data.

    Examples:
        >>> str(paired([0.01, 0.02, 0.03]))
        '+2.0 [-0.5, +4.5]'
    """
    values = np.asarray(differences, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, None, None)
    half = float(student.ppf(0.5 + CONFIDENCE / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


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
