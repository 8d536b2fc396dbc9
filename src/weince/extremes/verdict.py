"""The verdict: what is said of a tail whose fits are known (`domain.py`), in one word and in one sentence.

All of it is said of the fits over one threshold. An interval covers the end of the law fitted there, not the end of the
law that the pairs come from: that differs where the tail is not yet a power law, the more the nearer xi is to 0.
`experiments/verdicts.py` counts how often each verdict falls on laws that are known.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from weince.extremes.domain import CAP, Tail
from weince.extremes.gpd import shape_told

__all__ = ["Kind", "Verdict", "judge"]

LEVEL = 0.05
LIGHT = -0.1
"""Nothing is said of an end unless xi is below it. The largest hundredth of normal scores, which have no end, has this
xi."""
STEEP = -0.2
"""No end short of the cap is claimed unless xi is below it. The largest hundredth of uniform points on a sphere has
xi = -0.18 in 16 dimensions, -0.13 in 32, -0.10 in 64; all but the first are fitted with ends far below 1."""
BAND = 0.25
"""Share of 1 - u around the cap in which the interval of an end at the cap has to lie, all of it: a wider one says
nothing."""
NEAR = 0.1
"""An interval reaches a place when it comes as near to it as this share of 1 - u: with many pairs, intervals exclude
the true end for a bias of the third digit."""
FEW_VALUES = 50
"""A tail of fewer different similarities is a lattice: no continuous law fits it."""
FEW_ROWS = 50
"""Below so many rows the variance over rows is itself badly known."""
NO_PROMISE = (
    "It does not tell whether WEINCE would beat InfoNCE: where both were compared, tails at the cap went with "
    "gains and with losses. `weince compare` measures it."
)
"""Said with every verdict (experiments/predict_gain.csv)."""

Kind = Literal["cap", "short", "beyond", "unsettled", "light", "exponential", "heavy"]


class Verdict(NamedTuple):
    """What the tail is, in one word and in plain ones.

    Attributes:
        kind: "cap": it ends near 1, as its whole interval says; "short": it ends below; "beyond": it ends, but fitted
            beyond the cap, where no similarity is; "unsettled": it ends, but where is not told, or moves with the
            threshold; "light": lighter than exponential, but too little to tell an end from none; "exponential":
            nothing speaks against an exponential tail; "heavy": heavier than that.
        text: one sentence or two.
        notes: what to know beside it.
    """

    kind: Kind
    text: str
    notes: list[str]


def judge(tails: list[Tail], largest: float) -> Verdict:
    """The verdict on the lowest threshold's tail, after a look at a higher one.

    Args:
        tails: as from `stability`.
        largest: similarity of all pairs.
    """
    tail = tails[0]
    # A fourth of the pairs; of a tail too small for that, the smallest that is fitted.
    deeper = next((other for other in tails[1:] if other.n <= tail.n / 4), tails[-1] if len(tails) > 1 else None)
    kind, text = _lattice(tail) or _without_end(tail) or _end(tail, deeper)
    return Verdict(kind, text, _notes(tail, deeper, largest))


def _lattice(tail: Tail) -> tuple[Kind, str] | None:
    """What is said of a tail of few values."""
    if tail.values >= FEW_VALUES:
        return None
    return "unsettled", (
        f"The tail {_over(tail)}, holds only {tail.values} different similarities in {tail.n:,} pairs, as codes of few "
        "values do: no continuous law fits it, so nothing is said of its end."
    )


def _without_end(tail: Tail) -> tuple[Kind, str] | None:
    """What is said where the fit has no end, or none that could be told from none."""
    best = tail.best
    shape, over = _shape(tail), _over(tail)
    undecided = tail.test.p_value > LEVEL or np.isinf(best.endpoint)
    if undecided and best.shape_interval.low > 0:
        return "heavy", f"Heavier than exponential {over}: {shape}, no sign of an end. Look for near-duplicates."
    if undecided:
        told = shape_told(tail.test, tail.n, LEVEL)
        seen = f"One of xi = {told:.2f} would have been told from it about 9 times in 10."
        return "exponential", (
            f"No evidence against an exponential tail {over}, from so many pairs: {shape}, "
            f"p = {tail.test.p_value:.2g}. " + (seen if told > -1 else "They could hardly have told any other from it.")
        )
    if best.shape_interval.high >= LIGHT:
        return "light", (
            f"Lighter than exponential {over}: {shape}, p = {tail.test.p_value:.2g}. Too little to say where it ends: "
            f"a power law at the cap of slope {-1 / LIGHT:.0f} and a law without an end look alike here."
        )
    return None


def _end(tail: Tail, deeper: Tail | None) -> tuple[Kind, str]:
    """What is said of an end."""
    best, band = tail.best, BAND * (CAP - tail.threshold)
    low, high = best.endpoint_interval
    found, over = f"{_shape(tail)}, {_ends(tail)}", _over(tail)
    if deeper is not None and not _reaches(deeper, best.endpoint):
        return "unsettled", (
            f"The tail ends {over}, {found}, but its end moves with the threshold: over {_place(deeper.threshold)} it "
            f"has {_ends(deeper)}. Not settled where it ends."
        )
    within = CAP - band <= low and high <= CAP + band
    if within and _reaches(tail, CAP) and (deeper is None or _reaches(deeper, CAP)):
        return "cap", (
            f"The tail ends near the cap 1 {over}: {found}, all of it within {band:.2g} of 1, a fourth of 1 - u. "
            "A power law of the shortfall fits this tail."
        )
    if CAP + band < low:
        return "beyond", (
            f"The fit ends beyond 1 {over}, where no similarity is: {found}. The tail is not yet that of its end; "
            "nothing speaks for a power law at the cap."
        )
    if high < CAP - band and best.shape_interval.high >= STEEP:
        return "unsettled", (
            f"The fit ends below 1 {over}, {found}, but with xi so near 0 tails of the cap are fitted so too. "
            "Not settled where it ends."
        )
    if high < CAP - band and (deeper is None or deeper.best.endpoint_interval.high < CAP):
        return "short", f"The tail ends at {_short(best.endpoint)} {over}, below the cap 1: {found}."
    return "unsettled", (
        f"The tail ends {over}, {found}, which is neither near the cap 1 (within {band:.2g}, a fourth of 1 - u) nor "
        "clear of it. Not settled where it ends."
    )


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
        notes.append(
            f"Over the higher threshold {_place(deeper.threshold)} ({deeper.n:,} pairs): xi = {deeper.best.shape:.2f}, "
            f"{_ends(deeper)}."
        )
    return [*notes, NO_PROMISE]


def _reaches(tail: Tail, place: float) -> bool:
    """Whether the interval of the end comes near to a place."""
    low, high = tail.best.endpoint_interval
    margin = NEAR * (CAP - tail.threshold)
    return low - margin <= place <= high + margin


def _over(tail: Tail) -> str:
    return f"over this threshold, {_place(tail.threshold)}"


def _shape(tail: Tail) -> str:
    low, high = tail.best.shape_interval
    return f"xi = {tail.best.shape:.2f} [{low:.2f}, {high:.2f}]"


def _ends(tail: Tail) -> str:
    low, high = tail.best.endpoint_interval
    return f"endpoint {_place(tail.best.endpoint)} [{_place(low)}, {_place(high)}]"


def _place(value: float) -> str:
    if np.isinf(value):
        return "none"
    return f"{value:.3f}" if abs(CAP - value) >= 0.0005 else f"{value:.5f}"  # which side of the cap


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 0.99 else _place(value)
