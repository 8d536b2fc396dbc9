"""What a comparison shows: a table for the terminal, numbers as JSON and CSV, and one page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from weince.lab.engine.plan import words
from weince.lab.intervals import Interval
from weince.lab.pages.figures import figures_of
from weince.shell.figures import svg
from weince.shell.files import write_csv, write_json, write_text
from weince.shell.pages import render
from weince.shell.words import count

__all__ = ["cell", "differences_of", "print_result", "write_result"]

PLUS_MINUS = "± is the half width of the 95 % t-interval over seeds"


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """result.json, scores.csv and report.html.

    Args:
        result: of `result_of`.
        folder: they are written to.

    Returns:
        Path of the page.
    """
    write_json(folder / "result.json", result)
    write_csv(folder / "scores.csv", _tidy(result))
    page = render(
        "lab/pages/comparison.html",
        result=result,
        figures=[(drawn.title, svg(drawn.figure, drawn.alt), drawn.caption) for drawn in figures_of(result)],
        rows=[
            {**row, "cells": [cell(row, metric) for metric in result["metrics"]],
             "differences": differences_of(result, row["label"])}
            for row in result["rows"]
        ],
        others=_others(result),
        runs=[{**run, "said": words(run["settings"])} for run in result["runs"]],
        recipe=_recipe(result),
        seeds=count(len(result["seeds"]), "seed"),
        many=len(result["rows"]) > 4,
        plus_minus=PLUS_MINUS,
        words=words,
    )  # fmt: skip
    write_text(folder / "report.html", page)
    return folder / "report.html"


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """Test scores of the chosen settings, their paired differences, and the sentences that sum them up."""
    metrics, select_by = result["metrics"], result["select_by"]
    table = Table(title=f"{result['name']}: test scores of the chosen settings, x 100", title_justify="left",
                  box=None, padding=(0, 2, 0, 0))  # fmt: skip
    table.add_column("", overflow="fold")
    shown = list(metrics)[:3] if select_by in list(metrics)[:3] else [*list(metrics)[:2], select_by]
    for metric in shown:
        table.add_column(metrics[metric].replace(" ", "\n", 1), justify="right", no_wrap=True)
    table.add_column(f"− {_reference(result)}\n{metrics[select_by]}", justify="right", no_wrap=True)
    if result["untrained"]:
        table.add_row(result["untrained"]["name"],
                      *(f"{100 * result['untrained']['test'][metric]:.1f}" for metric in shown), "")  # fmt: skip
    for row in result["rows"]:
        found = differences_of(result, row["label"]).get("reference", {}).get(select_by)
        table.add_row(row["label"], *(cell(row, metric) for metric in shown), "" if found is None else str(found))
    console.print(table, highlight=False)
    chosen = f"Chosen by validation {metrics[select_by]}; {PLUS_MINUS} ({count(len(result['seeds']), 'seed')}); "
    console.print(f"{chosen}differences are paired by seed, in points.", style="dim", highlight=False)
    for text in result["warnings"]:
        console.print(f"[yellow]Note:[/yellow] {text}", highlight=False)
    for text in result["sentences"]:
        console.print(f"[bold]{text}[/bold]", highlight=False)


def cell(row: Mapping[str, Any], metric: str) -> str:
    """Mean and half width of the interval, in per cent."""
    high = row["interval"][metric][1]
    mean = row["mean"][metric]
    return f"{100 * mean:.1f}" if high is None else f"{100 * mean:.1f} ± {100 * (high - mean):.1f}"


def differences_of(result: Mapping[str, Any], label: str) -> dict[str, dict[str, Interval]]:
    """To what -> metric -> the differences of a row."""
    found: dict[str, dict[str, Interval]] = {}
    for d in result["differences"]:
        if d["of"] == label:
            found.setdefault(d["to"], {})[d["metric"]] = Interval(d["mean"], d["low"], d["high"])
    return found


def _reference(result: Mapping[str, Any]) -> str:
    reference = result["plan"]["reference"]
    return next(row["title"] for row in result["rows"] if row["arm"] == reference)


def _recipe(result: Mapping[str, Any]) -> str:
    """The settings as TOML, without the folders of one machine."""
    import tomli_w

    kept = {k: v for k, v in result["settings"].items() if v not in (None, [], {}) and k not in PRIVATE}
    return tomli_w.dumps({k: _plain(v) for k, v in kept.items()})


PRIVATE = ("output", "data_dir", "stsb_dir", "sentences")


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


def _others(result: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Evaluation -> metric -> the mean of each row."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in result["rows"]:
        for protocol, scores in (row["others"][0] if row["others"] else {}).items():
            for metric in scores:
                if not metric.startswith("validation_"):
                    values = [seed[protocol][metric] for seed in row["others"]]
                    found.setdefault(protocol, {}).setdefault(metric, []).append(sum(values) / len(values))
    return found


def _tidy(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """One row a score: arm, settings, seed, part of the data, metric, value."""
    rows = []
    if result["untrained"]:
        for part in ("validation", "test"):
            rows += [{"arm": "untrained", "settings": "", "seed": None, "part": part, "metric": metric, "value": value}
                     for metric, value in result["untrained"][part].items()]  # fmt: skip
    for run in result["runs"]:
        for part in ("validation", "test"):
            for metric, value in (run[part] or {}).items():
                rows.append({"arm": run["arm"], "settings": words(run["settings"]), "seed": run["seed"], "part": part,
                             "metric": metric, "value": value})  # fmt: skip
    return rows
