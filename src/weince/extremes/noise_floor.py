"""The noise floor: what no amount of data can mend when the link is the wrong one.

Four candidates stand at scores s. Winners follow the shortfall law, p_j proportional to (1 - s_j)^(-beta). Two models
with one parameter are fitted to n winners by maximum likelihood, and asked for the log-odds of the top candidate
against the first: the law itself (Weibit), and a softmax in the score.

    Weibit:   logit_j = -b log(1 - s_j)       n * Var -> (x_4 - x_1)^2 / Var_p(x),    x = -log(1 - s)
    softmax:  logit_j = theta s_j             converges to a wrong value: its squared error has a floor

Source: arXiv:2606.00262, the noise-floor experiment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCORES", "SIZES", "SLOPE", "Simulated", "Theory", "simulate", "theory", "winner_probabilities"]

Array = NDArray[np.float64]

SCORES = np.array([0.15, 0.45, 0.70, 0.90])
SLOPE = 0.8
SIZES = (100, 200, 500, 1000, 2000, 5000, 10000)


class Theory(NamedTuple):
    """What the toy converges to.

    Attributes:
        log_odds: of the top candidate against the first, the truth.
        weibit_variance: limit of n * MSE of the Weibit estimate of it (inverse Fisher information).
        theta: pseudo-true parameter of the softmax.
        softmax_log_odds: what the softmax converges to.
        floor: squared error that stays.
        curvature: A, variance of the score under the softmax at theta.
        score_variance: B, variance of the score under the truth.
        softmax_variance: limit of n * Var(theta), B / A^2 (Godambe).
    """

    log_odds: float
    weibit_variance: float
    theta: float
    softmax_log_odds: float
    floor: float
    curvature: float
    score_variance: float
    softmax_variance: float

    def softmax_mse(self, n: NDArray[np.float64] | int) -> NDArray[np.float64] | float:
        """Mean squared error of the softmax's log-odds at n winners, to first order."""
        return self.floor + (SCORES[-1] - SCORES[0]) ** 2 * self.softmax_variance / n

    def weibit_mse(self, n: NDArray[np.float64] | int) -> NDArray[np.float64] | float:
        """Mean squared error of the Weibit log-odds at n winners, to first order."""
        return self.weibit_variance / n


class Simulated(NamedTuple):
    """Mean squared errors of the log-odds at n winners, and their Monte-Carlo standard errors."""

    n: int
    weibit_mse: float
    weibit_se: float
    softmax_mse: float
    softmax_se: float


def winner_probabilities(scores: Array = SCORES, slope: float = SLOPE) -> Array:
    """Probability that each candidate wins, proportional to (1 - s)^(-slope).

    Examples:
        >>> winner_probabilities(np.array([0.0, 0.5]), slope=1.0).round(4).tolist()
        [0.3333, 0.6667]
    """
    weight = (1 - scores) ** -slope
    return weight / weight.sum()


def theory() -> Theory:
    """The limits, in closed form but for one root."""
    p, x = winner_probabilities(), -np.log(1 - SCORES)
    log_odds = SLOPE * (x[-1] - x[0])
    theta = float(_maximise(SCORES, np.atleast_1d(p @ SCORES))[0])
    q = np.exp(theta * SCORES) / np.exp(theta * SCORES).sum()
    curvature, score_variance = _variance(q, SCORES), _variance(p, SCORES)
    softmax_log_odds = theta * (SCORES[-1] - SCORES[0])
    return Theory(
        log_odds=float(log_odds),
        weibit_variance=float((x[-1] - x[0]) ** 2 / _variance(p, x)),
        theta=theta,
        softmax_log_odds=float(softmax_log_odds),
        floor=float((softmax_log_odds - log_odds) ** 2),
        curvature=curvature,
        score_variance=score_variance,
        softmax_variance=score_variance / curvature**2,
    )


def simulate(n: int, repetitions: int, generator: np.random.Generator) -> Simulated:
    """Draw n winners `repetitions` times and fit both models to each.

    Args:
        n: winners in a sample.
        repetitions: samples.
        generator: of random numbers.
    """
    p, x = winner_probabilities(), -np.log(1 - SCORES)
    shares = generator.multinomial(n, p, size=repetitions) / n
    truth = SLOPE * (x[-1] - x[0])
    errors = []
    for coordinate in (x, SCORES):
        parameter = _maximise(coordinate, shares @ coordinate)
        errors.append((parameter * (coordinate[-1] - coordinate[0]) - truth) ** 2)
    weibit, softmax = ((float(e.mean()), float(e.std(ddof=1) / np.sqrt(repetitions))) for e in errors)
    return Simulated(n, *weibit, *softmax)


def _maximise(coordinate: Array, means: Array) -> Array:
    """Maximum likelihood of p_j ~ exp(b c_j): b at which the model's mean of c is the sample's."""
    b = np.zeros_like(means)
    for _ in range(60):
        logits = b[:, None] * coordinate
        q = np.exp(logits - logits.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        mean = q @ coordinate
        step = (means - mean) / np.maximum(q @ coordinate**2 - mean**2, 1e-12)
        b = b + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-12:
            break
    return b


def _variance(p: Array, values: Array) -> float:
    return float(p @ values**2 - (p @ values) ** 2)
