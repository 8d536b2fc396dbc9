"""The leaderboard: one page over many results, its numbers as JSON and CSV, and the page of every comparison in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from weince.lab.intervals import Interval
from weince.lab.pages.board import GEOMETRY, Board, Cell, Row, Table, explained
from weince.lab.pages.board_figures import figures_of_board
from weince.lab.pages.board_words import EXCLUDES, SURVIVES, chosen, lead, mark, tried, wins
from weince.lab.pages.comparison import page_of
from weince.shell.errors import UserError
from weince.shell.figures import svg
from weince.shell.files import csv_text, json_text, write_folder
from weince.shell.pages import render
from weince.shell.terminal import table as terminal_table
from weince.shell.words import count

__all__ = ["check_output", "print_board", "write_leaderboard"]

MADE_BY = "weince leaderboard"
OURS = ("leaderboard.html", "leaderboard.json", "leaderboard.csv")
STEPS = (0.003, 0.01, 0.03)
"""Differences at which the colour deepens."""
BETTER, WORSE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
"""Blue and vermilion of Okabe and Ito: told apart with any colour vision."""
CARDS = {
    "light": ((0xFF, 0xFF, 0xFF), (0.10, 0.22, 0.36, 0.52)),
    "dark": ((0x1B, 0x20, 0x29), (0.14, 0.28, 0.42, 0.56)),
}
"""Of style.css, and the share of colour in it at every step."""


def check_output(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier leaderboard.

    Raises:
        UserError: it does, or it is a file.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_dir() and (not found or found <= _earlier(folder / "leaderboard.json")):
        return
    if folder.exists():
        raise UserError(
            f"Option `--output`: should be a new folder, or one with an earlier leaderboard and nothing else. "
            f"Found {folder}."
        )


def _earlier(path: Path) -> set[str]:
    """The files of the leaderboard whose numbers these are; none where they are another's."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return {*OURS, *held["pages"]} if held["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_leaderboard(board: Board, results: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """leaderboard.html, leaderboard.json, leaderboard.csv and NAME.html of every result, all of them or none.

    Args:
        board: of the results.
        results: that it is made of.
        folder: replaced.

    Returns:
        Path of the page.

    Raises:
        UserError: the folder holds anything else, or a result has the leaderboard's name.
    """
    check_output(folder)
    pages = {f"{result['name']}.html": result for result in results}
    if taken := set(OURS) & set(pages):
        raise UserError(f"A result is named {taken.pop().removesuffix('.html')}, as the leaderboard's own page is.")
    write_folder(
        folder,
        {name: page_of(result).encode() for name, result in pages.items()}
        | {
            "leaderboard.html": _page(board, results).encode(),
            "leaderboard.csv": csv_text(_tidy(board)).encode(),
            "leaderboard.json": json_text(_numbers(board, list(pages))).encode(),
        },
    )
    return folder / "leaderboard.html"


def print_board(board: Board, console: Console) -> None:
    """For every loss how often it is better or worse, and the sentences that sum it up."""
    heads = ["", "mean rank", "tasks", "better", "worse", f"better {SURVIVES}", f"worse {SURVIVES}"]
    shown = terminal_table(f"Losses against {board.title}", heads, names=[""])
    for row in board.tables[0].rows:
        better, kept, _ = wins(row)
        cells = row.found.values()
        worse, kept_worse = sum(c.sign < 0 for c in cells), sum(c.survives and c.mean < 0 for c in cells)
        numbers = [""] * 4 if row.loss == board.reference else [str(n) for n in (better, worse, kept, kept_worse)]
        shown.add_row(row.title, f"{row.rank:.1f}", str(len(cells)), *numbers)
    console.print(shown, highlight=False)
    number = count(board.tables[0].comparisons, "comparison")
    console.print(f"{SURVIVES} survives Holm's correction for {number}.", style="dim", highlight=False)
    for text in lead(board):
        console.print(f"[bold]{text}[/bold]", highlight=False)


def _page(board: Board, results: Sequence[Mapping[str, Any]]) -> str:
    return render(
        "lab/pages/leaderboard.html",
        lead=lead(board),
        facts=f"{count(len(board.studies), 'task')} · {count(len(board.titles), 'loss', 'losses')}",
        tables=[_shown(board, table) for table in board.tables],
        excludes=EXCLUDES,
        survives=SURVIVES,
        steps=[f"{100 * step:g}" for step in STEPS],
        palette={screen: _palette(screen) for screen in CARDS},
        chosen=_chosen(board),
        figures=[
            (drawn.title, [svg(figure, alt) for figure, alt in drawn.drawings], drawn.caption,
             _lengths(board) if drawn.title == "Gain over training" else [])
            for drawn in figures_of_board(board)
        ],
        explained=list(_explained(board)),
        origins=_origins(results),
    )  # fmt: skip


def _shown(board: Board, table: Table) -> dict[str, Any]:
    """What the template draws of a table."""
    heads = [(task, board.studies[task].result["metrics"][metric]) for task, metric in table.metrics.items()]
    tested = f"Holm's correction is for {count(table.comparisons, 'comparison')}: every difference of this table"
    if table.untested:
        tested += f", but {table.untested} without a p-value"
    ends = any(cell.at_end for row in table.rows for cell in row.found.values())
    return {
        "title": table.title, "heads": heads, "comparisons": count(table.comparisons, "comparison"), "ends": ends,
        "caption": f"Test score minus that of {board.title}, in points with 95 % intervals, paired by seed. The row of "
        f"{board.titles[board.reference]} has its own scores, x 100. {tested}.",
        "rows": [{"title": row.title, "tried": tried(row), "reference": row.loss == board.reference,
                  "rank": row.rank, "difference": row.difference, "tasks": len(row.found),
                  "cells": [_cell(task, cell) for task, cell in row.cells.items()]} for row in table.rows],
    }  # fmt: skip


def _cell(task: str, cell: Cell | str) -> dict[str, Any]:
    if isinstance(cell, str):
        return {"why": cell}
    mean, low, high = cell.difference or cell.score
    if cell.difference is None:
        text = f"{100 * mean:.1f}", "" if low is None or high is None else f"± {100 * (high - mean):.1f}"
    else:
        text = _parts(cell.difference)
    return {
        "why": "", "href": f"{task}.html", "text": text[0], "interval": text[1], "mark": mark(cell), "value": cell.mean,
        "tone": _tone(cell), "end": cell.at_end, "said": f"{chosen(cell)}, {count(cell.seeds, 'seed')}",
    }  # fmt: skip


def _parts(difference: Interval) -> tuple[str, str]:
    mean, _, interval = str(difference).partition(" ")
    return mean, interval


def _tone(cell: Cell) -> str:
    """Class of a cell: its side and how deep its colour is; none where the difference rounds to zero."""
    if cell.difference is None or abs(cell.mean) < 0.0005:
        return ""
    deep = sum(abs(cell.mean) >= step for step in STEPS)
    return f"{'better' if cell.mean > 0 else 'worse'}-{deep}"


def _palette(screen: str) -> dict[str, str]:
    card, shares = CARDS[screen]
    return {
        f"{side}-{deep}": "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(card, colour, strict=True))
        for side, colour in (("better", BETTER), ("worse", WORSE))
        for deep, share in enumerate(shares)
    }


def _compact(cell: Cell | str | None) -> dict[str, Any]:
    if cell is None or isinstance(cell, str):
        return {"text": cell or "not run"}
    return {
        "text": f"{cell.difference} {EXCLUDES if cell.sign else ''}".strip(),
        "value": cell.mean,
        "tone": _tone(cell),
    }


def _chosen(board: Board) -> tuple[list[str], list[list[str]]]:
    rows = [[row.title, tried(row), *(c if isinstance(c, str) else chosen(c) for c in row.cells.values())]
            for row in board.tables[0].rows]  # fmt: skip
    return ["", "tried", *board.studies], rows


def _lengths(board: Board) -> list[tuple[str, list[str], list[list[Any]]]]:
    """A table a task that was run at several lengths."""
    found = []
    for task, lengths in board.lengths.items():
        losses = [loss for loss in board.titles if loss != board.reference and any(loss in c for c in lengths.values())]
        rows = [[board.titles[loss], *(_compact(cells.get(loss)) for cells in lengths.values())] for loss in losses]
        found.append((f"{task}: points more than {board.title}, by relative steps; not corrected for their number",
                      ["", *(f"× {times:g}" for times in lengths)], rows))  # fmt: skip
    return found


def _explained(board: Board) -> Any:
    for task, found in explained(board):
        names = [name for name in GEOMETRY if any(name in means for _, _, means in found)]
        rows = [[board.titles[loss], {"text": f"{100 * score:.1f}", "value": score},
                 *({"text": f"{means[n]:.3g}", "value": means[n]} if n in means else "none" for n in names)]
                for loss, score, means in found]  # fmt: skip
        columns = ["", f"test {board.studies[task].metric}, x 100", *(GEOMETRY[name] for name in names)]
        yield f"{task}: means over the reported seeds", columns, rows


def _origins(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [[result["name"], "; ".join(result["facts"]), count(len(result["seeds"]), "seed"),
             str(result["made"].get("commit") or "unknown")[:7], str(result["made"].get("device") or "unknown"),
             str(result["made"].get("date") or "unknown")[:10]] for result in results]  # fmt: skip


def _tidy(board: Board) -> list[dict[str, Any]]:
    """A row a loss, task and score, in points; those at other lengths last."""
    rows = []
    for table in board.tables:
        for row in table.rows:
            for task, cell in row.cells.items():
                head = {"loss": row.loss, "task": task, "steps": 1.0, "score": table.metrics[task],
                        "chose": table.metrics[task] == board.studies[task].result["select_by"]}  # fmt: skip
                rows.append({**head, **_numbers_of(cell)})
    kept = {(row["loss"], row["task"], row["score"]): row for row in reversed(rows)}  # a score that chose stands twice
    longer = [
        {"loss": loss, "task": task, "steps": times, "score": board.studies[task].result["select_by"]
         if task in board.studies else "", "chose": True, **_numbers_of(cell)}
        for task, lengths in board.lengths.items() for times, cells in lengths.items() if times != 1
        for loss, cell in cells.items()
    ]  # fmt: skip
    return [*reversed(kept.values()), *longer]


def _numbers_of(cell: Cell | str) -> dict[str, Any]:
    if isinstance(cell, str):
        return {"why": cell}
    mean, low, high = cell.difference or (None, None, None)
    return {
        "why": "", "score_points": _points(cell.score.mean), "difference_points": _points(mean),
        "low_points": _points(low), "high_points": _points(high), "p": cell.p, "p_holm": cell.adjusted,
        "seeds": cell.seeds, "settings": json.dumps(cell.settings, sort_keys=True), "tried": cell.tried,
        "at_end_of_grid": cell.at_end,
    }  # fmt: skip


def _points(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 4)


def _numbers(board: Board, pages: list[str]) -> dict[str, Any]:
    return {
        "made_by": MADE_BY, "pages": pages, "reference": board.reference, "order": "mean rank",
        "sentences": lead(board),
        "tasks": {task: {"score": study.result["select_by"], "made": study.result["made"]}
                  for task, study in board.studies.items()},
        "tables": [{"score": table.title, "comparisons": table.comparisons, "without_p": table.untested,
                    "rows": [_row(row) for row in table.rows]} for table in board.tables],
        "over_training": {task: {f"{times:g}": {loss: _numbers_of(cell) for loss, cell in cells.items()}
                                 for times, cells in lengths.items()} for task, lengths in board.lengths.items()},
    }  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {"loss": row.loss, "title": row.title, "mean_rank": row.rank,
            "mean_difference_points": _points(row.difference),
            "cells": {task: _numbers_of(cell) for task, cell in row.cells.items()}}  # fmt: skip
