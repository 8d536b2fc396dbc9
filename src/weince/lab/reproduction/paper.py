"""The paper's table and ours: for every published row, and every recipe beside them, what was found, from what, or why
not.

    recipes of the package          what each row needs
    <results>/<name>.json           what was found
    <runs>/<name>/result.json       what was found here, where there is nothing of that name
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from weince.lab.data.sets import LAYOUTS, find
from weince.lab.engine.recipe import Comparison
from weince.lab.intervals import Interval, paired
from weince.lab.published import Published, published
from weince.lab.tasks import NAMES, named, recipe_class, recipes
from weince.lab.tasks.recipe.images import ImagesRecipe
from weince.shell.errors import UserError
from weince.shell.files import read_json
from weince.shell.words import count

__all__ = ["COMPARED", "Line", "Score", "collected", "tidy_lines"]

TASKS = ("images", "sentences")
"""Of the paper."""
COMPARED = ("infonce", "weince", "weince-released")
IMAGES = {
    "digits": 1_797,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "stl10": 100_000,
    "imagenet32": 1_281_167,
    "tiny-imagenet": 100_000,
}
"""Images that a set has for pretraining, whole."""
SHOWN = (
    ("own", "linear_accuracy"), ("own", "recall_at_1"), ("published", "linear_accuracy"), ("published", "recall_at_1"),
    ("lightly", "linear_accuracy"), ("lightly", "knn_accuracy"), ("own", "spearman"),
)  # fmt: skip
"""(evaluation, metric) of a recipe that has no published row."""


class Score(NamedTuple):
    """What we found for a loss: the mean over seeds, its 95 % t-interval, and the temperature of its runs."""

    interval: Interval
    temperature: float
    seeds: int


class Line(NamedTuple):
    """A line of the table.

    Attributes:
        recipe: its name.
        benchmark: data.
        encoder: trained on it.
        metric: what is scored.
        protocol: "own" or one of the recipe's.
        published: the published row, or None.
        scores: loss -> what we found; empty where it was not run.
        differences: loss -> its differences to InfoNCE, paired by seed.
        budget: images, epochs and runs: those that were spent, or those that it would take.
        made: commit, device, versions and date of what we found.
        because: why it was not run; "" where it was.
    """

    recipe: str
    benchmark: str
    encoder: str
    metric: str
    protocol: str
    published: Published | None
    scores: dict[str, Score]
    differences: dict[str, Interval]
    budget: str
    made: Mapping[str, Any]
    because: str


class _Found(NamedTuple):
    """A finished comparison: (evaluation, metric) -> loss -> (temperature, scores by seed)."""

    benchmark: str
    encoder: str
    scores: dict[tuple[str, str], dict[str, tuple[float, list[float]]]]
    budget: str
    made: Mapping[str, Any]


def collected(results: Path, runs: Path, data_dir: Path) -> tuple[list[Line], list[Line]]:
    """The lines of the table.

    Args:
        results: folder of result files, NAME.json.
        runs: folder of comparisons carried out here, NAME/result.json.
        data_dir: folder of the sets of images, as `weince data` unpacks them or each in a folder of its name.

    Returns:
        Those of the published rows, those of one recipe together, and those of all other recipes and results, by name.

    Raises:
        UserError: no folder of results.
    """
    if not results.is_dir():
        raise UserError(f"Option RESULTS: should be a folder of results, NAME.json. Found no folder {results}.")
    known = {name: recipe for name in recipes() if (recipe := _recipe(name)).task in TASKS}
    paths = {path.parent.name: path for path in sorted(runs.glob("*/result.json"))}
    paths |= {path.stem: path for path in sorted(results.glob("*.json"))}
    paths = {name: path for name, path in paths.items() if not _of_another_task(path)}
    names = list(dict.fromkeys(row.recipe for row in published()))
    rows = sorted(published(), key=lambda row: names.index(row.recipe))
    of = [_line(row.recipe, "published", row.metric, row, known, paths, runs, data_dir) for row in rows]
    others = []
    for name in sorted((set(known) | set(paths)) - set(names)):
        those = [_line(name, *shown, None, known, paths, runs, data_dir) for shown in SHOWN]
        others += [line for line in those if line.scores] or those[:1]
    return of, others


def tidy_lines(lines: list[Line]) -> list[dict[str, Any]]:
    """A row a line, in points of per cent, for a CSV file."""

    def points(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 3)

    rows = []
    for line in lines:
        row: dict[str, Any] = {key: getattr(line, key) for key in ("recipe", "benchmark", "encoder", "metric")}
        for loss in ("infonce", "weince"):
            mean, half = line.published.estimates[loss] if line.published else (None, None)
            row |= {f"published_{loss}": points(mean), f"published_{loss}_half_width": points(half)}
        row["protocol"] = line.protocol
        for loss in COMPARED:
            score, difference = line.scores.get(loss), line.differences.get(loss)
            row |= {f"{loss}_temperature": score and score.temperature, f"{loss}_seeds": score and score.seeds}
            row |= {f"{loss}_{key}": score and points(getattr(score.interval, key)) for key in Interval._fields}
            if loss != "infonce":
                row |= {
                    f"{loss}_minus_infonce_{key}": difference and points(getattr(difference, key))
                    for key in Interval._fields
                }
        row |= {"budget": line.budget, **{key: line.made.get(key) for key in ("commit", "device", "torch", "date")}}
        rows.append({**row, "not_run_because": line.because})
    return rows


def _recipe(name: str) -> Comparison:
    settings = named(name)
    return recipe_class(settings["task"])(**settings)


def _line(
    name: str,
    protocol: str,
    metric: str,
    row: Published | None,
    known: Mapping[str, Comparison],
    paths: Mapping[str, Path],
    runs: Path,
    data_dir: Path,
) -> Line:
    recipe = known.get(name)
    try:
        found, unread = (_found(paths[name], recipe) if name in paths else None), ""
    except UserError as error:
        found, unread = None, str(error)
    if metric == "spearman":
        protocol = "own"
    if found is None:
        benchmark, encoder = (row.benchmark, row.encoder) if row else _what(recipe)
        budget, because = ("", "there is no recipe of it") if recipe is None else _missing(recipe, runs, data_dir)
        return Line(name, benchmark, encoder, metric, protocol, row, {}, {}, budget, {}, unread or because)
    scored = found.scores.get((protocol, metric), {})
    if not scored and protocol == "published" and row is not None:  # scored by our own protocol alone
        protocol = "own"
        scored = found.scores.get((protocol, metric), {})
    scores = {
        loss: Score(paired(values), temperature, len(values))
        for loss in COMPARED
        for temperature, values in [scored.get(loss, (0.0, []))]
        if values
    }
    differences = {
        loss: paired([a - b for a, b in zip(scored[loss][1], scored["infonce"][1], strict=True)])
        for loss in scores
        if loss != "infonce" and "infonce" in scores
    }
    because = "" if scores else f"its results have no {metric}"
    where = (name, found.benchmark, found.encoder, metric, protocol, row)
    return Line(*where, scores, differences, found.budget, found.made, because)


def _of_another_task(path: Path) -> bool:
    """Whether a result is of a task that the paper has not; one that cannot be read is refused later, by name."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("task") in set(NAMES) - set(TASKS)


