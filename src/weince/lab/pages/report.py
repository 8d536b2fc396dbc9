"""The report: a table for the terminal, and one page that opens offline in any browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from weince.lab.engine.result import METRICS, NAMES
from weince.lab.intervals import Interval, paired
from weince.lab.pages.figures import CAPTIONS, draw
from weince.lab.tasks.recipe import REFERENCE, Recipe, write
from weince.shell.files import write_text
from weince.shell.pages import render

__all__ = ["percent", "print_table", "write_report"]


def write_report(folder: Path) -> Path:
    """Figures and page of a finished comparison, from its folder alone.

    Args:
        folder: holds result.json and the runs it speaks of.

    Returns:
        Path of report.html.
    """
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    figures = {name: base64.b64encode(path.read_bytes()).decode("ascii") for name, path in draw(folder, result).items()}
    page = render(
        "lab/pages/report.html",
        result=result,
        recipe_text=write(Recipe(**result["recipe"])),
        figures=figures,
        captions=CAPTIONS,
        metrics=METRICS,
        names=NAMES,
        differences=_grouped(result["differences"]),
        protocols=_by_protocol(result),
        percent=percent,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Test scores of the chosen rows, their paired differences, and the sentences that sum them up."""
    recipe = result["recipe"]
    table = Table(
        title=f"Frozen features on {result['images']['test']:,} test images of {recipe['data']}, %",
        title_justify="left",
        caption=f"Mean ± standard deviation over {len(recipe['seeds'])} seeds; differences paired by seed, with 95 % "
        f"t-intervals, in points. Chosen by validation {METRICS[recipe['select_by']]} from {recipe['temperatures']}.",
        caption_justify="left",
    )
    columns = {
        f"{NAMES[row['loss']]} {row['temperature']:g}\n{row['kind']}": {
            metric: percent(row["mean"][metric], row["sd"][metric]) for metric in METRICS
        }
        for row in result["rows"]
    }
    for d in result["differences"]:
        if d["minus"]["kind"] == "tuned":
            column = columns.setdefault(f"{NAMES[d['of']['loss']]} −\n{NAMES[d['minus']['loss']]}", {})
            column[d["metric"]] = str(_interval(d))
    table.add_column(no_wrap=True)
    for label in columns:
        table.add_column(label, justify="right")
    for metric, name in METRICS.items():
        table.add_row(name, *(by_metric[metric] for by_metric in columns.values()))
    console.print(table)
    for text in result["warnings"]:
        console.print(f"[yellow]Note:[/yellow] {text}")
    for text in result["sentences"]:
        console.print(f"[bold]{text}[/bold]")


def _by_protocol(result: Mapping[str, Any]) -> dict[str, dict[str, list[tuple[str, Interval | None]]]]:
    """Protocol -> metric -> for each row mean and deviation, and the paired difference to tuned InfoNCE."""
    runs = {(run["loss"], run["temperature"], run["seed"]): run.get("protocols", {}) for run in result["test"]}
    seeds, rows = result["recipe"]["seeds"], result["rows"]

    def values(row: Mapping[str, Any], protocol: str, metric: str) -> list[float]:
        return [runs[row["loss"], row["temperature"], seed][protocol][metric] for seed in seeds]

    tuned = next(row for row in rows if row["loss"] == REFERENCE and row["kind"] == "tuned")
    found: dict[str, dict[str, list[tuple[str, Interval | None]]]] = {}
    for protocol, scores in runs[tuned["loss"], tuned["temperature"], seeds[0]].items():
        for metric in scores:
            if metric.startswith("validation_"):
                continue
            name: str = METRICS.get(metric) or metric.replace("recall_at_", "recall@").replace("_", " ")
            cells = found.setdefault(protocol, {}).setdefault(name, [])
            base = values(tuned, protocol, metric)
            for row in rows:
                own = values(row, protocol, metric)
                deviation = float(np.std(own, ddof=1)) if len(own) > 1 else None
                difference = None if row is tuned else paired(np.subtract(own, base).tolist())
                cells.append((percent(float(np.mean(own)), deviation), difference))
    return found


def _grouped(differences: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Interval]]:
    grouped: dict[str, dict[str, Interval]] = {}
    for d in differences:
        grouped.setdefault(d["label"], {})[d["metric"]] = _interval(d)
    return grouped


def _interval(difference: Mapping[str, Any]) -> Interval:
    return Interval(difference["mean"], difference["low"], difference["high"])


def percent(mean: float, deviation: float | None) -> str:
    """Mean and deviation of shares, in per cent."""
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"
