"""What a diagnosis leaves: numbers, tables, figures, and one page that opens offline and answers to clicks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weince.diagnosis.examine import Diagnosis
from weince.extremes.domain import Estimate, Tail
from weince.extremes.plots import anchors_figure, tail_figure, thresholds_figure
from weince.extremes.search import Pairs
from weince.shell.errors import UserError
from weince.shell.files import csv_text, json_text, write_folder
from weince.shell.pages import render

__all__ = ["check_output", "png", "print_diagnosis", "write_diagnosis"]

MARKS = ("diagnosis.json", "training.json")
OURS = {
    *MARKS,
    "anchors.csv",
    "thresholds.csv",
    "exceedances.csv",
    "duplicates.csv",
    "training.csv",
    "figures",
    "report.html",
}
"""All that lies in a folder of ours: one that holds anything else is not replaced."""
PAGE_ANCHORS = 2000


def check_output(folder: Path) -> None:
    """Refuse a folder that holds anything but an earlier diagnosis.

    Raises:
        UserError: it does, or it is a file.
    """
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_dir() and found <= OURS and (not found or found & set(MARKS)):
        return
    if folder.exists():
        raise UserError(
            f"Parameter `output` should be a new folder, or one that holds an earlier diagnosis. Found {folder}."
        )


def write_diagnosis(diagnosis: Diagnosis, folder: Path) -> Path:
    """Numbers, tables, figures and page, all of them or none.

    Args:
        diagnosis: what was found.
        folder: replaced.

    Returns:
        Path of the page.
    """
    d = diagnosis
    figures = {
        "tail": tail_figure(d.tails[0], d.curves[0]),
        "thresholds": thresholds_figure(d.tails, d.excess),
        "anchors": anchors_figure(d.anchors.nearness, d.anchors.slope_line, d.anchors.weight, d.background),
    }
    tables = {
        "anchors": _anchor_rows(d),
        "thresholds": _threshold_rows(d.tails),
        "exceedances": _pairs(d, d.found.pool),
    }
    if d.found.duplicates_in_all:
        tables["duplicates"] = _pairs(d, d.found.duplicates)
    write_folder(
        folder,
        {f"figures/{name}.png": png(figure) for name, figure in figures.items()}
        | {f"{name}.csv": csv_text(rows).encode() for name, rows in tables.items()}
        | {
            "diagnosis.json": json_text(d.summary).encode(),
            "report.html": render("diagnosis/diagnosis.html", summary=d.summary, payload=_payload(d)).encode(),
        },
    )
    return folder / "report.html"


def png(figure: Figure) -> bytes:
    """A figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140, facecolor="white")
    return buffer.getvalue()


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """The verdict, what it rests on, and the tail at every threshold."""
    d = diagnosis
    table = Table(title_justify="left", title="The tail over each threshold, with 95 % intervals")
    for name in ("over", "pairs", "xi", "endpoint", "p (xi = 0)"):
        table.add_column(name, justify="right", no_wrap=True)
    for tail in d.tails:
        best = tail.best
        table.add_row(
            f"{tail.threshold:.3f}",
            f"{tail.n:,}" + ("" if tail.regular else " m"),
            escape(_with_interval(best.shape, best.shape_interval, 2)),
            escape(_with_interval(best.endpoint, best.endpoint_interval, 3)),
            f"{tail.test.p_value:.1g}",
        )
    console.print(table)
    if not all(tail.regular for tail in d.tails):
        console.print("[dim]m: by moments, where maximum likelihood has no normal limit.[/dim]")
    measured = d.summary["loss"]
    console.print(
        f"Anchors: slope {measured['slope_likelihood']['median']:.2f} "
        f"({measured['slope_likelihood']['q05']:.2f} to {measured['slope_likelihood']['q95']:.2f}), "
        f"local dimension {2 * measured['slope_likelihood']['median']:.1f}, nearness "
        f"{measured['nearness']['median']:.3g}, effective temperature "
        f"{measured['effective_temperature']['median']:.3g} (medians; 5 % and 95 %)."
    )
    for note in d.verdict.notes:
        console.print(note, style="dim", highlight=False, markup=False)
    console.print(d.verdict.text, style="bold", highlight=False, markup=False)


