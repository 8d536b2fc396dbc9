"""`weince train`: one run of a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from rich.console import Console

from weince.lab.cli.compare import settings
from weince.lab.tasks.recipe import PAPER_TEMPERATURE, Loss, Recipe, Run
from weince.shell.terminal import answered, bar, first

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince train`; returns the exit status."""
    return answered(lambda: _train(words), "The same command continues where it was.")


def _train(arguments: Sequence[str]) -> None:
    console = Console(quiet=not first())
    finder = argparse.ArgumentParser(prog="weince train [RECIPE.toml]", add_help=False, allow_abbrev=False)
    finder.add_argument("--loss", choices=get_args(Loss), default="weince")
    finder.add_argument("--temperature", type=float, default=PAPER_TEMPERATURE)
    finder.add_argument("--seed", type=int, default=7)
    if {"-h", "--help"} & set(arguments):
        losses = ",".join(get_args(Loss))
        known = f"[--loss {{{losses}}}] [--temperature {PAPER_TEMPERATURE:g}] [--seed 7]"
        console.print(f"One run: {known}, and the settings of a recipe:", markup=False)
    wanted, rest = finder.parse_known_args(list(arguments))
    recipe = settings(rest, "train")
    # The recipe's own rules for what a temperature and a seed may be.
    Recipe(**{**recipe.model_dump(), "temperatures": (wanted.temperature,), "seeds": (wanted.seed,)})
    one = Run(wanted.loss, wanted.temperature, wanted.seed)
    from weince.lab.tasks.compare import train_one
    from weince.lab.training.launch import leave

    with bar(console, "Reading images", "epochs") as report:
        found = train_one(recipe, one, report)
    for metric, score in found["scores"].items():
        console.print(f"validation {metric.replace('_', ' ')}: {100 * score:.1f} %")
    folder = recipe.folder / "runs" / one.slug
    console.out(f"{folder} holds encoder.safetensors, projection.safetensors and history.csv.", highlight=False)
    leave()
