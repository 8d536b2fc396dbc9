"""`weince report`: the paper's table and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from weince.shell.terminal import answered

__all__ = ["run"]


@dataclass(frozen=True)
class Options:
    """The published rows beside what was found here, and why a row was not run: table.csv, two figures, table.html."""

    results: Annotated[Path, tyro.conf.Positional] = Path("results")
    """Folder of what was found, NAME.json."""
    runs: Path = Path("runs")
    """Folder of comparisons carried out here, NAME/result.json, for what RESULTS lacks."""
    data_dir: Path = Path("data")
    """Folder of the sets of images, looked at to say why a recipe was not run."""
    output: Path = Path("runs/table")
    """Where the table goes."""


def run(words: Sequence[str]) -> int:
    """`weince report`; returns the exit status."""
    return answered(lambda: _report(words), "Nothing was written.")


def _report(words: Sequence[str]) -> None:
    options = tyro.cli(Options, args=list(words), prog="weince report")
    from weince.lab.reproduction.paper import collected
    from weince.lab.reproduction.report import print_table, write_table

    console = Console()
    known, others = collected(options.results, options.runs, options.data_dir)
    page = write_table(known, others, options.output)
    print_table(known, others, console)
    console.out(f"{page} shows it with a figure; table.csv beside it holds every number.", highlight=False)