def _with_interval(value: float, interval: tuple[float, float], digits: int) -> str:
    low, high = (f"{bound:.{digits}f}" if np.isfinite(bound) else "none" for bound in interval)
    return f"{value:.{digits}f} [{low}, {high}]" if np.isfinite(value) else f"none [{low}, {high}]"


def _anchor_rows(d: Diagnosis) -> list[dict[str, Any]]:
    a = d.anchors
    rows = []
    for i in range(len(a.row)):
        row: dict[str, Any] = {"row": int(a.row[i])}
        if d.labels is not None:
            row["label"] = d.labels[a.row[i]]
        rows.append(
            row
            | {
                "hardest_row": int(a.hardest[i]),
                "hardest_similarity": _short(a.similarity[i]),
                "nearness": _short(a.nearness[i]),
                "slope_line": _short(a.slope_line[i]),
                "slope_likelihood": _short(a.slope_likelihood[i]),
                "local_dimension": _short(2 * a.slope_likelihood[i]),
                "weight": _short(a.weight[i]),
                "effective_temperature": _short(a.effective_temperature[i]),
            }
        )
    return rows


def _threshold_rows(tails: list[Tail]) -> list[dict[str, Any]]:
    return [
        {"threshold": t.threshold, "pairs": t.n, "rows": round(t.rows, 1), "regular": t.regular}
        | _estimate("likelihood", t.likelihood)
        | _estimate("moments", t.moments)
        | {"statistic": t.test.statistic, "p_value": t.test.p_value, "cap_slope": t.cap_slope}
        for t in tails
    ]


def _estimate(name: str, e: Estimate) -> dict[str, float]:
    return {
        f"{name}_shape": e.shape, f"{name}_shape_se": e.shape_se, f"{name}_shape_low": e.shape_interval.low,
        f"{name}_shape_high": e.shape_interval.high, f"{name}_scale": e.scale, f"{name}_endpoint": e.endpoint,
        f"{name}_endpoint_low": e.endpoint_interval.low, f"{name}_endpoint_high": e.endpoint_interval.high,
        f"{name}_inflation": e.inflation,
    }  # fmt: skip


def _pairs(d: Diagnosis, pairs: Pairs) -> list[dict[str, Any]]:
    columns = (pairs.similarity.tolist(), d.anchors.row[pairs.anchor].tolist(), pairs.candidate.tolist())
    return [{"similarity": f"{s:.7g}", "anchor": a, "candidate": c} for s, a, c in zip(*columns, strict=True)]


def _payload(d: Diagnosis) -> dict[str, Any]:
    """What the page's script draws."""
    a = d.anchors
    density, edges = np.histogram(d.background, 100, density=True)
    shown = slice(0, PAGE_ANCHORS)
    return {
        "thresholds": [
            {**summary, "curves": {name: _rounded(part) for name, part in drawn._asdict().items()}}
            for summary, drawn in zip(d.summary["thresholds"], d.curves, strict=True)
        ],
        "excess": {name: _rounded(part) for name, part in d.excess._asdict().items()},
        "background": {"place": _rounded((edges[1:] + edges[:-1]) / 2), "density": _rounded(density)},
        "anchors": {
            name: _rounded(getattr(a, name)[shown])
            for name in ("row", "nearness", "slope_line", "slope_likelihood", "weight", "effective_temperature",
                         "neighbours", "neighbour_similarity")
        },
        "labels": _labels(d, a.row[shown], a.neighbours[shown]),
    }  # fmt: skip


def _labels(d: Diagnosis, rows: NDArray[np.int64], neighbours: NDArray[np.int64]) -> dict[str, Any] | None:
    if d.labels is None or d.corpus_labels is None:
        return None
    return {
        "anchors": [str(label) for label in d.labels[rows]],
        "neighbours": [[str(label) for label in line] for line in d.corpus_labels[neighbours]],
    }


def _rounded(part: Any) -> Any:
    """Plain lists of seven digits; infinity and NaN as None."""
    if isinstance(part, float):
        return _short(part)
    if part.dtype.kind in "iu":
        return part.tolist()
    return [_rounded(row) for row in part] if part.ndim > 1 else [_short(value) for value in part.tolist()]


def _short(value: float) -> float | None:
    return float(f"{value:.7g}") if np.isfinite(value) else None
