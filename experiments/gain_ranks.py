"""Does a measure predict a gain? Rank correlations over tables, permutation p-values, signs by a threshold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from weince.lab.intervals import holm
from weince.shell.words import count

__all__ = ["permutation_p", "ranks_of", "sign_share", "sign_share_left_out", "spearman", "told"]

DRAWS = 20_000
LEVEL = 0.05
FEWEST = 4
"""Tables: of three, no order is rarer than one in three."""


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation, ties sharing the mean of their ranks; NaN where either is constant."""
    return float(_correlation(_standard(x), _standard(y)[None])[0])


def permutation_p(x: Sequence[float], y: Sequence[float], draws: int = DRAWS) -> float:
    """Two-sided p-value of no association: how many orders of y correlate as much, of all, or of `draws` and the own.

    The least that n tables can give is about 2 / n!.
    """
    one, other = _standard(x), _standard(y)
    if math.factorial(len(other)) <= draws:
        orders = np.array(list(itertools.permutations(other)))
    else:
        rng = np.random.default_rng(0)
        orders = np.vstack([other, rng.permuted(np.tile(other, (draws, 1)), axis=1)])
    own = abs(_correlation(one, other[None])[0])
    return float(np.mean(np.abs(_correlation(one, orders)) >= own - 1e-9))


def _standard(values: Sequence[float]) -> np.ndarray:
    ranks = rankdata(np.asarray(values, float))
    spread = ranks.std()
    return (ranks - ranks.mean()) / spread if spread > 0 else np.full(len(ranks), np.nan)


def _correlation(x: np.ndarray, orders: np.ndarray) -> np.ndarray:
    return orders @ x / len(x)


def sign_share(x: Sequence[float], gain: Sequence[float]) -> float:
    """Share of tables whose sign the best threshold tells, chosen on these very tables: at least that of one sign."""
    places = rankdata(x)
    return float(_right(_upper(places, places), _up(gain)).max())


def sign_share_left_out(x: Sequence[float], gain: Sequence[float]) -> float:
    """Share of tables whose sign is told by the threshold that is best on the others; the mean of equally good ones."""
    up, places, told = _up(gain), rankdata(x), []
    for at in range(len(places)):
        others = np.arange(len(places)) != at
        scores = _right(_upper(places[others], places[others]), up[others])
        says_up = _upper(places[others], places[[at]])[scores == scores.max(), 0].mean()
        told.append(1 - abs(says_up - up[at]))
    return float(np.mean(told))


def _up(gain: Sequence[float]) -> np.ndarray:
    return (np.asarray(gain, float) > 0).astype(float)


def _upper(known: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Whether values `at` lie above each threshold between known values (a half on it), then whether below."""
    values = np.unique(known)
    cuts = np.append((values[1:] + values[:-1]) / 2, np.inf)
    above = (np.sign(at[None] - cuts[:, None]) + 1) / 2
    return np.concatenate([above, 1 - above])


def _right(said: np.ndarray, up: np.ndarray) -> np.ndarray:
    return 1 - np.abs(said - up).mean(axis=1)


def ranks_of(
    rows: Sequence[Mapping[str, Any]], measures: Sequence[str], forms: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Every measure against the gain of every form, the smallest p-value first.

    Args:
        rows: one a table.
        measures: columns.
        forms: form -> column of its gain.

    Returns:
        measure, form, tables, spearman, p, holm (over all that could be computed), sign shares, and the share of the
        commoner sign, which a threshold has to beat.
    """
    found = []
    for measure in measures:
        for form, column in forms.items():
            both = [(row[measure], row[column]) for row in rows
                    if row.get(measure) is not None and row.get(column) is not None]  # fmt: skip
            both = [one for one in both if not np.isnan(one).any()]
            x, gain = ([float(one[side]) for one in both] for side in (0, 1))
            if len(both) < FEWEST or len(set(x)) < 2 or len(set(gain)) < 2:
                continue
            up = float(_up(gain).mean())
            found.append({
                "measure": measure, "form": form, "tables": len(both), "spearman": spearman(x, gain),
                "p": permutation_p(x, gain), "sign_share": sign_share(x, gain),
                "sign_share_left_out": sign_share_left_out(x, gain), "commoner_sign": max(up, 1 - up),
            })  # fmt: skip
    for row, adjusted in zip(found, holm([row["p"] for row in found]), strict=True):
        row["holm"] = adjusted
    return sorted(found, key=lambda row: (row["p"], -abs(row["spearman"])))


def told(ranks: Sequence[Mapping[str, Any]], tables: int, sets: int) -> str:
    """What that allows one to say."""
    over = f"over {count(tables, 'table')} of {count(sets, 'data set')}"
    if not ranks:
        return f"Nothing can be said {over}: a rank correlation takes {FEWEST} tables with different values."
    best, shown = ranks[0], [row for row in ranks if row["holm"] <= LEVEL]
    text = (
        f"{best['measure']} against the gain of {best['form']}: Spearman's {best['spearman']:+.2f}, p = "
        f"{best['p']:.2g}, {best['holm']:.2g} after Holm's correction for {count(len(ranks), 'correlation')}; a "
        f"threshold chosen on the other tables tells the sign of {best['sign_share_left_out']:.0%} of them, the "
        f"commoner sign alone {best['commoner_sign']:.0%}"
    )
    if not shown:
        return f"No measure is shown to predict a gain, {over}. The nearest is {text}."
    names = "; ".join(f"{row['measure']} of {row['form']}" for row in shown)
    return f"After the correction {len(shown)} of {len(ranks)} correlations are left, {over}: {names}. First {text}."
