"""The verdict: a hand-made tail for every branch, and one on either side of every constant."""

from __future__ import annotations

import math
import re

import pytest

from weince.extremes.domain import Estimate, Tail
from weince.extremes.gpd import Interval, Test
from weince.extremes.verdict import judge

NONE = math.inf


def made(
    shape=(-0.32, -0.3, -0.28), end=(0.99, 1.0, 1.01), p=1e-9, n=1000, u=0.8, rows=500.0, inflation=4.0, values=1000
) -> Tail:
    """A tail with these fits: (low, estimate, high) of xi and of the end."""
    best = Estimate(shape[1], 0.1, 0.01, Interval(shape[0], shape[2]), end[1], Interval(end[0], end[2]), 9.0)
    return Tail(u, n, rows, values, best, best, True, Test(9.0, p, False, inflation), 3.0)


def deeper(end=(0.98, 1.0, 1.02), n=250, u=0.9) -> Tail:
    return made(end=end, n=n, u=u)


# Over u = 0.8 a fourth of 1 - u is 0.05 and a tenth is 0.02; over u = 0.9 a tenth is 0.01.
BRANCHES = {
    # few values
    "a lattice": ("unsettled", made(values=49), deeper()),
    "not quite a lattice": ("cap", made(values=50), deeper()),
    "a lattice, whatever its fit": ("unsettled", made((0.1, 4.5, 9.0), p=0.9, values=9), deeper()),
    # it ends near the cap
    "cap": ("cap", made(), deeper()),
    "cap, the interval from one edge of the band to the other": ("cap", made(end=(0.951, 1.0, 1.049)), deeper()),
    "its lower bound outside the band": ("unsettled", made(end=(0.949, 1.0, 1.049)), deeper()),
    "its upper bound outside the band": ("unsettled", made(end=(0.951, 1.0, 1.051)), deeper()),
    "a wide interval is no cap": ("unsettled", made(end=(0.85, 1.0, 2.0)), deeper()),
    "inside the band, and just reaches 1": ("cap", made(end=(0.96, 0.97, 0.981)), deeper((0.96, 0.98, 1.0))),
    "inside the band, but short of 1": ("unsettled", made(end=(0.96, 0.97, 0.979)), deeper((0.96, 0.98, 1.0))),
    "inside the band, but beyond 1": ("unsettled", made(end=(1.021, 1.03, 1.04)), deeper((0.99, 1.02, 1.04))),
    "over the higher threshold it just reaches 1": ("cap", made(), deeper((0.98, 0.985, 0.991))),
    "over the higher threshold it does not": ("unsettled", made(end=(0.97, 0.985, 1.01)), deeper((0.97, 0.98, 0.989))),
    # it moves
    "moved up, just not": ("cap", made(), deeper((1.009, 1.02, 1.03))),
    "moved up": ("unsettled", made(), deeper((1.011, 1.02, 1.03))),
    "moved down, just not": ("cap", made(end=(0.98, 0.999, 1.01)), deeper((0.98, 0.985, 0.99))),
    "moved down": ("unsettled", made(), deeper((0.95, 0.97, 0.989))),
    "moved, though 1 is held at both": ("unsettled", made(end=(0.96, 0.97, 1.0)), deeper((0.99, 1.0, 1.1))),
    "moved, and 1 is held at neither": ("unsettled", made(end=(0.84, 0.85, 0.86)), deeper((0.92, 0.93, 0.94))),
    # it ends elsewhere
    "short": ("short", made(end=(0.89, 0.9, 0.949)), deeper((0.89, 0.91, 0.93))),
    "short, just not": ("unsettled", made(end=(0.89, 0.9, 0.951)), deeper((0.89, 0.91, 0.93))),
    "short, and the higher threshold just below 1": ("short", made(end=(0.89, 0.9, 0.93)), deeper((0.89, 0.93, 0.999))),
    "short, but the higher threshold holds 1": ("unsettled", made(end=(0.89, 0.9, 0.93)), deeper((0.89, 0.93, 1.001))),
    "short, just steep enough": ("short", made((-0.3, -0.25, -0.201), (0.88, 0.9, 0.92)), deeper((0.88, 0.9, 0.92))),
    "short, too near 0": ("unsettled", made((-0.3, -0.25, -0.199), (0.88, 0.9, 0.92)), deeper((0.88, 0.9, 0.92))),
    "beyond": ("beyond", made(end=(1.051, 1.1, 1.2)), deeper((1.0, 1.1, 1.3))),
    "beyond, just not": ("unsettled", made(end=(1.049, 1.1, 1.2)), deeper((1.0, 1.1, 1.3))),
    # it ends, perhaps
    "just not light": ("cap", made((-0.2, -0.15, -0.101)), deeper()),
    "light": ("light", made((-0.2, -0.15, -0.099)), deeper()),
    "light, whatever the end": ("light", made((-0.2, -0.15, 0.01), (0.85, 0.86, NONE)), deeper()),
    # the test of the exponential tail
    "rejected": ("cap", made(p=0.049), deeper()),
    "not rejected": ("exponential", made(p=0.051), deeper()),
    "not rejected, whatever the interval": ("exponential", made((-0.3, -0.2, -0.1), p=0.051), deeper()),
    "no end, though rejected": ("exponential", made((-0.02, 0.01, 0.04), (2.0, NONE, NONE), p=0.001), deeper()),
    "heavier by the estimate alone": ("exponential", made((-0.001, 0.2, 0.4), (NONE, NONE, NONE), p=0.9), deeper()),
    "heavier": ("heavy", made((0.001, 0.2, 0.4), (NONE, NONE, NONE), p=0.9), deeper()),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "tail", "other"), BRANCHES.values(), ids=BRANCHES)
