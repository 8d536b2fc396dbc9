"""Variances of pairs: against the plain double loop, and against what drawing anew really gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto, norm

from weince.extremes.dependence import Dyads, covariance
from weince.extremes.domain import exponential_test_of_pairs, fit_tail_at
from weince.extremes.gpd import shape_told


def test_it_is_the_sum_over_all_pairs_of_pairs_that_share_a_row():
    generator = np.random.default_rng(0)
    first, second = generator.integers(6, size=(2, 40))
    second = np.where(first == second, (second + 1) % 6, second)
    first[1], second[1] = second[0], first[0]  # the same dyad, seen from its other end
    influence = generator.standard_normal((40, 2))
    wanted = np.zeros((2, 2))
    for i in range(40):
        for j in range(40):
            if {first[i], second[i]} & {first[j], second[j]}:
                wanted += np.outer(influence[i], influence[j])
    np.testing.assert_allclose(covariance(influence, Dyads(first, second)), wanted)


def test_pairs_that_share_nothing_are_independent():
    influence = np.random.default_rng(1).standard_normal((30, 2))
    apart = Dyads(np.arange(30), np.arange(30, 60))
    np.testing.assert_allclose(covariance(influence, apart), covariance(influence, None))
    assert apart.rows == 60


def drawn(generator: np.random.Generator, rows: int, share: float, shape: float):
    """All pairs of `rows` rows, exactly GPD one by one, with a correlation of share / 2 where they share a row."""
    effect = generator.standard_normal(rows)
    first, second = np.triu_indices(rows, 1)
    normal = np.sqrt(share / 2) * (effect[first] + effect[second])
    normal += np.sqrt(1 - share) * generator.standard_normal(len(first))
    y = genpareto.isf(norm.sf(normal), shape, scale=0.1)
    order = np.argsort(-y)
    return np.append(y[order], 0.0), Dyads(first[order], second[order])


COVERAGE = np.array([0.950, 0.925, 0.938, 0.918])
"""Of the 95 % intervals of 80 rows: shape and end by likelihood, shape and end by moments. From 10,000 draws."""


@pytest.mark.parametrize("draws", [500, pytest.param(3000, marks=pytest.mark.exhaustive)])
def test_intervals_cover_where_those_of_independent_pairs_do_not(draws: int):
    """Within three standard errors of what they cover at 80 rows: at 500 draws 3 to 4 points, at 3,000 1.4 to 1.7."""
    generator = np.random.default_rng(2)
    as_pairs, narrower, as_independent = [], [], []
    for draw in range(draws):
        similarity, dyads = drawn(generator, 80, 0.3, -0.3)
        for known, found in ((dyads, as_pairs), (None, as_independent)):
            if known is None and draw >= draws // 5:
                continue
            tail = fit_tail_at(similarity, known, len(dyads.first))
            estimates = (tail.likelihood, tail.moments)
            found.append([
                part.low <= truth <= part.high
                for estimate in estimates
                for part, truth in ((estimate.shape_interval, -0.3), (estimate.endpoint_interval, 0.1 / 0.3))
            ])  # fmt: skip
            if known is not None:
                low, high = tail.moments.shape_interval
                narrower.append(abs((low + high) / 2 + 0.3) <= 0.8 * (high - low) / 2)
    tolerance = 3 * np.sqrt(COVERAGE * (1 - COVERAGE) * (1 / draws + 1 / 10_000))
    assert (abs(np.mean(as_pairs, axis=0) - COVERAGE) < tolerance).all()
    # Power: intervals a fifth narrower are seen, and those of independent pairs, which cover far less.
    assert np.mean(narrower) < (COVERAGE - tolerance)[2]
    missed = np.mean(as_independent, axis=0)
    assert (missed < COVERAGE - tolerance).all()
    assert (missed[[0, 2]] < 0.8).all()


def test_size_and_power_of_the_test_on_pairs_that_share_rows():
    """400 draws of 100 rows, level 5 %: at most 8.3 % (three standard errors); taken as independent, 20 % or more."""
    generator = np.random.default_rng(3)

    def rejected(shape: float, as_pairs: bool) -> bool:
        similarity, dyads = drawn(generator, 100, 0.3, shape)
        return exponential_test_of_pairs(similarity[:-1], dyads if as_pairs else None).p_value <= 0.05

    assert np.mean([rejected(0.0, True) for _ in range(400)]) <= 0.083
    assert np.mean([rejected(0.0, False) for _ in range(400)]) >= 0.2
    assert np.mean([rejected(-0.2, True) for _ in range(100)]) >= 0.95


def test_what_the_exponential_verdict_says_would_be_told_is_told():
    """The shape that is named where rows are shared: told 80 to 96 times in 100; half of it, below 60."""
    generator = np.random.default_rng(4)

    def tail(shape: float):
        similarity, dyads = drawn(generator, 60, 0.3, shape)
        return fit_tail_at(similarity, dyads, len(dyads.first))

    named = float(np.median([shape_told(one.test, one.n) for one in (tail(0.0) for _ in range(20))]))
    power, of_half = (np.mean([tail(shape).test.p_value <= 0.05 for _ in range(120)]) for shape in (named, named / 2))
    assert 0.80 <= power <= 0.96
    assert of_half < 0.6
