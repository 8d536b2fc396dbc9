"""Does a gain last? Finished tables once more, at several times their epochs.

    python experiments/over_training.py SHARED_DATA NAME ... [--lengths 3 10] [--seeds 1 2 3] [--output runs]

Each of FORMS, and the best other loss by validation score, keeps the settings chosen in the table NAME (of
OUTPUT/NAME/result.json or results/NAME.json) and is trained by the same recipe at 1, 3 and 10 times the epochs, with
about 30 looks at the validation data. results/NAME-x3.json and NAME-x10.json are what the leaderboard draws as the gain
over training. The run at length 1 stays in OUTPUT/NAME-x1: the table has its scores, it adds the curves.

over_training.csv: when does each loss first reach the validation score with which InfoNCE of the same seed ends at
length 1? Means are over the seeds that do, ratios over those of which InfoNCE does too: where `reached` is below
`seeds` they flatter the loss.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from leaderboard import NEVER, RESULTS, TABLES

from weince.lab.engine.recipe import Comparison
from weince.lab.intervals import paired
from weince.lab.pages.board import loss_of
from weince.lab.settings import write
from weince.lab.tasks import recipe_class
from weince.shell.files import read_json, write_json, write_text

OUT = Path(__file__).with_name("over_training.csv")
REFERENCE = "infonce"
FORMS = (REFERENCE, "weince", "endpoint", "cautious", "cautious-dcl", "weibit")
LOOKS = 30
COLUMNS: tuple[str, ...] = (
    "table", "times", "loss", "seeds", "reached", "share", "epochs", "pairs", "ratio", "low", "high", "commit",
)  # fmt: skip
REPLACED = {"losses", "temperatures", "arms", "seeds", "confirm_seeds", "sampler", "draws", "widen", "name"}
"""Settings of a table that its longer runs do not share."""
Steps = dict[str, dict[int, float | None]]
"""Loss -> seed -> share of the training; None where a score is never reached."""


def rows_of(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Loss -> its row: of several the one with most settings; neither the usual setting nor arms that follow others."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in sorted(result["rows"], key=lambda one: one["tried"]):
        if row["kind"] not in ("usual", "follows"):
            found[loss_of(row["arm"])] = row
    return found


def arms_of(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arms of one setting each, the one that was chosen: FORMS, and the best other loss by validation score."""
    rows, metric = rows_of(result), result["select_by"]
    others = [loss for loss in rows if loss not in (*FORMS, *NEVER) and rows[loss]["validation"]]
    best = sorted(others, key=lambda loss: rows[loss]["validation"][metric])[-1:]
    return {loss: {"loss": rows[loss]["loss"], **rows[loss]["settings"]} for loss in (*FORMS, *best) if loss in rows}


def between_looks(epochs: int) -> int:
    """Epochs between looks: about LOOKS of them, evenly, the last one at the end.

    Examples:
        >>> [between_looks(epochs) for epochs in (30, 160, 15, 7)]
        [1, 5, 1, 1]
    """
    even = [step for step in range(1, epochs + 1) if epochs % step == 0]
    return min(even, key=lambda step: abs(np.log(step * LOOKS / epochs)))


def recipe_of(
    result: Mapping[str, Any], times: int, seeds: Sequence[int], arms: Mapping[str, Any], name: str
) -> Comparison:
    """The recipe of a table, `times` as long, with other arms of one setting each."""
    kind = recipe_class(result["task"])
    settings = {key: value for key, value in result["settings"].items()
                if value is not None and key not in REPLACED | kind.PLACES}  # fmt: skip
    settings["epochs"] *= times
    if "validate_every" in kind.model_fields:
        settings["validate_every"] = between_looks(settings["epochs"])
    return kind(**settings, seeds=tuple(seeds), confirm_seeds=(), widen=0, arms=arms, name=name)


def as_kept(result: Mapping[str, Any], table: str, times: int) -> dict[str, Any]:
    """A result as results/ keeps it: without places on this machine, and told where its settings come from."""
    settings = recipe_class(result["task"])(**result["settings"]).told()
    fact = f"settings as chosen in {table}, at its own length; trained for {times} times its epochs"
    return {**result, "facts": [*result["facts"], fact], "settings": settings}


def ends_of(result: Mapping[str, Any]) -> dict[int, float]:
    """Seed -> validation score with which the chosen InfoNCE ends."""
    chosen = rows_of(result)[REFERENCE]
    return {run["seed"]: run["validation"][result["select_by"]] for run in _runs(result, chosen)}


