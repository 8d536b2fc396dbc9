"""The numbers of a leaderboard, from results alone: losses by tasks, as paired differences to the tuned reference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from weince.lab.intervals import Interval, holm, p_value, paired
from weince.lab.rivals import NAMES
from weince.shell.errors import UserError

__all__ = ["ALIASES", "GEOMETRY", "Board", "Cell", "Row", "Study", "Table", "board_of", "check", "explained", "loss_of"]

ALIASES = {
    "weince-endpoint": "endpoint", "dcl-tuned": "dcl", "hard-negatives-tuned": "hard-negatives",
    "matched-temperature-tuned": "matched-temperature", "weight-1-tuned": "weibit-line",
}  # fmt: skip
"""Arm -> the loss that it is."""
GEOMETRY = {
    "alignment": "alignment", "uniformity": "uniformity", "effective_rank": "effective rank",
    "mean_positive": "mean positive similarity", "mean_hardest_negative": "mean hardest negative similarity",
}  # fmt: skip
LEVEL = 0.05
LONGER = re.compile(r"(.+)-x(\d+(?:\.\d+)?)")


class Cell(NamedTuple):
    """A loss on a task, in one score.

    Attributes:
        score: on test data, mean over seeds and its interval.
        difference: to the reference, paired by seed; None in the reference's own row.
        p: of that difference; None where seeds and test examples tell of no chance.
        adjusted: p after Holm's correction for all comparisons of the table.
        seeds: that are reported.
        settings: that were chosen.
        tried: how many settings were.
        at_end: whether the chosen one lies at an end of its grid.
    """

    score: Interval
    difference: Interval | None
    p: float | None
    adjusted: float | None
    seeds: int
    settings: Mapping[str, Any]
    tried: int
    at_end: bool

    @property
    def mean(self) -> float:
        """Of the difference: 0 in the reference's row."""
        return self.difference.mean if self.difference else 0.0

    @property
    def sign(self) -> int:
        """1 better, -1 worse by the 95 % interval, 0 not told apart."""
        _, low, high = self.difference or (0.0, None, None)
        return 0 if low is None or high is None else int(low > 0) - int(high < 0)

    @property
    def survives(self) -> bool:
        """Whether the difference is told from zero after the correction."""
        return self.adjusted is not None and self.adjusted < LEVEL


class Row(NamedTuple):
    """A loss: task -> cell, or why there is none; its mean rank and mean difference over the tasks that have it."""

    loss: str
    title: str
    cells: dict[str, Cell | str]
    rank: float
    difference: float

    @property
    def found(self) -> dict[str, Cell]:
        """Of the tasks where the loss was run."""
        return {task: cell for task, cell in self.cells.items() if isinstance(cell, Cell)}


class Table(NamedTuple):
    """Losses by scores.

    Attributes:
        title: of the score.
        metrics: task -> score.
        rows: by mean rank, the best first; under them, likewise, losses that fewer than half of the tasks have: a rank
            on one task says little.
        comparisons: that the correction is for.
        untested: further ones, without a p-value.
    """

    title: str
    metrics: dict[str, str]
    rows: list[Row]
    comparisons: int
    untested: int


class Study(NamedTuple):
    """A result: the task's name, and its steps relative to the task's own length."""

    task: str
    times: float
    result: Mapping[str, Any]

    @property
    def metric(self) -> str:
        """The score by which settings were chosen, as a reader sees it."""
        return self.result["metrics"][self.result["select_by"]]


class Board(NamedTuple):
    """A leaderboard.

    Attributes:
        studies: task -> its result.
        reference: the loss that the others are compared with.
        title: of the reference, "tuned" before it where it is.
        tables: the first in the scores by which settings were chosen, then one for each other that all tasks have.
        lengths: task -> steps relative to its own length -> loss -> cell, of tasks that were run at several.
        titles: loss -> as a reader sees it, of every loss of the board.
    """

    studies: dict[str, Study]
    reference: str
    title: str
    tables: list[Table]
    lengths: dict[str, dict[float, dict[str, Cell]]]
    titles: dict[str, str]


