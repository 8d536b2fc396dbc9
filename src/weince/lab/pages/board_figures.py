"""The figures of a leaderboard: score over temperature, and the gain over training, a panel a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from weince.lab.pages.board import Board, Cell, Study, loss_of
from weince.lab.pages.board_words import MAIN
from weince.lab.pages.figures import SPARE, Drawn, panel
from weince.lab.rivals import COLOURS

__all__ = ["figures_of_board"]

STYLES = ("-", "--", "-.", ":")
MARKS = "osD^vPX"
APART = 1.035
"""Between losses of one length, so that their intervals do not hide each other."""
Style = dict[str, Any]


def figures_of_board(board: Board) -> Iterator[Drawn]:
    """Every figure that the board has something for."""
    styles = _styles(board)
    if drawn := _temperatures(board, styles):
        yield drawn
    if board.lengths:
        yield _lengths(board, styles)


def _styles(board: Board) -> dict[str, Style]:
    """Loss -> colour, line and mark: those that share a colour have other lines and marks."""
    found: dict[str, Style] = {}
    spare, used = 0, {}
    for loss in board.titles:
        colour = COLOURS.get(loss)
        if colour is None:
            colour, spare = SPARE[spare % len(SPARE)], spare + 1
        number = used[colour] = used.get(colour, -1) + 1
        found[loss] = {"color": colour, "linestyle": STYLES[number % 4], "marker": MARKS[len(found) % len(MARKS)],
                       "markersize": 4, "linewidth": 2.4 if loss in (board.reference, *MAIN) else 1.2}  # fmt: skip
    return found


def _key(board: Board, styles: Mapping[str, Style], shown: Sequence[str]) -> tuple[Figure, str]:
    """What each line is: one drawing for all panels."""
    figure, ax = panel(4.6, 0.5 + 0.19 * len(shown))
    ax.set_axis_off()
    marks = [Line2D([], [], label=board.titles[loss], **styles[loss]) for loss in shown]
    ax.legend(handles=marks, loc="center", frameon=False, fontsize=9, handlelength=4)
    return figure, f"The lines of all panels: {', '.join(board.titles[loss] for loss in shown)}."


def _knobs(arm: Mapping[str, Any]) -> set[str]:
    """Settings that were varied."""
    return {name for name, values in arm.get("tried", {}).items() if isinstance(values, Mapping) or len(values) > 1}


def _temperatures(board: Board, styles: Mapping[str, Style]) -> Drawn | None:
    drawings, shown = [], set()
    for task, study in board.studies.items():
        figure, ax = panel()
        told = []
        for loss, arm in _arms(study).items():
            if lines := _over_temperature(study, arm):
                temperatures, scores = zip(*lines, strict=True)
                ax.plot(temperatures, scores, **styles[loss])
                best = int(np.argmax(scores))
                told.append(f"{board.titles[loss]} best at {temperatures[best]:g} with {scores[best]:.1f}")
            elif (level := _level(study, arm)) is not None:
                ax.axhline(level, **{**styles[loss], "marker": None})
                told.append(f"{board.titles[loss]}, without a temperature, {level:.1f}")
            else:
                continue
            shown.add(loss)
        if any(line.get_marker() not in (None, "None") for line in ax.get_lines()):
            _labelled(ax, task, f"validation {study.metric}, x 100")
            drawings.append((figure, f"{task}: validation {study.metric} over temperature. {'; '.join(told)}."))
    if not drawings:
        return None
    drawings.append(_key(board, styles, [loss for loss in board.titles if loss in shown]))
    return Drawn(
        "Score over temperature",
        drawings,
        "Validation score by which settings are chosen, mean over the seeds that choose. A line is a loss whose only "
        "knob is its temperature; a level line is a loss without one. Losses with other knobs are not drawn.",
    )


def _labelled(ax: Axes, task: str, y: str) -> None:
    ax.set_title(task, fontsize=10)
    ax.set_xscale("log")
    ticks = sorted({float(x) for line in ax.get_lines() if line.get_marker() not in (None, "None")
                    for x in np.asarray(line.get_xdata(), dtype=float)})  # fmt: skip
    if len(ticks) <= 8:
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=45)
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("temperature")
    ax.set_ylabel(y)


def _arms(study: Study) -> dict[str, str]:
    """Loss -> its arm that was tuned."""
    rows = [row for row in study.result["rows"] if row["kind"] not in ("follows", "usual")]
    return {loss_of(row["arm"]): row["arm"] for row in sorted(rows, key=lambda row: row["tried"])}


def _over_temperature(study: Study, arm: str) -> list[tuple[float, float]]:
    """(temperature, score x 100) of an arm whose only knob it is; of settings that all choosing seeds finished."""
    result = study.result
    if _knobs(result["plan"]["arms"][arm]) != {"temperature"}:
        return []
    seeds = result["plan"]["seeds"]
    scores: dict[float, list[float]] = {}
    for run in result["runs"]:
        if run["arm"] == arm and run["seed"] in seeds and not run["diverged"]:
            scores.setdefault(run["settings"]["temperature"], []).append(run["validation"][result["select_by"]])
    return sorted((at, 100 * float(np.mean(those))) for at, those in scores.items() if len(those) == len(seeds))


def _level(study: Study, arm: str) -> float | None:
    """Validation score x 100 of an arm that has no temperature."""
    row = next(row for row in study.result["rows"] if row["arm"] == arm and row["kind"] != "usual")
    if "temperature" in row["settings"] or not row["validation"]:
        return None
    return 100 * row["validation"][study.result["select_by"]]


def _lengths(board: Board, styles: Mapping[str, Style]) -> Drawn:
    drawings, shown = [], set()
    for task, lengths in board.lengths.items():
        figure, ax = panel()
        ax.axhline(0, color="0.5", linewidth=1)
        losses = [loss for loss in board.titles if loss != board.reference and any(loss in c for c in lengths.values())]
        told = []
        for place, loss in enumerate(losses):
            cells = {times: those[loss] for times, those in lengths.items() if loss in those}
            shift = APART ** (place - (len(losses) - 1) / 2)
            _gain(ax, cells, shift, styles[loss])
            shown.add(loss)
            told.append(f"{board.titles[loss]} " + ", ".join(f"{100 * c.mean:+.1f} at {t:g}" for t, c in cells.items()))
        ax.set_xscale("log")
        ax.set_xticks(list(lengths), [f"{times:g}" for times in lengths])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(task, fontsize=10)
        ax.set_xlabel("steps, relative")
        ax.set_ylabel("points more")
        drawings.append((figure, f"{task}: points more than {board.title} by relative steps. {'; '.join(told)}."))
    drawings.append(_key(board, styles, [loss for loss in board.titles if loss in shown]))
    return Drawn(
        "Gain over training",
        drawings,
        f"Difference to {board.title} in the score that chose, in points with 95 % intervals, of the same task trained "
        "for more steps (1 is the task's own length). At every length all losses are compared at the same number of "
        "steps. Losses stand side by side so that their intervals can be told apart.",
    )


def _gain(ax: Axes, cells: Mapping[float, Cell], shift: float, style: Style) -> None:
    places = [times * shift for times in cells]
    ax.plot(places, [100 * cell.mean for cell in cells.values()], **style)
    for place, cell in zip(places, cells.values(), strict=True):
        _, low, high = cell.difference or (0.0, None, None)
        if low is not None and high is not None:
            ax.plot([place] * 2, [100 * low, 100 * high], color=style["color"], linewidth=1, alpha=0.6)
