"""The result: the temperature each loss is given, and how the chosen runs compare on the test split, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from weince.lab.intervals import Interval, paired, sentence
from weince.lab.tasks.recipe import PAPER_TEMPERATURE, REFERENCE, Loss, Recipe, Run
from weince.shell.errors import UserError

__all__ = ["METRICS", "NAMES", "Row", "choose", "judge", "tidy"]

NAMES: dict[str, str] = {
    "infonce": "InfoNCE",
    "weince": "WEINCE",
    "weince-released": "WEINCE released",
    "dcl": "DCL",
    "hard-negatives": "hard negatives",
    "matched-temperature": "matched temperature",
}
METRICS: dict[str, str] = {
    "linear_accuracy": "linear accuracy",
    "knn_accuracy": "kNN accuracy",
    "recall_at_1": "recall@1",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "recall_at_20": "recall@20",
}
Scored = Mapping[Run, Mapping[str, Any]]


class Row(NamedTuple):
    """One line of the table: a loss at one temperature, chosen on validation ("tuned") or the paper's ("published")."""

    loss: Loss
    temperature: float
    kind: str

    @property
    def label(self) -> str:
        """As a reader sees it."""
        return f"{NAMES[self.loss]} at {self.temperature:g} ({self.kind})"

    def runs(self, recipe: Recipe) -> list[Run]:
        """Its runs, one per seed."""
        return [Run(self.loss, self.temperature, seed) for seed in recipe.seeds]


def choose(recipe: Recipe, validation: Scored) -> list[Row]:
    """Each loss at its best temperature by the mean validation score over seeds, after InfoNCE at the paper's 0.5.

    Args:
        recipe: names the score and the grid, the same for every loss.
        validation: of every run of the recipe. A run that diverged scores 0.

    Raises:
        UserError: a loss diverged at every temperature.
    """
    rows = []
    for loss in recipe.losses:
        mean = {t: _mean(recipe, validation, Row(loss, t, "tried"), recipe.select_by) for t in recipe.temperatures}
        best = Row(loss, max(mean, key=lambda t: mean[t]), "tuned")
        if any(validation[run].get("diverged") for run in best.runs(recipe)):
            raise UserError(f"{NAMES[loss]} diverged at every temperature that was tried: lower `learning_rate`.")
        rows.append(best)
    rows.sort(key=lambda row: row.loss != REFERENCE)
    published = Row(REFERENCE, PAPER_TEMPERATURE, "published")
    tried = [validation[run] for run in published.runs(recipe) if run in validation]
    if tried and rows[0].temperature != PAPER_TEMPERATURE and not any(scored.get("diverged") for scored in tried):
        rows.insert(0, published)
    return rows


def judge(recipe: Recipe, rows: list[Row], validation: Scored, tested: Scored) -> dict[str, Any]:
    """Everything a report says of the chosen rows.

    Args:
        recipe: of the comparison.
        rows: from `choose`.
        validation: of every run.
        tested: of the runs of `rows`.

    Returns:
        Rows with their mean and standard deviation over seeds, paired differences with t-intervals, the sentences that
        sum them up, and a warning for every loss that was best at an end of the grid.
    """
    tuned = next(row for row in rows if row.loss == REFERENCE and row.kind == "tuned")
    pairs = [(row, tuned) for row in rows if row.loss != REFERENCE]
    # What temperature alone gives, and how a gain looks from a reference that was not tuned.
    pairs += [(row, rows[0]) for row in rows if rows[0].kind == "published" and row is not rows[0]]
    differences = [_difference(recipe, tested, row, other, metric) for row, other in pairs for metric in METRICS]
    return {
        "rows": [
            {
                **row._asdict(),
                "label": row.label,
                "mean": {metric: _mean(recipe, tested, row, metric) for metric in METRICS},
                "sd": {metric: _deviation(recipe, tested, row, metric) for metric in METRICS},
            }
            for row in rows
        ],
        "differences": differences,
        "sentences": [
            sentence(
                d["of"]["label"],
                d["minus"]["label"],
                METRICS[recipe.select_by],
                Interval(d["mean"], d["low"], d["high"]),
                len(recipe.seeds),
            )
            for d in differences
            if d["minus"]["kind"] == "tuned" and d["metric"] == recipe.select_by
        ],
        "warnings": _warnings(recipe, rows, validation),
        "validation": [{**run._asdict(), **found} for run, found in validation.items()],
        "test": [{**run._asdict(), **found} for run, found in tested.items()],
    }


def tidy(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a score: loss, temperature, seed, split, metric, value."""
    return [
        {**{name: run[name] for name in Run._fields}, "split": split, "metric": metric, "value": value}
        for split in ("validation", "test")
        for run in result[split]
        for metric, value in run["scores"].items()
    ]


def _by_seed(recipe: Recipe, scored: Scored, row: Row, other: Row, metric: str) -> list[float]:
    pairs = zip(row.runs(recipe), other.runs(recipe), strict=True)
    return [scored[a]["scores"][metric] - scored[b]["scores"][metric] for a, b in pairs]


def _difference(recipe: Recipe, tested: Scored, row: Row, other: Row, metric: str) -> dict[str, Any]:
    by_seed = _by_seed(recipe, tested, row, other, metric)
    interval: Interval = paired(by_seed)
    return {
        "of": {**row._asdict(), "label": row.label},
        "minus": {**other._asdict(), "label": other.label},
        "label": f"{row.label} − {other.label}",
        "metric": metric,
        "by_seed": by_seed,
        **interval._asdict(),
    }


def _values(recipe: Recipe, scored: Scored, row: Row, metric: str) -> list[float]:
    return [scored[run]["scores"][metric] for run in row.runs(recipe)]


def _mean(recipe: Recipe, scored: Scored, row: Row, metric: str) -> float:
    return float(np.mean(_values(recipe, scored, row, metric)))


def _deviation(recipe: Recipe, scored: Scored, row: Row, metric: str) -> float | None:
    values = _values(recipe, scored, row, metric)
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _warnings(recipe: Recipe, rows: list[Row], validation: Scored) -> list[str]:
    ends = (min(recipe.temperatures), max(recipe.temperatures))
    found = [
        f"{NAMES[row.loss]} was best at {row.temperature:g}, an end of the temperature grid: "
        "a wider grid may serve it better."
        for row in rows
        if row.kind == "tuned" and row.temperature in ends and len(recipe.temperatures) > 1
    ]
    if len(recipe.temperatures) == 1:
        found.append("One temperature was tried: no loss is tuned.")
    if PAPER_TEMPERATURE not in recipe.temperatures:
        found.append(f"InfoNCE at the paper's {PAPER_TEMPERATURE:g} is not shown: the grid leaves it out.")
    missed = sum(not scored["probe"]["converged"] for scored in validation.values())
    if missed:
        found.append(f"{missed} of {len(validation)} linear probes stopped before they had converged.")
    diverged = [run.slug for run, scored in validation.items() if scored.get("diverged")]
    if diverged:
        found.append(f"{len(diverged)} runs diverged and count as 0: {', '.join(diverged)}.")
    origins = {(m["commit"], m["device"], m["torch"]) for m in (s["made"] for s in validation.values() if "made" in s)}
    if len(origins) > 1:
        told = "; ".join(" on ".join(map(str, origin[:2])) for origin in sorted(origins, key=str))
        found.append(f"The runs were not all made alike: {told}.")
    return found