def board_of(results: Sequence[Mapping[str, Any]]) -> Board:
    """A leaderboard of results, as `weince.lab.engine.comparison.result_of` makes them.

    Args:
        results: those named NAME-xN are NAME at N times its steps, and no columns of the table.

    Raises:
        UserError: none at a task's own length, two of one name, or references that differ or are missing.
    """
    names = [result["name"] for result in results]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"Two results are named {', '.join(twice)}: give each task once.")
    studies = [_study(result) for result in results]
    reference = _reference(studies)
    own = {study.task: study for study in studies if study.times == 1}
    if not own:
        raise UserError(
            f"No result is of a task's own length, which make the columns. Found {', '.join(names) or 'none'}."
        )
    titles = _titles(studies, reference)
    tables = [_table("the score that chose", own, {t: s.result["select_by"] for t, s in own.items()}, titles)]
    for metric, title in next(iter(own.values())).result["metrics"].items():
        shared = all(metric in study.result["metrics"] for study in own.values())
        if shared and any(study.result["select_by"] != metric for study in own.values()):
            tables.append(_table(title, own, dict.fromkeys(own, str(metric)), titles))
    lengths: dict[str, dict[float, dict[str, Cell]]] = {}
    for study in sorted(studies, key=lambda one: one.times):
        if any(other.times != 1 for other in studies if other.task == study.task):
            lengths.setdefault(study.task, {})[study.times] = _cells(study, study.result["select_by"])
    # A longer run has the settings that were chosen at the task's own length.
    tuned = all(row["kind"] == "tuned" for study in own.values() for row in _rows(study.result)[reference][:1])
    title = f"{'tuned ' if tuned else ''}{titles[reference]}"
    return Board(own, reference, title, tables, dict(sorted(lengths.items())), titles)


def loss_of(arm: str) -> str:
    """The loss of an arm.

    Examples:
        >>> loss_of("dcl-tuned"), loss_of("weince")
        ('dcl', 'weince')
    """
    return ALIASES.get(arm, arm)


def check(result: Mapping[str, Any]) -> None:
    """Look at all that a leaderboard takes from a result.

    Raises:
        UserError, KeyError, TypeError, ...: it is not there.
    """
    study = _study(result)
    _reference([study])
    _cells(study, result["select_by"])
    for run in result["runs"]:
        float(run["validation"][result["select_by"]])
        if missing := {"arm", "settings", "seed", "reported", "diverged"} - set(run):
            raise KeyError(*sorted(missing))


def _study(result: Mapping[str, Any]) -> Study:
    longer = LONGER.fullmatch(result["name"])
    times = float(longer[2]) if longer else 1.0
    if times <= 0:
        raise UserError(f"{result['name']} names a length of 0: NAME-xN is NAME at N times its steps.")
    return Study(longer[1] if longer and times != 1 else result["name"], times, result)


def _reference(studies: Sequence[Study]) -> str:
    found: dict[str, str] = {}
    for study in studies:
        arm = study.result["plan"]["reference"]
        if not any(row["arm"] == arm and row["kind"] != "usual" for row in study.result["rows"]):
            raise UserError(f"{study.result['name']} has no row of its reference {arm}: nothing to compare with.")
        found.setdefault(loss_of(arm), study.result["name"])
    if len(found) > 1:
        said = ", ".join(f"{name} with {loss}" for loss, name in found.items())
        raise UserError(f"The results compare with different references: {said}. A leaderboard has one.")
    return next(iter(found), "")


