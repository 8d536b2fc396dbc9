"""Tied similarities: where thresholds stand, and what is said of tails that hold few values."""

from __future__ import annotations

import numpy as np
import pytest

from weince.extremes.domain import fit_tail_at, stability
from weince.extremes.verdict import judge


def lattice(width: int, pairs: int, seed: int) -> np.ndarray:
    """Similarities of codes of +-1, descending, with the rounding of a float32."""
    generator = np.random.default_rng(seed)
    s = 2 * generator.binomial(width, 0.5, size=pairs) / width - 1 + 3e-8 * generator.standard_normal(pairs)
    return -np.sort(-s)


@pytest.mark.parametrize("width", [32, 64, 256])
def test_thresholds_stand_between_tied_values_and_few_values_are_said(width: int):
    s = lattice(width, 400_000, seed=width)
    tails = stability(s, None, 4000)
    for tail in tails:
        steps = (1 + s[[tail.n - 1, tail.n]]) * width / 2  # whole numbers, one apart
        np.testing.assert_allclose(steps[0] - steps[1], 1, atol=1e-3)
        assert tail.threshold == pytest.approx((s[tail.n - 1] + s[tail.n]) / 2)
        assert tail.n <= 4000
        assert tail.values == len(np.unique(np.round((1 + s[: tail.n]) * width / 2)))
    assert len({tail.n for tail in tails}) == len(tails)
    verdict = judge(tails, s[0])
    assert verdict.kind == "unsettled"
    assert f"only {tails[0].values} different similarities in {tails[0].n:,} pairs" in verdict.text


def test_scores_without_ties_are_cut_where_they_were():
    s = -np.sort(-np.random.default_rng(0).random(50_000))
    tails = stability(s, None, 4000)
    assert [tail.n for tail in tails] == [4000, 2522, 1591, 1003, 632, 399, 251, 159, 100]
    assert all(tail.threshold == s[tail.n] for tail in tails)
    assert tails[0].values > 3000


def test_a_pair_that_stands_there_from_both_ends_is_no_tie():
    s = np.repeat(-np.sort(-np.random.default_rng(1).random(20_000)), 2)
    assert stability(s, None, 3999)[0].n == 3999
    assert fit_tail_at(s, None, 3000).threshold == s[3000]


def test_a_tie_larger_than_the_tail_leaves_nothing_to_fit():
    s = np.concatenate([np.full(5000, 0.5), np.full(5000, 0.4)])
    assert stability(s, None, 4000) == []
    assert judge(stability(np.concatenate([np.linspace(0.9, 0.6, 50), s]), None, 4000), 0.9).kind != "cap"
