"""A leaderboard in words: the sentences that lead its page, and a table for README and documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from weince.lab.engine.plan import words
from weince.lab.pages.board import Board, Cell, Row
from weince.shell.errors import UserError
from weince.shell.words import count

__all__ = ["BEGIN", "END", "chosen", "lead", "markdown", "rewritten", "tried", "up_to_date"]

MAIN = ("weince", "endpoint", "cautious", "cautious-dcl", "weibit")
"""Losses of which the page speaks by name."""
MANY = 3
"""Losses that a sentence names."""
BEGIN, END = "<!-- leaderboard: begin -->", "<!-- leaderboard: end -->"
EXCLUDES, SURVIVES = "○", "●"
"""Marks of a difference whose interval excludes zero, and of one that survives the correction."""


def lead(board: Board) -> list[str]:
    """Which loss wins most; then each of the main losses, before and after the correction."""
    rows = {row.loss: row for row in board.tables[0].rows if row.loss != board.reference}
    return [_winner(board, list(rows.values())), *(_told(board, rows[loss]) for loss in MAIN if loss in rows)]


def wins(row: Row) -> tuple[int, int, int]:
    """Tasks on which a loss is better than the reference, by its interval and after the correction, and not worse."""
    cells = row.found.values()
    better = sum(cell.sign > 0 for cell in cells)
    return better, sum(cell.survives and cell.mean > 0 for cell in cells), -sum(cell.sign < 0 for cell in cells)


def _winner(board: Board, rows: Sequence[Row]) -> str:
    number = board.tables[0].comparisons
    most = max((wins(row) for row in rows), default=(0, 0, 0))
    if most[0] == 0:
        return f"No loss is better than {board.title} on any task."
    best = [row for row in rows if wins(row) == most]
    first, ran = [row.title for row in best], sorted({len(row.found) for row in best})
    of = f" of {'their' if len(best) > 1 else 'its'} {count(ran[0], 'task')}" if len(ran) == 1 else " each"
    who = " and ".join([", ".join(first[:-1]), first[-1]] if len(first) > 1 else first)
    if len(first) > MANY:
        who = f"{len(first)} losses"
    return (
        f"{who[0].upper()}{who[1:]} {'win' if len(first) > 1 else 'wins'} most: better than {board.title} on "
        f"{most[0]}{of}, worse on {-most[2] or 'none'}; better on {most[1] or 'none'} after the correction for "
        f"{count(number, 'comparison')}."
    )


def _told(board: Board, row: Row) -> str:
    cells = list(row.found.values())
    better, worse = sum(cell.sign > 0 for cell in cells), sum(cell.sign < 0 for cell in cells)
    kept = [sum(cell.survives and side * cell.mean > 0 for cell in cells) for side in (1, -1)]
    return (
        f"{row.title}, of {count(len(cells), 'task')}: better than {board.title} on {better}, not told apart on "
        f"{len(cells) - better - worse}, worse on {worse}. "
        f"After the correction: {kept[0]}, {len(cells) - sum(kept)} and {kept[1]}."
    )


def tried(row: Row) -> str:
    """How many settings were tried of a loss: "6 settings", "1 setting", "2 to 6 settings"."""
    found = sorted({cell.tried for cell in row.found.values()})
    return count(found[0], "setting") if len(found) == 1 else f"{found[0]} to {found[-1]} settings"


def chosen(cell: Cell) -> str:
    """The settings of a cell, and whether they lie at an end of their grid."""
    return (words(cell.settings) or "nothing to choose") + (", an end of its grid" if cell.at_end else "")


def mark(cell: Cell) -> str:
    """How sure a difference is."""
    return SURVIVES if cell.survives else EXCLUDES if cell.sign else ""


def markdown(board: Board, losses: Sequence[str] | None = None) -> str:
    """A shortened table of the board, between its markers: a row a task, so that it stays narrow with many.

    Args:
        board: its first table is told.
        losses: that are shown; all when None. The reference always is.

    Raises:
        UserError: a loss that the board does not have.
    """
    table = board.tables[0]
    known = [row.loss for row in table.rows]
    if unknown := [loss for loss in losses or () if loss not in known]:
        raise UserError(f"The leaderboard has no {', '.join(unknown)}. It has {', '.join(known)}.")
    rows = [row for row in table.rows if losses is None or row.loss in (*losses, board.reference)]
    cells = [[task, study.metric, *(_short(row.cells[task]) for row in rows)] for task, study in board.studies.items()]
    ranks = ["mean rank", "", *(f"{row.rank:.1f}" for row in rows)]
    lines = [
        f"| task | score | {' | '.join(row.title for row in rows)} |",
        f"|---|---|{'---:|' * len(rows)}",
        *(f"| {' | '.join(line)} |" for line in [*cells, ranks]),
    ]
    return "\n".join([BEGIN, *lines, "", _note(board), END])


def _short(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return cell
    if cell.difference is None:
        return f"{100 * cell.score.mean:.1f}"
    return f"{cell.difference} {mark(cell)}".strip()


def _note(board: Board) -> str:
    table = board.tables[0]
    return (
        f"Points more than {board.title} with 95 % intervals, paired by seed; the column of "
        f"{board.titles[board.reference]} has its own scores, x 100. {EXCLUDES} interval excludes zero, {SURVIVES} "
        f"survives Holm's correction for {count(table.comparisons, 'comparison')}. Ranks are among the "
        f"{len(table.rows)} losses of the whole table, where they were run."
    )


def rewritten(path: Path, board: Board, losses: Sequence[str] | None = None) -> str:
    """The text of a file, its table between the markers replaced by the board's.

    Args:
        path: of the file, which is left as it is.
        board, losses: as in `markdown`.

    Raises:
        UserError: no such file, or it has not one pair of markers.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text.") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise UserError(f"{path} should have one {BEGIN} and, after it, one {END}: the table stands between them.")
    return before + markdown(board, losses) + after


def up_to_date(path: Path, board: Board, losses: Sequence[str] | None = None) -> bool:
    """Whether the table of a file is the board's.

    Raises:
        UserError: no such file, or it has not one pair of markers.
    """
    return rewritten(path, board, losses) == path.read_text(encoding="utf-8")
