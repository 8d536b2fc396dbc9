"""`weince simcse`: both losses on sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from weince.lab.tasks.recipe import read
from weince.lab.tasks.text_recipe import TextRecipe, check_text_libraries
from weince.shell.terminal import answered, bar

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince simcse`; returns the exit status."""
    return answered(lambda: _simcse(list(words)), "The same command repeats the run it was at, and no finished one.")


def _simcse(words: list[str]) -> None:
    console = Console()
    written = read(Path(words.pop(0))) if words and not words[0].startswith("-") else {}
    recipe = tyro.cli(TextRecipe, default=TextRecipe(**written), args=words, prog="weince simcse [RECIPE.toml]")
    check_text_libraries()
    # Transformers and the rest take seconds to import: after --help and the refusals.
    from weince.lab.pages.simcse_report import print_simcse, write_simcse
    from weince.lab.tasks.simcse_compare import compare_text

    with bar(console, "Reading sentences", "steps") as report:
        result = compare_text(recipe, report)
        page = write_simcse(result, recipe.folder)
    print_simcse(result, console)
    console.out(f"{page} shows it; every number lies in {recipe.folder}.", highlight=False)
