"""The paper's table and ours: for every published row, and every recipe beside them, what was found, from what, or why
not.

    <runs>/*.toml                   recipes of `weince compare`, `weince study` and `weince simcse`
    <runs>/<name>/result.json       what they found (study.json that of a study)
    <runs>/done/<name>/...          the same, of others, where <runs>/<name> has none
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from weince.lab.data.sets import LAYOUTS, find
from weince.lab.engine.plan import Plan, read_plan
from weince.lab.intervals import Interval, paired
from weince.lab.reproduction.published import Published, published
from weince.lab.tasks.recipe import Data, Loss, Recipe, read
from weince.lab.tasks.text_recipe import TextRecipe
from weince.shell.errors import UserError
from weince.shell.files import read_json

__all__ = ["COMPARED", "Line", "Score", "collected", "tidy_lines"]

COMPARED: tuple[Loss, ...] = ("infonce", "weince", "weince-released")
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
"""(protocol, metric) of a recipe that has no published row."""
Kind = Recipe | Plan | TextRecipe


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
    """A finished comparison: (protocol, metric) -> loss -> (temperature, scores by seed)."""

    benchmark: str
    encoder: str
    scores: dict[tuple[str, str], dict[str, tuple[float, list[float]]]]
    budget: str
    made: Mapping[str, Any]


def collected(folder: Path, data_dir: Path) -> tuple[list[Line], list[Line]]:
    """The lines of the table.

    Args:
        folder: of recipes and results.
        data_dir: folder of the sets of images, as `weince data` unpacks them or each in a folder of its name.

    Returns:
        Those of the published rows, those of one recipe together, and those of all other recipes and results, by name.

    Raises:
        UserError: no such folder, or a recipe or result in it that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"Option RUNS: should be a folder of recipes and results. Found no folder {folder}.")
    recipes = {_own(recipe).name: recipe for recipe in map(_recipe, sorted(folder.glob("*.toml")))}
    paths = {
        path.parent.name: path
        for pattern in ("done/*/study.json", "done/*/result.json", "*/study.json", "*/result.json")
        for path in sorted(folder.glob(pattern))
    }
    names = list(dict.fromkeys(row.recipe for row in published()))
    rows = sorted(published(), key=lambda row: names.index(row.recipe))
    known = [_line(row.recipe, "published", row.metric, row, recipes, paths, folder, data_dir) for row in rows]
    others = []
    for name in sorted((set(recipes) | set(paths)) - set(names)):
        those = [_line(name, *shown, None, recipes, paths, folder, data_dir) for shown in SHOWN]
        others += [line for line in those if line.scores] or those[:1]
    return known, others


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


def _recipe(path: Path) -> Kind:
    settings = read(path)
    if "study" in settings:
        return read_plan(path, {})
    return Recipe(**settings) if "data" in settings else TextRecipe(**settings)


def _own(recipe: Kind) -> Recipe | TextRecipe:
    return recipe.recipe if isinstance(recipe, Plan) else recipe


def _line(
    name: str,
    protocol: str,
    metric: str,
    row: Published | None,
    recipes: Mapping[str, Kind],
    paths: Mapping[str, Path],
    folder: Path,
    data_dir: Path,
) -> Line:
    recipe = recipes.get(name)
    try:
        found, unread = (_found(paths[name], recipe) if name in paths else None), ""
    except UserError as error:
        found, unread = None, str(error)
    if metric == "spearman":
        protocol = "own"
    if found is None:
        benchmark, encoder = (row.benchmark, row.encoder) if row else _what(recipe)
        budget, because = (
            ("", f"{folder} has no recipe of it") if recipe is None else _missing(recipe, folder, data_dir)
        )
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


def _what(recipe: Kind | None) -> tuple[str, str]:
    own = recipe and _own(recipe)
    if own is None:
        return "", ""
    return ("stsb" if isinstance(own, TextRecipe) else own.data), own.encoder


def _missing(recipe: Kind, folder: Path, data_dir: Path) -> tuple[str, str]:
    """What a recipe would take, and why it was not run."""
    own = _own(recipe)
    if isinstance(recipe, Plan):
        runs, command = sum(recipe.count(arm) for arm in recipe.arms) * len(own.seeds), "study"
    else:
        runs = len(recipe.losses) * len(recipe.temperatures) * len(recipe.seeds)
        command = "compare" if isinstance(recipe, Recipe) else "simcse"
    name = own.name
    amount = _sentences(own) if isinstance(own, TextRecipe) else f"{_images(own):,} images"
    budget = f"{amount}, {own.epochs} epochs, {runs} runs"
    began = [*(folder / name / "runs").glob("*/validation.json"), *(folder / name / "runs").glob("*/scores.json")]
    if began:
        return budget, f"not finished: {len(began)} of {runs} runs"
    reasons = []
    if (own.precision == "bf16-mixed" or own.device == "cuda") and not torch.cuda.is_available():
        reasons.append("it is for a GPU, and there is none here")
    if isinstance(own, Recipe) and own.data in LAYOUTS and not _held(own.data, data_dir):
        reasons.append(f"{data_dir} holds no {own.data}")
    return budget, "; ".join(reasons) or f"it was not started (weince {command} {folder / name}.toml)"