def test_every_branch_and_either_side_of_every_constant(kind, tail, other):
    verdict = judge([tail, other], 0.97)
    assert verdict.kind == kind
    assert "over this threshold, 0.800" in verdict.text


def test_the_higher_threshold_is_that_of_a_fourth_of_the_pairs_or_the_last_there_is():
    moved = (1.2, 1.3, 1.4)
    for others, kind in (
        ([deeper(n=500), deeper(moved, n=250)], "unsettled"),
        ([deeper(n=251), deeper(moved, n=125)], "unsettled"),  # 251 are more than a fourth
        ([deeper(moved, n=500), deeper(n=250), deeper(moved, n=125)], "cap"),
        ([deeper(n=700), deeper(moved, n=300)], "unsettled"),  # no fourth: the last
        ([deeper(moved, n=700), deeper(n=300)], "cap"),
        ([], "cap"),
    ):
        assert judge([made(), *others], 0.97).kind == kind


def test_a_sentence_says_no_more_than_its_interval():
    """Near the cap, not "holds" it: the interval may end below 1."""
    below = judge([made(end=(0.96, 0.97, 0.99)), deeper((0.96, 0.98, 1.0))], 0.97)
    assert below.kind == "cap"
    assert "endpoint 0.970 [0.960, 0.990], all of it within 0.05 of 1, a fourth of 1 - u." in below.text
    moving = judge([made(), deeper((1.2, 1.3, 1.4))], 0.97)
    assert "moves with the threshold: over 0.900 it has endpoint 1.300 [1.200, 1.400]" in moving.text
    short = judge([made(end=(0.994, 0.995, 0.99501), u=0.96), deeper((0.994, 0.995, 0.99501), u=0.97)], 0.97)
    assert short.kind == "unsettled"  # 1 - u is 0.04: 0.995 is within a fourth of it, and not within a tenth
    assert judge([made(end=(0.9995, 0.99976, 0.9999)), deeper()], 0.97).text.count("0.99976") == 1  # which side of 1
    level = judge([made(p=0.051)], 0.97).text
    assert level.startswith("No evidence against an exponential tail over this threshold")
    # 2 * 1.645 * sqrt(4 / 1000) = 0.208, with the test's own inflation; 0.208 / (1 - 2 * 0.208) = 0.36.
    assert "One of xi = -0.36 would have been told from it about 9 times in 10." in level
    assert "hardly have told any other" in judge([made(p=0.051, inflation=20.0)], 0.97).text


def test_notes_say_what_the_tail_rests_on():
    few, enough = (judge([made(rows=rows), deeper()], 0.97).notes for rows in (49.0, 51.0))
    assert any("rests on 49 rows: its intervals are too narrow" in note for note in few)
    assert not any("too narrow" in note for note in enough)
    assert few[0].startswith("The largest similarity of a negative is 0.970; the tail is what lies over 0.800")
    assert "1,000 pairs, which rest on 49 rows" in few[0]
    assert any(re.match(r"Over the higher threshold 0.900 \(250 pairs\): xi = -0.30, endpoint 1.0", n) for n in few)
