"""The figures of a comparison, drawn from what its folder holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from weince.lab.engine.result import METRICS, NAMES
from weince.lab.tasks.recipe import PAPER_TEMPERATURE, Run
from weince.shell.files import write_bytes

__all__ = ["CAPTIONS", "COLOURS", "draw", "panels"]

CAPTIONS: dict[str, str] = {
    "temperatures": "Validation score at every temperature tried: dots are seeds, the line their mean, a ring the "
    "temperature chosen. Every loss gets the same grid.",
    "paired": "Test scores of the chosen runs. Left: a line joins the runs of one seed, which share initial weights, "
    "data order and views. Right: their differences (dots), mean and 95 % t-interval; an interval that holds "
    "zero shows no difference.",
    "tail": "The tail through training, means over anchors and batches: the weight of the shortfall coordinate, the "
    "fitted slope, and the batch's reference nearness rho_0 (smaller is nearer the cap). InfoNCE uses none of "
    "them, the released form only the weight; their tails are measured on their own embeddings.",
    "hard_negatives": "Validation images under two views. Left: the similarities of all negatives. Right: how far each "
    "anchor's hardest negative (filled) and its positive (dashed) stay below the cap, on the logarithmic "
    "scale in which the shortfall coordinate works.",
    "training": "Training loss and gradient norm of the chosen runs. The losses are on different scales; only their "
    "shapes compare.",
}
"""Figure name -> what it shows."""

COLOURS = {
    "infonce": "#4477AA",
    "weince": "#D1495B",
    "weince-released": "#228833",
    "dcl": "#CCBB44",
    "hard-negatives": "#66CCEE",
    "matched-temperature": "#AA3377",
}
"""Tell apart with any colour vision."""


def draw(folder: Path, result: Mapping[str, Any]) -> dict[str, Path]:
    """Draw every figure of a finished comparison as PNG.

    Args:
        folder: of the comparison.
        result: content of its result.json.

    Returns:
        Figure name -> path, in the order of CAPTIONS.
    """
    made = {}
    for name, figure in (
        ("temperatures", _temperatures(result)),
        ("paired", _paired(result)),
        ("tail", _through_training(folder, result, {"weight": "mean weight", "slope": "mean slope", "rho_0": "rho_0"})),
        ("hard_negatives", _hard_negatives(folder, result)),
        ("training", _through_training(folder, result, {"loss": "loss, nats", "gradient_norm": "gradient norm"})),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=160, bbox_inches="tight", facecolor="white")
        made[name] = folder / "figures" / f"{name}.png"
        write_bytes(made[name], buffer.getvalue())
    return made


def panels(count: int, width: float = 4.2, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    """A row of panels, `width` x `height` inches each."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _temperatures(result: Mapping[str, Any]) -> Figure:
    metric = result["recipe"]["select_by"]
    figure, (ax,) = panels(1, width=6.4, height=3.6)
    for loss in result["recipe"]["losses"]:
        runs = [run for run in result["validation"] if run["loss"] == loss]
        temperatures = sorted({run["temperature"] for run in runs})
        by_temperature = [[100 * r["scores"][metric] for r in runs if r["temperature"] == t] for t in temperatures]
        colour = COLOURS[loss]
        for t, values in zip(temperatures, by_temperature, strict=True):
            ax.plot([t] * len(values), values, ".", color=colour, alpha=0.45, markersize=6)
        ax.plot(temperatures, [np.mean(v) for v in by_temperature], color=colour, label=NAMES[loss], linewidth=2)
        chosen = next(row["temperature"] for row in result["rows"] if row["loss"] == loss and row["kind"] == "tuned")
        best = np.mean(by_temperature[temperatures.index(chosen)])
        size = 10 + 6 * result["recipe"]["losses"].index(loss)  # two rings on one point are both seen
        ax.plot([chosen], [best], "o", markersize=size, markerfacecolor="none", markeredgewidth=2, color=colour)
    ax.axvline(PAPER_TEMPERATURE, color="0.5", linestyle=":", linewidth=1.2)
    ax.annotate("published", (PAPER_TEMPERATURE, 1), xycoords=("data", "axes fraction"), color="0.4", fontsize=8,
                xytext=(3, -2), textcoords="offset points", va="top")  # fmt: skip
    ax.set_xscale("log")
    ax.set_xticks(result["recipe"]["temperatures"], [f"{t:g}" for t in result["recipe"]["temperatures"]])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("temperature")
    ax.set_ylabel(f"validation {METRICS[metric]}, %")
    ax.legend(frameon=False)
    return figure


