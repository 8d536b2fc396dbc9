"""What the loss should cost on a GPU, and whether it does: one table, and a line for each target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

Row = Mapping[str, str]
"""As `rows.read` returns them."""


class Target(NamedTuple):
    """A number that should not be larger than its bound.

    Attributes:
        title: for people.
        metric: of the row.
        loss: whose row.
        bound: of the value, or of its ratio.
        over: whose row of the same size it is divided by; None where the value itself is bounded.
        least: from this 2N on.
        only: at this 2N alone.
        unit: behind the number.
    """

    title: str
    metric: str
    loss: str
    bound: float
    over: str | None = None
    least: int = 0
    only: int | None = None
    unit: str = ""


TARGETS = (
    Target("WEINCE / own InfoNCE", "step_ms", "WEINCE tiled", 1.3, over="InfoNCE tiled"),
    Target("WEINCE / lightly's plain InfoNCE", "step_ms", "WEINCE tiled", 1.0, over="lightly NTXentLoss"),
    Target("WEINCE / bare three products", "step_ms", "WEINCE tiled", 2.0, over="floor (3 products)", least=4096),
    Target("step overhead of WEINCE over InfoNCE", "step_overhead", "WEINCE", 0.5, unit=" %"),
    Target("peak extra memory of WEINCE", "peak_mib", "WEINCE tiled", 1024.0, only=65536, unit=" MiB"),
)


def verdicts(rows: Sequence[Row], targets: Sequence[Target] = TARGETS) -> list[str]:
    """For each target a line over all sizes, and one for every size under it.

    Args:
        rows: of one device.
        targets: what to hold them against.
    """
    lines = []
    for target in targets:
        found = sorted(_values(target, rows))
        if not found:
            lines.append(f"not measured: {target.title}{_place(target)} (target <= {target.bound:g}{target.unit})")
            continue
        met = sum(value <= target.bound for *_, value in found)
        if len(found) > 1:
            goal = f"(target <= {target.bound:g}{target.unit})"
            lines.append(f"{target.title}: {'met' if met == len(found) else 'NOT met'}, {met} of {len(found)} {goal}")
        lines += [
            f"{'  ' if len(found) > 1 else ''}{_line(target, *each)}{_spread(target, rows, *each)}" for each in found
        ]
    return lines


def _values(target: Target, rows: Sequence[Row]) -> Iterator[tuple[str, int, int, float]]:
    """Kind, width, 2N and value of each row that the target is about."""
    cells = {
        (row["loss"], row["kind"], row["width"], row["two_n"]): float(row["value"])
        for row in rows
        if row["metric"] == target.metric and row["value"] != "skipped"
    }
    for (loss, kind, width, two_n), value in cells.items():
        if loss != target.loss or int(two_n) < target.least or target.only not in (None, int(two_n)):
            continue
        if target.over is None:
            yield kind, int(width), int(two_n), value
        elif (target.over, kind, width, two_n) in cells:
            yield kind, int(width), int(two_n), value / cells[target.over, kind, width, two_n]


def _line(target: Target, kind: str, width: int, two_n: int, value: float) -> str:
    where = f"in {kind}" if target.metric == "step_overhead" else f"at 2N = {two_n:,}, D = {width}"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
    if float(shown.replace(",", "")) <= target.bound < value:
        shown = f"{value:.4f}"  # rounding does not meet a target
    met = "met" if value <= target.bound else "NOT met"
    return f"{target.title} {where}: {shown}{target.unit} (target <= {target.bound:g}{target.unit}) {met}"


def _spread(target: Target, rows: Sequence[Row], kind: str, width: int, two_n: int, _: float) -> str:
    """Where the middle half of the rounds lies, for a value that is small beside its noise."""
    here = {"loss": target.loss, "kind": kind, "width": str(width), "two_n": str(two_n)}
    ends = [
        row["value"]
        for end in ("_low", "_high")
        for row in rows
        if row["metric"] == target.metric + end and all(row[name] == value for name, value in here.items())
    ]
    return f"; the middle half of the rounds from {ends[0]} to {ends[1]}{target.unit}" if len(ends) == 2 else ""


def _place(target: Target) -> str:
    if target.only is not None:
        return f" at 2N = {target.only:,}"
    return f" from 2N = {target.least:,} on" if target.least else ""
