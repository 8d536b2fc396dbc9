"""The diagnosis where the truth is known: points on a sphere, exponential scores, tails that end below the cap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, expon, genpareto, norm

from weince.extremes.curves import curves, mean_excess
from weince.extremes.dependence import Dyads
from weince.extremes.domain import fit_tail_at, stability
from weince.extremes.geometry import alignment, uniformity
from weince.extremes.verdict import judge


def sphere_pairs(rows: int, width: int, seed: int):
    """All pairs of uniform points, descending."""
    x = np.random.default_rng(seed).standard_normal((rows, width))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    first, second = np.triu_indices(rows, 1)
    similarity = (x @ x.T)[first, second]
    order = np.argsort(-similarity)
    return similarity[order], Dyads(first[order], second[order])


def exactly(width: int, threshold: float, n: int, seed: int) -> np.ndarray:
    """n similarities of independent pairs over a threshold: (1 + s) / 2 is Beta((D - 1) / 2, (D - 1) / 2)."""
    law = beta((width - 1) / 2, (width - 1) / 2)
    chance = law.sf((1 + threshold) / 2) * np.random.default_rng(seed).random(n)
    return np.append(-np.sort(-(2 * law.isf(chance) - 1)), threshold)


@pytest.mark.parametrize("width", [4, 8, 16, 32])
def test_uniform_points_have_the_tail_of_the_exact_law_above_the_threshold(width: int):
    """Within 3.5 standard errors of the mean of 40 samples of the exact law; so is the slope at the cap."""
    similarity, dyads = sphere_pairs(1500, width, seed=width)
    n = 8000
    tail = fit_tail_at(similarity, dyads, n)
    exact = [fit_tail_at(exactly(width, tail.threshold, n, seed), None, n) for seed in range(40)]
    wider = np.sqrt(1 + 1 / 40)
    for name in ("likelihood", "moments"):
        estimate, others = getattr(tail, name), [getattr(one, name) for one in exact]
        assert abs(estimate.shape - np.mean([o.shape for o in others])) < 3.5 * wider * np.std(
            [o.shape for o in others]
        )
        assert estimate.scale == pytest.approx(np.mean([o.scale for o in others]), rel=0.05)
    slopes = [one.cap_slope for one in exact]
    assert abs(tail.cap_slope - np.mean(slopes)) < 3.5 * wider * np.std(slopes)
    # That is not yet the limit, beta = (D - 1) / 2, where the dimension is high: the test tells them apart.
    assert (abs(tail.cap_slope - (width - 1) / 2) > 3.5 * np.std(slopes)) == (width >= 8)


def test_the_cap_is_found_where_the_tail_is_near_it_and_not_where_it_is_far():
    near, dyads = sphere_pairs(1500, 6, seed=1)
    verdict = judge(stability(near, dyads, 5000), near[0])
    assert verdict.kind == "cap"
    assert "ends near the cap 1 over this threshold" in verdict.text
    # The same points, drawn in to half their similarity: their tail ends at 0.5.
    verdict = judge(stability(near / 2, dyads, 5000), near[0] / 2)
    assert verdict.kind == "short"
    assert "ends at 0.50 over this threshold, " in verdict.text


def test_slope_of_a_power_law_that_ends_at_the_cap():
    """1 - s with P(1 - s < d) = d^2.5: beta is 2.5 within four standard errors, beta / sqrt(n)."""
    s = -np.sort(-(1 - np.random.default_rng(0).random(20_000) ** (1 / 2.5)))
    assert fit_tail_at(s, None, 2000).cap_slope == pytest.approx(2.5, abs=4 * 2.5 / np.sqrt(2000))


def test_exponential_scores_are_not_called_bounded_more_often_than_the_level():
    """200 samples of 1,000 exceedances: 5 % within three standard errors, 4.6 points."""
    kinds = []
    for seed in range(200):
        s = -np.sort(-expon.rvs(scale=0.05, size=4000, random_state=seed))
        kinds.append(judge([fit_tail_at(s, None, 1000)], s[0]).kind)
    assert kinds.count("exponential") + kinds.count("heavy") >= (0.95 - 0.046) * 200
    assert "No evidence against an exponential tail" in judge(stability(s, None, 1000), s[0]).text


def test_power_at_a_shape_of_minus_a_fifth():
    found = [
        fit_tail_at(-np.sort(-genpareto.rvs(-0.2, size=1500, random_state=seed)), None, 1000).test.p_value <= 0.05
        for seed in range(100)
    ]
    assert np.mean(found) >= 0.95


def test_a_heavy_tail_is_called_one():
    s = -np.sort(-genpareto.rvs(0.4, scale=0.01, size=6000, random_state=0))
    assert judge(stability(s, None, 4000), s[0]).kind == "heavy"


def test_the_end_of_normal_scores_moves_with_the_threshold():
    """The Gumbel domain: each threshold rejects an exponential tail, and each has another end."""
    s = -np.sort(-norm.rvs(scale=0.2, size=2_000_000, random_state=0))
    low, high = fit_tail_at(s, None, 100_000), fit_tail_at(s, None, 2000)
    assert low.test.p_value < 1e-6
    assert high.best.endpoint > low.best.endpoint + 0.1


def test_below_minus_a_half_moments_speak():
    s = -np.sort(-genpareto.rvs(-0.7, scale=0.07, size=5000, random_state=1) - 0.9)
    tail = fit_tail_at(s, None, 3000)
    assert not tail.regular
    assert tail.best is tail.moments
    assert tail.best.shape == pytest.approx(-0.7, abs=4 * tail.best.shape_se)
    assert np.isnan(tail.likelihood.shape_se)
    assert any("moments speak" in note for note in judge([tail], s[0]).notes)


def test_curves_are_the_law_and_the_data():
    s = -np.sort(-genpareto.rvs(-0.3, scale=0.03, size=40_000, random_state=2) - 0.5)
    tail = fit_tail_at(s, None, 20_000)
    drawn = curves(s, tail)
    assert (drawn.density * drawn.width).sum() == pytest.approx(1)
    # 1.4 standard errors of a quantile in the middle; the last ones vary more.
    np.testing.assert_allclose(drawn.gpd_quantile[:60], drawn.quantile[:60], atol=2e-3)
    assert abs(drawn.exponential_quantile[-1] - drawn.quantile[-1]) > 0.05
    excess = mean_excess(s, 20_000)
    slope = np.polyfit(excess.threshold[:20], excess.mean[:20], 1)[0]
    assert slope == pytest.approx(tail.best.shape / (1 - tail.best.shape), abs=0.03)


def test_alignment_and_uniformity_of_known_points():
    x = np.random.default_rng(0).standard_normal((2000, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    s = (x @ x.T)[np.triu_indices(2000, 1)]
    # On S^2, |z - z'|^2 = 2 - 2s with s uniform in [-1, 1]: log of (1 - e^-8) / 8.
    assert uniformity(s) == pytest.approx(np.log((1 - np.exp(-8)) / 8), abs=0.01)
    assert alignment(np.array([1.0, 1.0])) == 0


def test_moments_put_no_end_below_the_largest_exceedance():
    """Uniform exceedances and one beyond them: moments alone would end the tail near 1, below what was seen."""
    y = np.append(np.random.default_rng(0).random(400), 1.3)
    s = np.append(-np.sort(-y), 0.0) - 0.5
    moments = fit_tail_at(s, None, len(y)).moments
    assert moments.endpoint == pytest.approx(0.8)
    assert moments.endpoint_interval.low >= 0.8 - 1e-12
    assert moments.shape < -0.5  # and u - sigma / xi would be below
    assert -0.5 - moments.scale / moments.shape < 0.75
