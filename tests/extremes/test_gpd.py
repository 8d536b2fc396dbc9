"""The GPD estimators against simulated truth, SciPy's own fit, and the size and power that are claimed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import genpareto

from weince.extremes.gpd import (
    endpoint_interval,
    exponential_influence,
    exponential_test,
    likelihood_fit,
    likelihood_influence,
    moment_fit,
    moment_influence,
    shape_interval,
)


def sample(shape: float, n: int, seed: int, scale: float = 0.3) -> np.ndarray:
    return genpareto.rvs(shape, scale=scale, size=n, random_state=np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("fit", "shape"),
    [(likelihood_fit, shape) for shape in (-0.25, -0.1, 0.0, 0.2)]
    + [(moment_fit, shape) for shape in (-0.4, -0.2, 0.2)],
)
def test_known_parameters_are_recovered_with_the_standard_errors_stated(fit, shape: float):
    """200 samples of 2,000: means within four standard errors of the truth, spreads within 15 % of those stated."""
    fits = [fit(sample(shape, 2000, seed)) for seed in range(200)]
    for name, truth in (("shape", shape), ("scale", 0.3)):
        values = np.array([getattr(found, name) for found in fits])
        stated = np.mean([getattr(found, f"{name}_se") for found in fits])
        # A bias of order 1 / n adds to the Monte-Carlo error.
        assert abs(values.mean() - truth) < 4 * stated / np.sqrt(200) + 3 / 2000
        assert values.std(ddof=1) == pytest.approx(stated, rel=0.15)  # 5 % is one standard error of it


@pytest.mark.parametrize("shape", [-0.45, -0.3, -0.1, 0.0, 0.3])
@pytest.mark.parametrize("n", [30, 300, 3000])
def test_the_likelihood_is_at_least_scipys(shape: float, n: int):
    y = sample(shape, n, seed=n)
    found = likelihood_fit(y)
    theirs, _, scale = genpareto.fit(y, floc=0)
    best = genpareto.logpdf(y, theirs, scale=scale).sum()
    own = genpareto.logpdf(y, found.shape, scale=found.scale).sum()
    assert own == pytest.approx(found.log_likelihood, rel=1e-8, abs=1e-6)
    assert own >= best - 1e-4
    if own - best < 1e-3:
        assert found.shape == pytest.approx(theirs, abs=2e-2)


def test_near_the_end_of_regularity_the_spread_is_wider_than_stated():
    fits = [likelihood_fit(sample(-0.4, 2000, seed)) for seed in range(200)]
    stated = np.mean([fit.shape_se for fit in fits])
    assert 1.05 < np.std([fit.shape for fit in fits], ddof=1) / stated < 1.35  # 5 % is one standard error of it


def test_the_normal_limit_of_the_statistic_is_far_off_in_a_small_tail():
    """Why the null is simulated: the level is 5 %, its standard error over 20,000 samples 0.15 %."""
    y = np.random.default_rng(0).exponential(size=(20_000, 51))
    z = np.sqrt(51) * (1 - y.var(axis=1, ddof=1) / y.mean(axis=1) ** 2) / 2
    assert np.mean(z > 1.645) < 0.015


def test_shape_does_not_depend_on_the_unit():
    y = sample(-0.3, 500, 1)
    for fit in (likelihood_fit, moment_fit):
        one, other = fit(y), fit(1e4 * y)
        assert other.shape == pytest.approx(one.shape, abs=1e-6)
        assert other.scale == pytest.approx(1e4 * one.scale, rel=1e-6)
        assert other.endpoint == pytest.approx(1e4 * one.endpoint, rel=1e-5)


def test_a_tail_that_ends_abruptly_is_not_regular():
    fit = likelihood_fit(np.random.default_rng(0).uniform(size=500))  # xi = -1
    assert not fit.regular
    assert np.isnan(fit.shape_se)
    # Four of the moments' standard errors.
    assert moment_fit(np.random.default_rng(0).uniform(size=500)).shape == pytest.approx(-1, abs=4 * 0.098)


@pytest.mark.parametrize("shape", [-0.3, 0.0])
def test_profile_intervals_cover_at_their_nominal_rate(shape: float):
    """400 samples: the standard error of a coverage of 95 % is 1.1 %."""
    shapes, ends = 0, 0
    for seed in range(400):
        y = sample(shape, 400, seed)
        low, high = shape_interval(y)
        shapes += low <= shape <= high
        low, high = endpoint_interval(y)
        ends += low <= (-0.3 / shape if shape < 0 else np.inf) <= high
    assert 0.91 <= shapes / 400 <= 0.985
    assert 0.91 <= ends / 400 <= 0.985


def test_the_intervals_hold_the_estimate_and_narrow_with_n():
    widths = []
    for n in (200, 2000):
        y = sample(-0.3, n, 5)
        fit, shape, end = likelihood_fit(y), shape_interval(y), endpoint_interval(y)
        assert shape.low < fit.shape < shape.high
        assert y.max() < end.low < fit.endpoint < end.high
        widths.append(shape.high - shape.low)
    assert widths[1] < 0.5 * widths[0]


@pytest.mark.parametrize("n", [51, 409, 3000])
def test_the_size_is_that_of_the_level(n: int):
    """4,000 exponential samples: the standard error of 5 % is 0.34 %."""
    generator = np.random.default_rng(n)
    rejected = np.mean([exponential_test(generator.exponential(size=n)).p_value < 0.05 for _ in range(4000)])
    assert 0.04 <= rejected <= 0.06


@pytest.mark.parametrize(("shape", "n", "least"), [(-0.2, 1000, 0.95), (-0.2, 409, 0.95), (-0.39, 51, 0.6)])
def test_the_power_is_what_is_claimed(shape: float, n: int, least: float):
    rejected = np.mean([exponential_test(sample(shape, n, seed)).p_value < 0.05 for seed in range(300)])
    assert rejected >= least


def test_a_heavy_tail_is_not_rejected_towards_a_finite_one():
    assert np.mean([exponential_test(sample(0.2, 500, seed), 1000).p_value < 0.05 for seed in range(100)]) <= 0.05


def test_what_a_normal_score_does_is_a_fact_about_finite_samples():
    """Its domain is Gumbel, its penultimate shape below zero: the more exceedances, the surer the rejection."""
    rejected = {}
    for kept, of in ((51, 510), (1000, 10_000)):
        count = 0
        for seed in range(100):
            s = np.sort(np.random.default_rng(seed).normal(size=of))
            count += exponential_test(s[-kept:] - s[-kept - 1], 1000).p_value < 0.05
        rejected[kept] = count / 100
    assert rejected[51] < 0.5
    assert rejected[1000] > 0.95


@pytest.mark.parametrize(
    "bad",
    [np.ones(9), np.ones((3, 4)), np.ones(20), np.r_[np.ones(20), np.nan], -np.arange(20.0), np.zeros(20)],
)
def test_bad_samples_are_refused(bad: np.ndarray):
    for use in (likelihood_fit, moment_fit, shape_interval, endpoint_interval, exponential_test):
        with pytest.raises(ValueError, match=r"^Parameter `exceedances` should .*Found "):
            use(bad)


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_influences_are_those_of_leaving_one_out(shape: float):
    """To first order: the correlation with the jackknife's values is nearly 1, and the sums of squares agree."""
    y = sample(shape, 400, 5)
    for fit, influence in ((likelihood_fit, likelihood_influence), (moment_fit, moment_influence)):
        whole = fit(y)
        left_out = np.array([fit(np.delete(y, k))[:2] for k in range(len(y))])
        jackknife = np.array(whole[:2]) - left_out
        found = influence(whole, y)
        assert np.abs(found.sum(axis=0)).max() < 1e-6
        for column in range(2):
            assert np.corrcoef(found[:, column], jackknife[:, column])[0, 1] > 0.98
            squares = np.square(found[:, column]).sum()
            if fit is likelihood_fit and shape < 0:
                continue  # the score's fourth moment is large, the sum far from its mean at n = 400
            assert squares == pytest.approx(np.square(jackknife[:, column]).sum(), rel=0.35)


