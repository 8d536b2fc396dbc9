"""`weince recipes`: the recipes that the package carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from weince.lab.tasks import recipes
from weince.shell.errors import UserError
from weince.shell.terminal import answered

__all__ = ["run"]


@dataclass(frozen=True)
class Options:
    """List the recipes of the package, for `weince compare NAME`; or print one, to be copied and edited."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Of the recipe that is printed: `weince recipes cifar10-small > mine.toml`, `weince compare mine.toml`."""


def run(words: Sequence[str]) -> int:
    """`weince recipes`; returns the exit status."""
    return answered(lambda: _recipes(list(words)), "")


def _recipes(words: list[str]) -> None:
    wanted = tyro.cli(Options, args=words, prog="weince recipes").name
    found = recipes()
    if wanted is not None:
        if wanted not in found:
            raise UserError(f"Recipe {wanted!r} is none of: {', '.join(found)}.")
        print(found[wanted].read_text(encoding="utf-8"), end="")
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, path in found.items():
        table.add_row(name, path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
    Console().print(table)
