"""The result of SimCSE: the temperature that dev pairs give each loss, and the chosen runs compared on test pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from weince.lab.engine.result import NAMES, Row
from weince.lab.intervals import Interval, paired, sentence
from weince.lab.reproduction.published import published
from weince.lab.tasks.recipe import REFERENCE, Run
from weince.lab.tasks.text_recipe import SIMCSE_TEMPERATURE, TextRecipe
from weince.shell.errors import UserError

__all__ = ["METRIC", "choose_text", "judge_text", "tidy_text"]

METRIC = "STS-B Spearman"
UNTRAINED = "the untrained encoder"
Scored = Mapping[Run, Mapping[str, Any]]


def choose_text(recipe: TextRecipe, dev: Scored) -> list[Row]:
    """Each loss at its best temperature by mean dev Spearman over seeds, after InfoNCE at SimCSE's 0.05.

    Args:
        recipe: names the grid, the same for every loss.
        dev: of every run. One that diverged cannot be chosen, nor can its temperature.

    Raises:
        UserError: a loss diverged at every temperature.
    """
    rows = []
    for loss in recipe.losses:
        tried = [Row(loss, temperature, "tuned") for temperature in recipe.temperatures]
        whole = [row for row in tried if not any(dev[run]["diverged"] for run in _runs(recipe, row))]
        if not whole:
            raise UserError(f"{NAMES[loss]} diverged at every temperature that was tried: lower `learning_rate`.")
        rows.append(max(whole, key=lambda row: _mean(recipe, dev, row)))
    rows.sort(key=lambda row: row.loss != REFERENCE)
    published = Row(REFERENCE, SIMCSE_TEMPERATURE, "SimCSE's")
    tried = [dev[run] for run in _runs(recipe, published) if run in dev]
    if tried and rows[0].temperature != SIMCSE_TEMPERATURE and not any(scored["diverged"] for scored in tried):
        rows.insert(0, published)
    return rows


def judge_text(
    recipe: TextRecipe, rows: list[Row], dev: Scored, test: Scored, untrained: Mapping[str, float]
) -> dict[str, Any]:
    """Everything a report says of the chosen rows.

    Args:
        recipe: of the comparison.
        rows: from `choose_text`.
        dev: of every run.
        test: of the runs of `rows`.
        untrained: dev and test Spearman of the encoder before training, which is one number for all seeds.

    Returns:
        Rows with mean, t-interval and standard deviation over seeds; differences, paired by seed, to tuned InfoNCE, to
        InfoNCE at SimCSE's temperature, and of each row to the untrained encoder; sentences; warnings.
    """
    # Which encoder, sentences and temperature the published row is of is not known to us.
    known = next(row.estimates for row in published() if row.benchmark == "stsb")
    tuned = next(row for row in rows if row.loss == REFERENCE and row.kind == "tuned")
    pairs = [(row, tuned) for row in rows if row.loss != REFERENCE]
    pairs += [(row, rows[0]) for row in rows if rows[0].kind != "tuned" and row is not rows[0]]
    differences = [
        _difference(row, other.label, other.kind, np.subtract(_values(recipe, test, row), _values(recipe, test, other)))
        for row, other in pairs
    ]
    differences += [
        _difference(row, UNTRAINED, "untrained", np.subtract(_values(recipe, test, row), untrained["test"]))
        for row in rows
    ]
    return {
        "rows": [{**row._asdict(), "label": row.label, **_summary(recipe, row, dev, test)} for row in rows],
        "untrained": dict(untrained),
        "published": {loss: {"mean": mean, "half_width": half} for loss, (mean, half) in known.items()},
        "differences": differences,
        "sentences": [
            _capitalised(
                sentence(d["of"], d["minus"], METRIC, Interval(d["mean"], d["low"], d["high"]), len(recipe.seeds))
            )
            for d in differences
            if d["to"] in ("tuned", "untrained") and not d["of"].endswith("(SimCSE's)")
        ],
        "warnings": _warnings(recipe, rows, dev, untrained),
        "dev": [{**run._asdict(), **found} for run, found in dev.items()],
        "test": [{**run._asdict(), **found} for run, found in test.items()],
    }


def tidy_text(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a score: loss, temperature, seed, split, value; the untrained encoder has neither of the first three."""
    rows = [
        {"loss": "untrained", "temperature": None, "seed": None, "split": split, "spearman": result["untrained"][split]}
        for split in ("dev", "test")
    ]
    return rows + [
        {**{name: run[name] for name in Run._fields}, "split": split, "spearman": run["spearman"]}
        for split in ("dev", "test")
        for run in result[split]
    ]


def _runs(recipe: TextRecipe, row: Row) -> list[Run]:
    return [Run(row.loss, row.temperature, seed) for seed in recipe.seeds]


def _values(recipe: TextRecipe, scored: Scored, row: Row) -> list[float]:
    return [scored[run]["spearman"] for run in _runs(recipe, row)]


def _mean(recipe: TextRecipe, scored: Scored, row: Row) -> float:
    return float(np.mean(_values(recipe, scored, row)))


def _summary(recipe: TextRecipe, row: Row, dev: Scored, test: Scored) -> dict[str, Any]:
    values = _values(recipe, test, row)
    found = paired(values)  # the same t-interval, of the values themselves
    return {
        "dev": _mean(recipe, dev, row),
        **found._asdict(),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
    }


def _difference(row: Row, minus: str, to: str, by_seed: np.ndarray) -> dict[str, Any]:
    found = paired(by_seed.tolist())
    return {"of": row.label, "minus": minus, "to": to, "by_seed": by_seed.tolist(), **found._asdict()}


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _warnings(recipe: TextRecipe, rows: list[Row], dev: Scored, untrained: Mapping[str, float]) -> list[str]:
    ends = (min(recipe.temperatures), max(recipe.temperatures))
    found = [
        f"{NAMES[row.loss]} was best at {row.temperature:g}, an end of the temperature grid: "
        "a wider grid may serve it better."
        for row in rows
        if row.kind == "tuned" and row.temperature in ends and len(recipe.temperatures) > 1
    ]
    if len(recipe.temperatures) == 1:
        found.append("One temperature was tried: no loss is tuned.")
    if all(_mean(recipe, dev, row) < untrained["dev"] for row in rows if row.kind == "tuned"):
        found.append(
            "On the dev pairs no loss at any temperature is above the untrained encoder: this compares how much "
            "each takes away."
        )
    diverged = [run.slug for run, scored in dev.items() if scored["diverged"]]
    if diverged:
        found.append(f"{len(diverged)} runs diverged and their temperature is out: {', '.join(diverged)}.")
    origins = {(made["commit"], made["device"], made["torch"]) for made in (scored["made"] for scored in dev.values())}
    if len(origins) > 1:
        told = "; ".join(" on ".join(map(str, origin[:2])) for origin in sorted(origins, key=str))
        found.append(f"The runs were not all made alike: {told}.")
    return found