def _paired(result: Mapping[str, Any]) -> Figure:
    metric = result["recipe"]["select_by"]
    figure, (left, right) = panels(2, width=5.2, height=3.8)
    rows = result["rows"]
    scores = {(r["loss"], r["temperature"], r["seed"]): 100 * r["scores"][metric] for r in result["test"]}
    for seed in result["recipe"]["seeds"]:
        line = [scores[row["loss"], row["temperature"], seed] for row in rows]
        left.plot(range(len(rows)), line, color="0.6", linewidth=1, zorder=1)
        left.scatter(range(len(rows)), line, c=[COLOURS[row["loss"]] for row in rows], s=36, zorder=2)
    names = [f"{NAMES[row['loss']]}\nat {row['temperature']:g}\n({row['kind']})" for row in rows]
    left.set_xticks(range(len(rows)), names)
    left.set_xlim(-0.5, len(rows) - 0.5)
    left.set_ylabel(f"test {METRICS[metric]}, %")

    tuned = next((d["minus"] for d in result["differences"] if d["minus"]["kind"] == "tuned"), None)
    shown = [d for d in result["differences"] if d["minus"] == tuned]
    losses = list(dict.fromkeys(d["of"]["loss"] for d in shown))
    for d in shown:
        spread = 0.22 * (losses.index(d["of"]["loss"]) - (len(losses) - 1) / 2)
        place = -list(METRICS).index(d["metric"]) - spread
        colour = COLOURS[d["of"]["loss"]]
        if d["low"] is not None:
            right.plot([100 * d["low"], 100 * d["high"]], [place] * 2, color=colour, linewidth=2)
        right.plot([100 * d["mean"]], [place], "D", color=colour, markersize=6)
        right.plot([100 * v for v in d["by_seed"]], [place] * len(d["by_seed"]), ".", color="0.35", markersize=5)
    right.axvline(0, color="0.3", linewidth=1)
    right.set_yticks([-i for i in range(len(METRICS))], list(METRICS.values()))
    right.set_xlabel("test difference to tuned InfoNCE, points")
    return figure


def _through_training(folder: Path, result: Mapping[str, Any], columns: Mapping[str, str]) -> Figure:
    figure, axes = panels(len(columns))
    for row in _tuned(result):
        histories = [_history(folder, run) for run in _runs(result, row)]
        for ax, (column, label) in zip(axes, columns.items(), strict=True):
            values = np.array([[float(epoch[column]) for epoch in history] for history in histories])
            epochs = np.arange(1, values.shape[1] + 1)
            ax.plot(epochs, values.T, color=COLOURS[row["loss"]], alpha=0.25, linewidth=0.8)
            ax.plot(epochs, values.mean(axis=0), color=COLOURS[row["loss"]], linewidth=2, label=_name(row))
            ax.set_xlabel("epoch")
            ax.set_ylabel(label)
            if column in ("rho_0", "gradient_norm"):
                ax.set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _hard_negatives(folder: Path, result: Mapping[str, Any]) -> Figure:
    figure, (left, right) = panels(2, width=5.2, height=3.6)
    edges = np.linspace(-1, 1, 201)
    for row in _tuned(result):
        held = [_held_out(folder, run) for run in _runs(result, row)]
        colour = COLOURS[row["loss"]]
        everyone = np.sum([h["histogram"] for h in held], axis=0)
        left.stairs(everyone / everyone.sum() / np.diff(edges), edges, color=colour, label=_name(row))
        pooled = {key: np.concatenate([h[key] for h in held]) for key in ("positive", "hardest")}
        lowest = min(float(1 - values.max()) for values in pooled.values())
        bins = list(np.geomspace(max(lowest, 1e-6), 2, 60))
        right.hist(1 - pooled["hardest"], bins, color=colour, alpha=0.4, label=f"{_name(row)}: hardest negative")
        right.hist(
            1 - pooled["positive"], bins, color=colour, histtype="step", linestyle="--", label=f"{_name(row)}: positive"
        )
    left.set_xlabel("cosine similarity of all negatives")
    left.set_ylabel("density")
    left.legend(frameon=False, fontsize=8)
    right.set_xscale("log")
    right.invert_xaxis()
    right.set_xlabel("shortfall 1 − s (the cap lies to the right)")
    right.set_ylabel("anchors")
    right.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def _name(row: Mapping[str, Any]) -> str:
    return f"{NAMES[row['loss']]} at {row['temperature']:g}"


def _tuned(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if row["kind"] == "tuned"]


def _runs(result: Mapping[str, Any], row: Mapping[str, Any]) -> list[Run]:
    return [Run(row["loss"], row["temperature"], seed) for seed in result["recipe"]["seeds"]]


def _history(folder: Path, run: Run) -> list[dict[str, str]]:
    with (folder / "runs" / run.slug / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _held_out(folder: Path, run: Run) -> dict[str, np.ndarray]:
    with np.load(folder / "runs" / run.slug / "held_out.npz", allow_pickle=False) as held:
        return {key: held[key] for key in held.files}
