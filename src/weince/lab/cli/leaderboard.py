"""`weince leaderboard`: many comparisons in one table, from their results alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from weince.shell.errors import UserError
from weince.shell.files import write_text
from weince.shell.terminal import answered

__all__ = ["run"]


@dataclass(frozen=True)
class Options:
    """Losses by tasks, from result files alone: leaderboard.html with the page of every comparison, .json and .csv."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Files of `weince compare` (runs/NAME/result.json), or folders of them. NAME-xN is NAME at N times its steps."""
    output: Path | None = None
    """Folder of the pages: a new one, or that of an earlier leaderboard. runs/leaderboard when not given."""
    markdown: tuple[Path, ...] = ()
    """Files whose table between the markers is rewritten; pages are then made only with --output."""
    losses: tuple[str, ...] = ()
    """Of that table; all when not given."""


def run(words: Sequence[str]) -> int:
    """`weince leaderboard`; returns the exit status."""
    return answered(lambda: _leaderboard(list(words)), "Nothing was written.")


def _leaderboard(words: list[str]) -> None:
    options = tyro.cli(Options, args=words, prog="weince leaderboard")
    if options.losses and not options.markdown:
        raise UserError("Option `--losses` is for the table of --markdown, which was not given.")
    from weince.lab.pages.board import board_of
    from weince.lab.pages.board_words import rewritten
    from weince.lab.pages.leaderboard import check_output, print_board, write_leaderboard
    from weince.lab.pages.results import read_results

    output = options.output or (None if options.markdown else Path("runs/leaderboard"))
    if output is not None:
        check_output(output)
    results = read_results(options.results)
    board = board_of(results)
    console = Console()
    texts = {file: rewritten(file, board, options.losses or None) for file in options.markdown}
    if output is not None:
        page = write_leaderboard(board, results, output)
        print_board(board, console)
        console.out(f"{page} shows it; every number lies in {output}.", highlight=False)
    for file, text in texts.items():
        write_text(file, text)
        console.out(f"{file} has the table.", highlight=False)
