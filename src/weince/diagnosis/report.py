"""What a diagnosis leaves: numbers, tables, figures, and one page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from weince.diagnosis.examine import Diagnosis
from weince.diagnosis.page import page, short
from weince.extremes.domain import Estimate, Tail
from weince.extremes.plots import anchors_figure, tail_figure, thresholds_figure
from weince.extremes.search import Pairs
from weince.shell.figures import png
from weince.shell.files import csv_text, json_text, write_folder
from weince.shell.terminal import table

__all__ = ["print_diagnosis", "write_diagnosis"]


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
            "report.html": page(d).encode(),
        },
    )
    return folder / "report.html"


def print_diagnosis(diagnosis: Diagnosis, console: Console) -> None:
    """The verdict, what it rests on, and the tail at every threshold."""
    d = diagnosis
    shown = table(
        "The tail over each threshold, with 95 % intervals", ("over", "pairs", "xi", "endpoint", "p (xi = 0)")
    )
    for tail in d.tails:
        best = tail.best
        shown.add_row(
            f"{tail.threshold:.3f}",
            f"{tail.n:,}" + ("" if tail.regular else " m"),
            escape(_with_interval(best.shape, best.shape_interval, 2)),
            escape(_with_interval(best.endpoint, best.endpoint_interval, 3)),
            f"{tail.test.p_value:.1g}",
        )
    console.print(shown)
    if not all(tail.regular for tail in d.tails):
        console.print("[dim]m: by moments, where maximum likelihood has no normal limit.[/dim]")
    measured = d.summary["loss"]
    console.print(
        f"Anchors, against all rows: slope {measured['slope_likelihood']['median']:.2f} "
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
                "hardest_similarity": short(a.similarity[i]),
                "nearness": short(a.nearness[i]),
                "slope_line": short(a.slope_line[i]),
                "slope_likelihood": short(a.slope_likelihood[i]),
                "local_dimension": short(2 * a.slope_likelihood[i]),
                "weight": short(a.weight[i]),
                "effective_temperature": short(a.effective_temperature[i]),
            }
        )
    return rows


def _threshold_rows(tails: list[Tail]) -> list[dict[str, Any]]:
    return [
        {"threshold": t.threshold, "pairs": t.n, "rows": round(t.rows, 1), "values": t.values, "regular": t.regular}
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
