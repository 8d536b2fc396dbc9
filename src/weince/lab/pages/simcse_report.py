"""The report of SimCSE: a table for the terminal, a figure of what was tried, one page that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from rich.console import Console
from rich.table import Table

from weince.lab.engine.result import NAMES
from weince.lab.intervals import Interval
from weince.lab.pages.figures import COLOURS, panels
from weince.lab.tasks.recipe import write
from weince.lab.tasks.simcse_result import METRIC
from weince.lab.tasks.text_recipe import TextRecipe
from weince.shell.files import write_bytes, write_text
from weince.shell.pages import render

__all__ = ["lines", "print_simcse", "write_simcse"]


def write_simcse(result: Mapping[str, Any], folder: Path) -> Path:
    """temperatures.png and simcse.html.

    Args:
        result: of `compare_text`.
        folder: they are written to.

    Returns:
        Path of the page.
    """
    buffer = io.BytesIO()
    _temperatures(result).savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor="white")
    write_bytes(folder / "temperatures.png", buffer.getvalue())
    page = render(
        "lab/pages/simcse.html",
        result=result,
        lines=lines(result),
        names=NAMES,
        recipe_text=write(TextRecipe(**result["recipe"])),
        picture=base64.b64encode(buffer.getvalue()).decode("ascii"),
    )
    write_text(folder / "simcse.html", page)
    return folder / "simcse.html"


def lines(result: Mapping[str, Any]) -> list[list[str]]:
    """The table: what, dev and test Spearman, differences to tuned InfoNCE and to the untrained encoder."""
    found = {(d["of"], d["to"]): str(Interval(d["mean"], d["low"], d["high"])) for d in result["differences"]}
    untrained = result["untrained"]
    rows = [["untrained encoder", f"{100 * untrained['dev']:.2f}", f"{100 * untrained['test']:.2f}", "", ""]]
    for row in result["rows"]:
        differences = [found.get((row["label"], to), "") for to in ("tuned", "untrained")]
        rows.append([row["label"], f"{100 * row['dev']:.2f}", _with_interval(row), *differences])
    for loss, published in result["published"].items():
        if loss in result["recipe"]["losses"]:
            value = f"{100 * published['mean']:.2f} ± {100 * published['half_width']:.2f}"
            rows.append([f"{NAMES[loss]}, as published", "", value, "", ""])
    return rows


def print_simcse(result: Mapping[str, Any], console: Console) -> None:
    """The table, and the sentences that sum it up."""
    recipe = result["recipe"]
    table = Table(
        title=f"{METRIC} x 100 of {recipe['encoder']}, {result['text']['sentences']:,} sentences, "
        f"{recipe['epochs']} x batch {recipe['batch_size']}",
        title_justify="left",
        caption=f"Mean and 95 % t-interval over {len(recipe['seeds'])} seeds; differences paired by seed. Temperatures "
        f"chosen on {result['text']['dev']:,} dev pairs from {recipe['temperatures']}, reported on "
        f"{result['text']['test']:,} test pairs. Published: encoder, sentences and temperature not known to us.",
        caption_justify="left",
    )
    for heading in ("", "dev", "test", "− tuned InfoNCE", "− untrained"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in lines(result):
        table.add_row(*row)
    console.print(table)
    for text in result["warnings"]:
        console.print(f"[yellow]Note:[/yellow] {text}")
    for text in result["sentences"]:
        console.print(f"[bold]{text}[/bold]")


def _with_interval(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"{100 * row['mean']:.2f}"
    return f"{100 * row['mean']:.2f} ± {100 * (row['high'] - row['mean']):.2f}"


def _temperatures(result: Mapping[str, Any]) -> Figure:
    figure, (ax,) = panels(1, width=6.4, height=3.6)
    for number, loss in enumerate(result["recipe"]["losses"]):
        runs = [run for run in result["dev"] if run["loss"] == loss and not run["diverged"]]
        tried = sorted({run["temperature"] for run in runs})
        scores = [[100 * run["spearman"] for run in runs if run["temperature"] == t] for t in tried]
        for t, values in zip(tried, scores, strict=True):
            ax.plot([t] * len(values), values, ".", color=COLOURS[loss], alpha=0.45, markersize=6)
        ax.plot(tried, [np.mean(values) for values in scores], color=COLOURS[loss], label=NAMES[loss], linewidth=2)
        chosen = next(row for row in result["rows"] if row["loss"] == loss and row["kind"] == "tuned")
        size = 10 + 6 * number  # two rings on one point are both seen
        ax.plot([chosen["temperature"]], [100 * chosen["dev"]], "o", markersize=size, markerfacecolor="none",
                markeredgewidth=2, color=COLOURS[loss])  # fmt: skip
    ax.axhline(100 * result["untrained"]["dev"], color="0.5", linestyle=":", linewidth=1.2, label="untrained")
    ax.set_xscale("log")
    ax.set_xticks(result["recipe"]["temperatures"], [f"{t:g}" for t in result["recipe"]["temperatures"]])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("temperature")
    ax.set_ylabel("dev Spearman x 100")
    ax.legend(frameon=False)
    return figure
