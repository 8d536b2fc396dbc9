"""The noise floor's theory is the published one, and simulation meets it. Gumbel-max is the softmax."""

from __future__ import annotations

import numpy as np
import pytest

from weince.extremes.noise_floor import SCORES, simulate, theory, winner_probabilities


def test_the_limits_are_the_published_ones():
    limit = theory()
    assert limit.log_odds == pytest.approx(1.7121, abs=5e-5)
    assert limit.weibit_variance == pytest.approx(7.1360, abs=5e-5)
    assert limit.theta == pytest.approx(2.5661, abs=5e-5)
    assert limit.softmax_log_odds == pytest.approx(1.9245, abs=1e-4)
    assert limit.floor == pytest.approx(0.0452, abs=1e-4)
    assert limit.curvature == pytest.approx(0.050023, abs=5e-7)
    assert limit.score_variance == pytest.approx(0.059332, abs=5e-7)
    assert limit.softmax_variance == pytest.approx(23.711, abs=5e-4)


@pytest.mark.parametrize("n", [1000, 10_000])
def test_simulation_meets_theory(n: int):
    found, limit = simulate(n, 4000, np.random.default_rng(0)), theory()
    # Beyond four Monte-Carlo standard errors there is a term of order 1 / n^2.
    assert found.weibit_mse == pytest.approx(limit.weibit_mse(n), abs=4 * found.weibit_se + 40 / n**2)
    assert found.softmax_mse == pytest.approx(limit.softmax_mse(n), abs=4 * found.softmax_se + 40 / n**2)
    assert found.softmax_mse > limit.floor - 4 * found.softmax_se


def test_winners_of_scores_with_gumbel_noise_are_the_softmax():
    generator, tau, draws = np.random.default_rng(0), 0.25, 200_000
    noisy = SCORES / tau + generator.gumbel(size=(draws, 4))
    shares = np.bincount(noisy.argmax(axis=1), minlength=4) / draws
    softmax = np.exp(SCORES / tau) / np.exp(SCORES / tau).sum()
    assert np.abs(shares - softmax).max() < 4 * np.sqrt(0.25 / draws)
    # Power: other noise of the same spread gives other winners.
    normal = SCORES / tau + generator.normal(scale=np.pi / np.sqrt(6), size=(draws, 4))
    others = np.bincount(normal.argmax(axis=1), minlength=4) / draws
    assert np.abs(others - softmax).max() > 8 * np.sqrt(0.25 / draws)


@pytest.mark.parametrize("slope", [0.8, 3.0])
def test_winners_of_shortfalls_with_weibull_noise_are_the_weibit(slope: float):
    generator, draws = np.random.default_rng(0), 200_000
    noisy = (1 - SCORES) * generator.weibull(slope, size=(draws, 4))
    shares = np.bincount(noisy.argmin(axis=1), minlength=4) / draws
    assert np.abs(shares - winner_probabilities(slope=slope)).max() < 4 * np.sqrt(0.25 / draws)