def test_the_influence_on_the_test_has_unit_variance_under_an_exponential_tail():
    y = np.random.default_rng(6).exponential(size=200_000)
    influence = exponential_influence(y)
    assert influence.sum() == pytest.approx(0, abs=1e-9)
    assert np.square(influence).sum() * len(y) == pytest.approx(1, rel=0.1)  # the eighth moment: 3 % is one error


def test_a_variance_k_times_as_large_widens_intervals_and_shrinks_the_statistic():
    y = sample(-0.25, 4000, 7)
    narrow, wide = shape_interval(y), shape_interval(y, inflation=4.0)
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.05)
    assert exponential_test(y, inflation=4.0).statistic == pytest.approx(exponential_test(y).statistic / 2)
    narrow, wide = endpoint_interval(y), endpoint_interval(y, inflation=4.0)
    assert wide.low < narrow.low
    assert wide.high > narrow.high


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.1])
def test_pyextremes_finds_the_same(shape: float):
    """Its model of exceedances over a fixed threshold, fitted by SciPy underneath with its own search."""
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyextremes import EVA

    y = sample(shape, 3000, 8)
    days = pandas.date_range("2000-01-01", periods=len(y), freq="D")
    analysis = EVA(pandas.Series(0.5 + y, index=days))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analysis.get_extremes(method="POT", threshold=0.5, r="1s")
        analysis.fit_model(model="MLE", distribution="genpareto")
    theirs = analysis.model.fit_parameters
    found = likelihood_fit(y)
    assert found.shape == pytest.approx(theirs["c"], abs=2e-3)
    assert found.scale == pytest.approx(theirs["scale"], rel=2e-3)