def _what(recipe: Comparison | None) -> tuple[str, str]:
    """Benchmark and encoder."""
    if recipe is None:
        return "", ""
    return (recipe.data if isinstance(recipe, ImagesRecipe) else "stsb"), recipe.model_dump()["encoder"]


def _missing(recipe: Comparison, runs: Path, data_dir: Path) -> tuple[str, str]:
    """What a recipe would take, and why it was not run."""
    plan, told = recipe.plan(), recipe.model_dump()
    trials = sum(plan.count(arm) * len(plan.seeds) for arm in plan.arms if plan.arms[arm].follows is None)
    budget = f"{_amount(told)}, {count(told['epochs'], 'epoch')}, {count(trials, 'run')}"
    began = list((runs / recipe.name / "runs").glob("*/validation.json"))
    if began:
        return budget, f"not finished: {len(began)} of {count(trials, 'run')}"
    reasons = []
    if (told["precision"] == "bf16-mixed" or told["device"] == "cuda") and not torch.cuda.is_available():
        reasons.append("it is for a GPU, and there is none here")
    if isinstance(recipe, ImagesRecipe) and recipe.data in LAYOUTS:
        places = (data_dir, data_dir / recipe.data, data_dir / recipe.data.replace("-", "_"))
        if not any(find(recipe.data, place) for place in places):
            reasons.append(f"there is no {recipe.data} here")
    return budget, "; ".join(reasons) or f"it was not started (weince compare {recipe.name})"


def _amount(told: Mapping[str, Any]) -> str:
    if told["task"] == "sentences":
        return f"{told['subset']:,} sentences" if told.get("subset") else "all sentences"
    if told["data"] == "stl10":
        return f"{told.get('pretrain_subset') or IMAGES['stl10']:,} images"
    images = told.get("subset") or IMAGES.get(told["data"], 0)
    if told["pretrain_on"] == "training":
        images = round(images * (1 - told["validation_fraction"]))
    return f"{images:,} images"


def _found(path: Path, recipe: Comparison | None) -> _Found:
    result = read_json(path)
    try:
        asked = result["settings"]
        scores: dict[tuple[str, str], dict[str, tuple[float, list[float]]]] = {}
        for row in result["rows"]:
            if row["kind"] not in ("tuned", "one"):
                continue
            by = {("own", metric): values for metric, values in row["by_seed"].items()}
            for protocol in row["others"][0]:
                for metric in row["others"][0][protocol]:
                    by[protocol, metric] = [seed[protocol][metric] for seed in row["others"]]
            for key, values in by.items():
                # Of several arms with one loss the first that is tuned.
                scores.setdefault(key, {}).setdefault(row["loss"], (row["settings"].get("temperature"), values))
        seconds = sum(run["seconds"] for run in result["runs"])
        spent = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
        runs = count(len(result["runs"]), "run")
        budget = f"{_amount(asked)}, {count(asked['epochs'], 'epoch')}, {runs}, {spent}"
        if recipe is not None:
            now = recipe.told()
            other = [key for key in now if key not in recipe.FREE and now[key] != asked.get(key)]
            budget += f"; other than the recipe: {', '.join(other)}" if other else ""
        benchmark = asked["data"] if result["task"] == "images" else "stsb"
        return _Found(benchmark, asked["encoder"], scores, budget, result["made"])
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path.name} is not a result that this version reads: it lacks {error}") from None
