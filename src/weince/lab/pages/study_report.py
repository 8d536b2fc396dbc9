"""The report of a study: table, figure of what was tried, one offline page; from its database alone."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from weince.lab.engine.result import METRICS
from weince.lab.intervals import Interval
from weince.lab.pages.figures import panels
from weince.lab.pages.report import percent
from weince.shell.files import write_bytes, write_csv, write_json, write_text
from weince.shell.pages import render

__all__ = ["print_study", "write_study"]

COLOURS = ("#4477AA", "#D1495B", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")


def write_study(result: Mapping[str, Any], folder: Path) -> Path:
    """study.json, tried.csv, grid.png and study.html.

    Args:
        result: from `concluded`.
        folder: they are written to.

    Returns:
        Path of the page.
    """
    buffer = io.BytesIO()
    _grid(result).savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor="white")
    write_json(folder / "study.json", result)
    write_bytes(folder / "grid.png", buffer.getvalue())
    rows = [
        {"arm": run["arm"], **run["settings"], "seed": run["seed"], **run["validation"], "seconds": run["seconds"],
         "commit": run["made"]["commit"], "device": run["made"]["device"], "torch": run["made"]["torch"]}
        for run in result["tried"]
    ]  # fmt: skip
    write_csv(folder / "tried.csv", rows)
    compared: dict[str, set[str]] = {}
    for d in result["differences"]:
        compared.setdefault(d["minus"], set()).add(d["arm"])
    page = render(
        "lab/pages/study.html",
        result=result,
        metrics=METRICS,
        percent=percent,
        picture=base64.b64encode(buffer.getvalue()).decode("ascii"),
        difference={
            (d["arm"], d["minus"], d["metric"]): Interval(d["mean"], d["low"], d["high"]) for d in result["differences"]
        },
        bases=list(compared),
        compared=compared,
    )
    write_text(folder / "study.html", page)
    return folder / "study.html"


def print_study(result: Mapping[str, Any], console: Console) -> None:
    """The table, and the sentences that sum it up."""
    recipe = result["plan"]["recipe"]
    table = Table(
        title=f"Study {recipe['name']}, test scores of the settings chosen on validation "
        f"{METRICS[recipe['select_by']]}, %",
        title_justify="left",
    )
    table.add_column("arm", overflow="fold")
    for name in METRICS.values():
        table.add_column(name.replace(" ", "\n"), justify="right")
    for row in result["rows"]:
        table.add_row(row["label"], *(percent(row["mean"][metric], row["sd"][metric]) for metric in METRICS))
    console.print(table)
    for text in result["warnings"]:
        console.print(f"[yellow]Note:[/yellow] {text}")
    for text in result["sentences"]:
        console.print(f"[bold]{text}[/bold]")


def _grid(result: Mapping[str, Any]) -> Figure:
    """A panel for every setting that varies: each tried value, dots are runs, the line the mean over the rest."""
    metric = result["plan"]["recipe"]["select_by"]
    choosing = [run for run in result["tried"] if run["seed"] in result["plan"]["recipe"]["seeds"]]
    values = {
        name: sorted({run["settings"][name] for run in choosing if name in run["settings"]}, key=str)
        for name in dict.fromkeys(name for run in choosing for name in run["settings"])
    }
    varied = [name for name, found in values.items() if len(found) > 1] or list(values)[:1]
    figure, axes = panels(max(1, len(varied)), width=4.6, height=3.4)
    best = {row["arm"]: row["settings"] for row in result["rows"]}
    for ax, name in zip(axes, varied, strict=False):
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values[name])
        for colour, arm in zip(COLOURS * 9, result["plan"]["arms"], strict=False):
            runs = [run for run in choosing if run["arm"] == arm and name in run["settings"]]
            if not runs:
                continue
            tried = sorted({run["settings"][name] for run in runs}, key=None if numbers else str)
            place = {value: value if numbers else values[name].index(value) for value in tried}
            scores = [[100 * r["validation"][metric] for r in runs if r["settings"][name] == v] for v in tried]
            for value, found in zip(tried, scores, strict=True):
                ax.plot([place[value]] * len(found), found, ".", color=colour, alpha=0.4, markersize=5)
            ax.plot([place[v] for v in tried], [np.mean(s) for s in scores], color=colour, linewidth=1.8, label=arm)
            if arm in best and best[arm].get(name) in place:
                at = best[arm][name]
                mean = np.mean([100 * r["validation"][metric] for r in runs if r["settings"] == best[arm]])
                ax.plot(
                    [place[at]], [mean], "o", markersize=11, markerfacecolor="none", markeredgewidth=2, color=colour
                )
        if not numbers:
            ax.set_xticks(range(len(values[name])), [str(value) for value in values[name]])
        elif min(values[name]) > 0 and max(values[name]) / min(values[name]) >= 10:
            ax.set_xscale("log")
        ax.set_xlabel(name.removeprefix("gate."))
    axes[0].set_ylabel(f"validation {METRICS[metric]}, %")
    axes[0].legend(frameon=False, fontsize=8)
    return figure
