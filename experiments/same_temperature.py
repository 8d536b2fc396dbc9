"""What does a swap do? The losses with a temperature at the one that was chosen for InfoNCE, nothing else changed.

    python experiments/same_temperature.py SHARED_DATA NAME ... [--output runs] [--source runs]

A table tunes each loss by validation scores from two seeds, so a difference holds what the choice of a temperature did
by luck too. Here the recipe of a finished table (SOURCE/NAME/result.json or results/NAME.json) is trained with all
losses at one temperature, from the seeds that the table reports. same_temperature.csv has a row a table and loss.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaderboard import TABLES
from over_training import REFERENCE, recipe_of, rows_of, table, trained

from weince.shell.files import write_csv

OUT = Path(__file__).with_name("same_temperature.csv")
LOSSES = (REFERENCE, "weince", "endpoint", "cautious", "dcl", "cautious-dcl")
COLUMNS = ("table", "metric", "temperature", "loss", "score", "difference", "low", "high", "p", "seeds", "commit")


def arms_at(temperature: float) -> dict[str, dict[str, Any]]:
    """An arm of one setting for each loss."""
    return {loss: {"loss": loss, "temperature": temperature} for loss in LOSSES}


def rows(name: str, result: Mapping[str, Any], temperature: float) -> list[dict[str, Any]]:
    """A row a loss: mean test score, and its difference to InfoNCE with interval and p, in points."""
    metric, found = result["select_by"], rows_of(result)
    told = {one["arm"]: one for one in result["differences"] if one["metric"] == metric and one["to"] != "usual"}
    made: list[dict[str, Any]] = []
    for loss in LOSSES:
        scores = found[loss]["by_seed"][metric]
        row = {"table": name, "metric": metric, "temperature": temperature, "loss": loss, "seeds": len(scores),
               "score": 100 * sum(scores) / len(scores), "commit": result["made"]["commit"]}  # fmt: skip
        if loss != REFERENCE:
            bounds = {"difference": told[loss]["mean"], "low": told[loss]["low"], "high": told[loss]["high"]}
            row |= {name: 100 * bound for name, bound in bounds.items()} | {"p": told[loss]["p"]}
        made.append(row)
    return made


def main() -> None:
    """Every table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="+", choices=list(TABLES), metavar="NAME")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--source", type=Path, help="folder of the finished tables, where it is another than OUTPUT")
    parser.add_argument("--workers", default="1")
    asked = parser.parse_args()
    for name in asked.names:
        held = table(name, asked.source or asked.output)
        temperature = rows_of(held)[REFERENCE]["settings"]["temperature"]
        recipe = recipe_of(held, 1, held["seeds"], arms_at(temperature), f"{name}-same-temperature")
        result = trained(recipe, asked.data / TABLES[name].data, asked.output, asked.workers)
        kept: list[dict[str, Any]] = []
        if OUT.exists():
            with OUT.open(newline="") as file:
                kept = [row for row in csv.DictReader(file) if row["table"] != name]
        new = [{key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}
               for row in rows(name, result, temperature)]  # fmt: skip
        write_csv(OUT, [{key: row.get(key, "") for key in COLUMNS} for row in (*kept, *new)])
        print("\n".join(str(row) for row in new), flush=True)


if __name__ == "__main__":
    main()
