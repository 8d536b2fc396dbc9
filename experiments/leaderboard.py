"""The tables behind the leaderboard: every loss on every task that two cores can carry out, one result file each.

    python experiments/leaderboard.py SHARED_DATA [NAME ...] [--workers 2] [--output runs]

SHARED_DATA holds banking77, clinc150, multi30k, cifar10, tiny_imagenet and stsb. A table that was stopped goes on; a
finished one costs seconds. results/NAME.json is runs/NAME/result.json without the places of this machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from weince.lab.rivals import Setup, defined_for
from weince.lab.tasks import recipe_class
from weince.shell.files import read_json, write_json

RESULTS = Path(__file__).parents[1] / "results"
NEVER = ("matched-temperature", "weince-released")
"""A control and the authors' code, neither of which is a rival."""
CHOSEN = (
    "infonce", "weince", "endpoint", "cautious", "cautious-dcl", "weibit", "weibit-line", "one-slope", "dcl", "dhel",
)  # fmt: skip
"""Where a run takes minutes."""
FORMS = ("infonce", "cautious", "cautious-dcl")
"""Where what the others do is known from an earlier study of the same recipe."""
FEW_SHOTS = ("--epochs", "30")
AS_THE_FAIR_STUDY = (
    "--validation-fraction", "0.25", "--temperatures", "0.03", "0.05", "0.07", "0.1", "0.2", "0.5",
    "--seeds", "7", "21", "--confirm-seeds", "1", "2", "3", "4", "5", "--widen", "3",
)  # fmt: skip


class Table(NamedTuple):
    """A recipe, the folder of its data, its setup or its losses, and options."""

    recipe: str
    data: str
    losses: Setup | tuple[str, ...]
    options: tuple[str, ...] = ()


TABLES = {
    "banking77-5": Table("intents", "banking77", "labels", ("--shots", "5", *FEW_SHOTS)),
    "clinc150-5": Table("intents", "clinc150", "labels", ("--shots", "5", *FEW_SHOTS)),
    "captions-5000": Table("captions", "multi30k", "two-towers", ("--subset", "5000", "--epochs", "16")),
    "cifar10-pretrained": Table("pretrained", "cifar10", "two-views"),
    "banking77": Table("intents", "banking77", "labels"),
    "clinc150": Table("intents", "clinc150", "labels"),
    "banking77-10": Table("intents", "banking77", "labels", ("--shots", "10", *FEW_SHOTS)),
    "clinc150-10": Table("intents", "clinc150", "labels", ("--shots", "10", *FEW_SHOTS)),
    "captions": Table("captions", "multi30k", "two-towers"),
    "tiny-imagenet-pretrained": Table(
        "pretrained", "tiny_imagenet", "two-views", ("--data", "tiny-imagenet", "--subset", "20000")
    ),
    "banking77-5-trained": Table(
        "intents",
        "banking77",
        ("infonce", "weince", "cautious"),
        ("--shots", "5", "--epochs", "10", "--encoder-learning-rate", "5e-5", "--temperatures", "0.05", "0.1", "0.2"),
    ),
    "cifar10-8000": Table("cifar10-cpu", "cifar10", FORMS, AS_THE_FAIR_STUDY),
    "cifar10-queue": Table("queue", "cifar10", CHOSEN),
}


def keep(source: Path, place: Path) -> None:
    """A result as people send it to each other."""
    result = read_json(source)
    told = recipe_class(result["task"])(**result["settings"]).told()
    write_json(place, {**result, "settings": told})


def main() -> None:
    """Make the tables that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(TABLES)}; all when not given")
    parser.add_argument("--workers", default="1")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in TABLES]:
        parser.error(f"no such table: {', '.join(unknown)}; known are {', '.join(TABLES)}")
    for name in asked.names or TABLES:
        table = TABLES[name]
        losses = table.losses
        if isinstance(losses, str):
            losses = [one for one in defined_for(losses) if one not in NEVER]
        command = [sys.executable, "-m", "weince", "compare", table.recipe, "--name", name, "--data-dir",
                   str(asked.data / table.data), "--output", str(asked.output), "--workers", asked.workers,
                   *table.options, "--losses", *losses]  # fmt: skip
        subprocess.run(command, check=True)
        keep(asked.output / name / "result.json", RESULTS / f"{name}.json")


if __name__ == "__main__":
    main()
