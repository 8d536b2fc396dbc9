"""What commands share: exit status, one speaker, progress bar, tables."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from weince.shell.errors import UserError

__all__ = ["answered", "bar", "first", "table"]


def answered(work: Callable[[], None], after_a_stop: str) -> int:
    """Exit status of a command: 0 done, 2 refused, 130 stopped. Of several processes the first one speaks."""
    said = sys.stderr if first() else io.StringIO()
    try:
        work()
    except UserError as error:
        print(error, file=said)
        return 2
    except OSError as error:
        print(f"{error.filename or 'Files'}: {error.strerror or error}.", file=said)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. {after_a_stop}", file=said)
        return 130
    return 0


def first() -> bool:
    """Whether this is the first, or only, process that torchrun or srun started."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


@contextmanager
def bar(console: Console, what: str, unit: str) -> Iterator[Callable[[str, float, float], None]]:
    """A progress bar, told what is being done, how much of it is done and of how much."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(what, total=None)
        yield lambda what, done, total: shown.update(task, description=what, completed=done, total=total)


def table(title: str, columns: Sequence[str], names: Sequence[str] = ()) -> Table:
    """A table without rows. Names that do not fit the terminal go on in the next line; numbers are never broken.

    Args:
        title: over it.
        columns: their headings.
        names: those of the columns that hold names: they stand left.
    """
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        if column in names:
            made.add_column(column, overflow="fold")
        else:
            made.add_column(column, justify="right", no_wrap=True)
    return made