def _held(data: Data, folder: Path) -> bool:
    return any(find(data, place) for place in (folder, folder / data, folder / data.replace("-", "_")))


def _images(recipe: Recipe) -> int:
    if recipe.data == "stl10":
        return recipe.pretrain_subset or IMAGES["stl10"]
    count = recipe.subset or IMAGES.get(recipe.data, 0)
    return count if recipe.pretrain_on != "training" else round(count * (1 - recipe.validation_fraction))


def _sentences(recipe: TextRecipe) -> str:
    return f"{recipe.subset:,} sentences" if recipe.subset else "all sentences"


def _found(path: Path, recipe: Kind | None) -> _Found:
    result = read_json(path)
    try:
        if path.name == "study.json":
            return _of_study(result)
        return _of_text(result) if "text" in result else _of_images(result, recipe)
    except (KeyError, TypeError, StopIteration) as error:
        raise UserError(f"{path} is not a result that this version reads: it lacks {error}") from None


def _of_images(result: Mapping[str, Any], recipe: Kind | None) -> _Found:
    asked = result["recipe"]
    scores: dict[tuple[str, str], dict[str, tuple[float, list[float]]]] = {}
    for row in _tuned(result):
        for seed in asked["seeds"]:
            run = _run(result["test"], row, seed)
            for protocol, by_metric in {"own": run["scores"], **run.get("protocols", {})}.items():
                for metric, value in by_metric.items():
                    scores.setdefault((protocol, metric), {}).setdefault(row["loss"], (row["temperature"], []))[
                        1
                    ].append(value)
    runs = result["validation"]
    budget = f"{result['images']['pretraining']:,} images, {asked['epochs']} epochs, {len(runs)} runs"
    budget += _hours(sum(run["train_seconds"] for run in runs))
    if isinstance(recipe, Recipe):
        other = [text.split(":")[0] for text in Recipe(**asked).differences(recipe)]
        budget += f"; other than the recipe: {', '.join(other)}" if other else ""
    return _Found(asked["data"], asked["encoder"], scores, budget, result["made"])


def _of_study(result: Mapping[str, Any]) -> _Found:
    asked, arms = result["plan"]["recipe"], result["plan"]["arms"]
    scores: dict[tuple[str, str], dict[str, tuple[float, list[float]]]] = {}
    for row in result["rows"]:
        loss = arms[row["arm"]]["loss"]
        for metric, values in row["by_seed"].items():
            # Of several arms with one loss the first that is tuned.
            if row["tuned"] and loss not in (those := scores.setdefault(("own", metric), {})):
                those[loss] = (row["settings"].get("temperature"), values)
    count = _images(Recipe(**asked))
    budget = f"{count:,} images, {asked['epochs']} epochs, {len(result['tried'])} runs"
    budget += _hours(sum(run["seconds"] for run in result["tried"]))
    return _Found(asked["data"], asked["encoder"], scores, budget, result["made"])


def _of_text(result: Mapping[str, Any]) -> _Found:
    asked = result["recipe"]
    by_loss = {
        row["loss"]: (row["temperature"], [_run(result["test"], row, seed)["spearman"] for seed in asked["seeds"]])
        for row in _tuned(result)
    }
    budget = f"{result['text']['sentences']:,} sentences, {asked['epochs']} epochs, {len(result['dev'])} runs"
    budget += _hours(sum(run["train_seconds"] for run in result["dev"]))
    return _Found("stsb", asked["encoder"], {("own", "spearman"): by_loss}, budget, result["made"])


def _tuned(result: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (row for row in result["rows"] if row["kind"] == "tuned")


def _run(runs: list[Mapping[str, Any]], row: Mapping[str, Any], seed: int) -> Mapping[str, Any]:
    wanted = (row["loss"], row["temperature"], seed)
    return next(run for run in runs if (run["loss"], run["temperature"], run["seed"]) == wanted)


def _hours(seconds: float) -> str:
    return f", {seconds / 3600:.1f} h" if seconds >= 3600 else f", {seconds / 60:.0f} min"
