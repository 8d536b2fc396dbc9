"""`weince compare`: options, a recipe, the table in the terminal, and where the rest lies."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import tyro
from rich.console import Console

from weince.lab.tasks.recipe import Data, Recipe, preset, read
from weince.shell.terminal import answered, bar, first

__all__ = ["run", "settings"]


def run(words: Sequence[str]) -> int:
    """`weince compare`; returns the exit status."""
    return answered(lambda: _compare(words), "The same command continues where it was.")


def settings(arguments: Sequence[str], command: str = "compare") -> Recipe:
    """The recipe of a command line: options over the TOML file, the file over the preset of its data.

    Args:
        arguments: [RECIPE.toml] [OPTIONS].
        command: whose help is shown.

    Raises:
        UserError: the file cannot be read, or settings are unknown, malformed or contradictory.
        SystemExit: an option cannot be parsed, or --help.
    """
    words = list(arguments)
    written = read(Path(words.pop(0))) if words and not words[0].startswith("-") else {}
    # The data named on the command line decides which preset the other settings start from.
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--data", choices=get_args(Data), default=written.get("data", "digits"))
    data = finder.parse_known_args(words)[0].data
    if data not in get_args(Data):
        Recipe(**written)  # refuses, and says why
    return tyro.cli(
        Recipe,
        default=Recipe(**(preset(data) | written | {"data": data})),
        args=words,
        prog=f"weince {command} [RECIPE.toml]",
    )


def _compare(arguments: Sequence[str]) -> None:
    console = Console(quiet=not first())
    recipe = settings(arguments)
    # Lightning, kornia and the rest take seconds to import: after --help and the refusals.
    from weince.lab.pages.report import print_table, write_report
    from weince.lab.tasks.compare import compare
    from weince.lab.training.launch import first_does, leave

    with bar(console, "Reading images", "epochs") as report:
        result = compare(recipe, report)
        report("Drawing the report", 1, 1)
        page = first_does(lambda: write_report(recipe.folder))
    print_table(result, console)
    console.out(f"{page} shows it with figures; every number lies in {recipe.folder}.", highlight=False)
    leave()