def _rows(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Loss -> its rows, those with most settings first; arms that follow another and the usual setting are left out."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        if row["kind"] not in ("follows", "usual"):
            found.setdefault(loss_of(row["arm"]), []).append(row)
    return {loss: sorted(rows, key=lambda row: -row["tried"]) for loss, rows in found.items()}


def _titles(studies: Sequence[Study], reference: str) -> dict[str, str]:
    found = {reference: ""}
    for study in studies:
        for loss, rows in _rows(study.result).items():
            found[loss] = found.get(loss) or NAMES.get(loss) or rows[0]["title"]
    return found


def _cells(study: Study, metric: str) -> dict[str, Cell]:
    result = study.result
    reference = loss_of(result["plan"]["reference"])
    found = {}
    for loss, (row, *_) in _rows(result).items():
        difference = p = None
        if loss != reference:
            entry = next((d for d in result["differences"]
                          if (d["of"], d["to"], d["metric"]) == (row["label"], "reference", metric)), None)  # fmt: skip
            if entry is None:
                raise UserError(f"{result['name']} has no difference of {row['label']} to its reference in {metric}.")
            difference = Interval(entry["mean"], entry["low"], entry["high"])
            p = entry["p"] if "p" in entry else p_value(entry["by_seed"])
        ends = any(text.startswith(f"{row['title']} was best at ") and "an end of its grid" in text
                   for text in result["warnings"])  # fmt: skip
        by_seed = row["by_seed"][metric]
        found[loss] = Cell(paired(by_seed), difference, p, None, len(by_seed), row["settings"], row["tried"], ends)
    return found


def _why(result: Mapping[str, Any], loss: str) -> str:
    """Why a loss has no cell."""
    arms = [arm for arm in result["plan"]["arms"] if loss_of(arm) == loss]
    if not arms:
        return "not run"
    if all(result["plan"]["arms"][arm].get("follows") for arm in arms):
        return "not tuned"
    lost = any(run["diverged"] for run in result["runs"] if run["arm"] in arms)
    return "diverged" if lost else "not finished"


def _table(title: str, studies: Mapping[str, Study], metrics: dict[str, str], titles: Mapping[str, str]) -> Table:
    cells = {task: _cells(study, metrics[task]) for task, study in studies.items()}
    compared = [(task, loss) for task in cells for loss, cell in cells[task].items() if cell.difference]
    tested = {one: p for one in compared if (p := cells[one[0]][one[1]].p) is not None}
    for (task, loss), adjusted in zip(tested, holm(list(tested.values())), strict=True):
        cells[task][loss] = cells[task][loss]._replace(adjusted=adjusted)
    ranks = {task: _ranks(those) for task, those in cells.items()}
    rows = []
    for loss, name in titles.items():
        own = [task for task in cells if loss in cells[task]]
        if own:
            rows.append(Row(
                loss, name, {task: cells[task].get(loss) or _why(studies[task].result, loss) for task in cells},
                float(np.mean([ranks[task][loss] for task in own])),
                float(np.mean([cells[task][loss].mean for task in own])),
            ))  # fmt: skip
    rows.sort(key=lambda row: (2 * len(row.found) < len(cells), row.rank, -row.difference))
    return Table(title, metrics, rows, len(tested), len(compared) - len(tested))


def _ranks(cells: Mapping[str, Cell]) -> dict[str, float]:
    """Loss -> its rank among those of the task, 1 the best; equal ones share the mean of theirs."""
    ranks = rankdata([-cell.mean for cell in cells.values()])
    return dict(zip(cells, map(float, ranks), strict=True))


def explained(board: Board) -> Iterator[tuple[str, list[tuple[str, float, dict[str, float]]]]]:
    """Of each task whose runs tell of it: loss, score, and what the embeddings look like, means over reported seeds."""
    for task, study in board.studies.items():
        result, rows = study.result, []
        for loss, (row, *_) in _rows(result).items():
            runs = [run["geometry"] for run in result["runs"]
                    if run.get("geometry") and run["reported"] and run["arm"] == row["arm"]
                    and run["settings"] == row["settings"]]  # fmt: skip
            if runs:
                names = [name for name in GEOMETRY if all(name in run for run in runs)]
                means = {name: float(np.mean([run[name] for run in runs])) for name in names}
                rows.append((loss, row["mean"][result["select_by"]], means))
        if rows:
            yield task, sorted(rows, key=lambda row: -row[1])