def steps_to(result: Mapping[str, Any], score: float | Mapping[int, float]) -> Steps:
    """When each loss first reaches a validation score, as a share of its own training.

    Args:
        result: of a comparison with `validate_every`.
        score: one, or one a seed.
    """
    settings, found = result["settings"], {}
    for loss, row in rows_of(result).items():
        found[loss] = {}
        for run in _runs(result, row):
            needed = score[run["seed"]] if isinstance(score, Mapping) else score
            curve = run.get("curves", {}).get("validation", [])
            # Curves are kept to six digits.
            look = next((at for at, value in enumerate(curve, 1) if value >= needed - 1e-6), None)
            found[loss][run["seed"]] = look and look * settings["validate_every"] / settings["epochs"]
    return found


def _runs(result: Mapping[str, Any], row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The reported runs of a row."""
    return [run for run in result["runs"]
            if run["reported"] and (run["arm"], run["settings"]) == (row["arm"], row["settings"])]  # fmt: skip


def table_of(steps: Steps, epochs: int) -> list[dict[str, Any]]:
    """A row a loss: mean share and epochs, and the ratio to InfoNCE, a geometric mean over the seeds of `pairs`."""
    rows, reference = [], steps[REFERENCE]
    for loss, own in steps.items():
        reached = {seed: share for seed, share in own.items() if share is not None}
        row: dict[str, Any] = {"loss": loss, "seeds": len(own), "reached": len(reached)}
        if reached:
            share = float(np.mean(list(reached.values())))
            row |= {"share": share, "epochs": share * epochs}
        logs = [np.log(share / other) for seed, share in reached.items() if (other := reference.get(seed))]
        if loss != REFERENCE:
            row["pairs"] = len(logs)
        if loss != REFERENCE and logs:
            for key, bound in zip(("ratio", "low", "high"), paired(logs), strict=True):
                row[key] = None if bound is None else float(np.exp(bound))
        rows.append(row)
    return rows


def write_steps(rows: Sequence[Mapping[str, Any]], out: Path = OUT) -> None:
    """Rows into the file, in the place of those of the same table and length."""
    held: list[Mapping[str, Any]] = []
    if out.exists():
        with out.open(newline="") as file:
            held = list(csv.DictReader(file))
    new = {(row["table"], str(row["times"])) for row in rows}
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in [*(one for one in held if (one["table"], one["times"]) not in new), *rows]:
            writer.writerow({key: f"{v:.4g}" if isinstance(v, float) else v for key, v in row.items()})


def table(name: str, output: Path) -> dict[str, Any]:
    """The result of a finished table."""
    paths = (output / name / "result.json", RESULTS / f"{name}.json")
    return read_json(next((path for path in paths if path.is_file()), paths[0]))


def trained(recipe: Comparison, data: Path, output: Path, workers: str) -> dict[str, Any]:
    """Carry out a recipe; seconds where it is finished."""
    path = output / f"{recipe.name}.toml"
    write_text(path, "# Each loss with one setting, chosen in the table that this name begins with.\n" + write(recipe))
    command = ["compare", str(path), "--data-dir", str(data), "--output", str(output), "--workers", workers]
    subprocess.run([sys.executable, "-m", "weince", *command], check=True)
    return read_json(output / recipe.name / "result.json")


def lengthened(name: str, asked: argparse.Namespace) -> None:
    """Train a table at all lengths, and keep what they say."""
    held = table(name, asked.source or asked.output)
    seeds = asked.seeds or held["seeds"]
    curves = "validate_every" in recipe_class(held["task"]).model_fields
    if not curves:
        print(f"{name}: task {held['task']} keeps no validation curve, so nothing is said of its steps.")
    ends: dict[int, float] = {}
    for times in [1, *asked.lengths] if curves else asked.lengths:
        recipe = recipe_of(held, times, seeds, arms_of(held), f"{name}-x{times}")
        result = trained(recipe, asked.data / TABLES[name].data, asked.output, asked.workers)
        if times == 1:
            ends = ends_of(result)
        else:
            write_json(RESULTS / f"{name}-x{times}.json", as_kept(result, name, times))
        if curves:
            rows = table_of(steps_to(result, ends), result["settings"]["epochs"])
            whole = {"table": name, "times": times, "commit": result["made"]["commit"]}
            write_steps([{**whole, **row} for row in rows])
            print("\n".join(f"{name} x{times}: {row}" for row in rows), flush=True)


def main() -> None:
    """Every table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="+", choices=list(TABLES), metavar="NAME")
    parser.add_argument("--lengths", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--seeds", type=int, nargs="+", help="the reported seeds of the table when not given")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--source", type=Path, help="folder of the finished tables, where it is another than OUTPUT")
    parser.add_argument("--workers", default="1")
    asked = parser.parse_args()
    if 1 in asked.lengths or min(asked.lengths) < 1:
        parser.error("--lengths are above 1: length 1 is always run")
    for name in asked.names:
        lengthened(name, asked)


if __name__ == "__main__":
    main()
