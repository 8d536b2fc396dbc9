"""`weince compare`: settings from presets, a TOML file and options; a live progress bar; the table at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from weince.lab.recipe import Data, Recipe, RecipeError, preset, read

__all__ = ["run_compare", "settings"]


def settings(arguments: Sequence[str]) -> Recipe:
    """The recipe of a command line: options over the TOML file, the file over the preset of its data.

    Args:
        arguments: [RECIPE.toml] [OPTIONS].

    Raises:
        RecipeError: the file cannot be read, or settings are unknown, malformed or contradictory.
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
        prog="weince compare [RECIPE.toml]",
    )


def run_compare(arguments: Sequence[str]) -> int:
    """`weince compare`; returns the exit status."""
    console = Console()
    try:
        recipe = settings(arguments)
        # Lightning, kornia and the rest take seconds to import: after --help and the refusals.
        from weince.lab.compare import compare
        from weince.lab.report import print_table, write_report

        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bar:
            task = bar.add_task("Reading images", total=None)
            result = compare(
                recipe, lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
            )
            bar.update(task, description="Drawing the report")
            page = write_report(recipe.folder)
    except RecipeError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename or 'Files'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command continues where it was.", file=sys.stderr)
        return 130
    print_table(result, console)
    print(f"{page} shows it with figures; every number lies in {recipe.folder}.")
    return 0
