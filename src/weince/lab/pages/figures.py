"""The figures of a comparison, drawn from its result alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from weince.lab.rivals import COLOURS

__all__ = ["Drawn", "colours_of", "figures_of", "panels"]

SPARE = ("#117733", "#DDAA33", "#882255", "#44AA99", "#997700", "#332288")
"""Of arms whose loss has no colour of its own."""
LOGARITHMIC = ("rho_0", "gradient_norm")
NAMED = {"loss": "loss, nats", "gradient_norm": "gradient norm", "weight": "mean weight", "slope": "mean slope",
         "rho_0": "reference nearness"}  # fmt: skip
MOST_LINES = 6


class Drawn(NamedTuple):
    """A figure, what it shows, and what is seen in it."""

    title: str
    figure: Figure
    caption: str
    alt: str


def colours_of(result: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Arm -> colour of its loss, and a line style that tells arms of one loss apart."""
    styles, seen, spare = ("-", "--", ":", "-."), {}, iter(SPARE * 9)
    found = {}
    for name, arm in result["plan"]["arms"].items():
        number = seen[arm["loss"]] = seen.get(arm["loss"], -1) + 1
        colour = COLOURS.get(arm["loss"]) or next(spare)
        found[name] = (colour, styles[number % len(styles)])
    return found


def figures_of(result: Mapping[str, Any]) -> Iterator[Drawn]:
    """Every figure that the result has something for."""
    if any(row["tried"] > 1 for row in result["rows"]):
        yield _tried(result)
    if any(d["to"] == "reference" for d in result["differences"]):
        yield _paired(result)
    curves = _reported(result, "curves")
    if curves:
        yield _curves(result, curves)
    histograms = _reported(result, "histograms")
    if histograms:
        yield _histograms(result, histograms)


def panels(count: int, width: float = 4.2, height: float = 3.1, columns: int = 3) -> tuple[Figure, list[Axes]]:
    """Panels of `width` x `height` inches each, `columns` in a row."""
    rows = -(-count // columns)
    figure = Figure(figsize=(width * min(count, columns), height * rows), layout="constrained")
    axes = [figure.add_subplot(rows, min(count, columns), place + 1) for place in range(count)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _title(result: Mapping[str, Any], arm: str) -> str:
    return result["plan"]["arms"][arm].get("title") or arm


def _tried(result: Mapping[str, Any]) -> Drawn:
    """A panel for every setting that varies: each tried value, dots are runs, the line the mean over the rest."""
    metric, seeds = result["select_by"], result["plan"]["seeds"]
    arms = [name for name, arm in result["plan"]["arms"].items() if "follows" not in arm]
    runs = [run for run in result["runs"] if run["seed"] in seeds and run["arm"] in arms and not run["diverged"]]
    values = {
        name: sorted({run["settings"][name] for run in runs if name in run["settings"]}, key=str)
        for name in dict.fromkeys(name for run in runs for name in run["settings"])
    }
    varied = [name for name, found in values.items() if len(found) > 1] or list(values)[:1]
    best = {row["arm"]: row["settings"] for row in result["rows"] if row["kind"] != "usual"}
    figure, axes = panels(len(varied), width=5.2, height=3.6, columns=2)
    colours = colours_of(result)
    for ax, name in zip(axes, varied, strict=True):
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values[name])
        for number, arm in enumerate(arms):
            own = [run for run in runs if run["arm"] == arm and name in run["settings"]]
            if not own:
                continue
            tried = sorted({run["settings"][name] for run in own}, key=None if numbers else str)
            place = {value: value if numbers else values[name].index(value) for value in tried}
            scores = [[100 * r["validation"][metric] for r in own if r["settings"][name] == v] for v in tried]
            colour, style = colours[arm]
            for value, found in zip(tried, scores, strict=True):
                ax.plot([place[value]] * len(found), found, ".", color=colour, alpha=0.45, markersize=6)
            ax.plot([place[v] for v in tried], [np.mean(s) for s in scores], style, color=colour, linewidth=2,
                    label=_title(result, arm))  # fmt: skip
            if arm in best and best[arm].get(name) in place:
                mean = np.mean([100 * r["validation"][metric] for r in own if r["settings"] == best[arm]])
                size = 10 + 5 * number if len(arms) < 4 else 11  # rings on one point are all seen
                ax.plot([place[best[arm][name]]], [mean], "o", markersize=size, markerfacecolor="none",
                        markeredgewidth=2, color=colour)  # fmt: skip
        if not numbers:
            ax.set_xticks(range(len(values[name])), [str(value) for value in values[name]])
        else:
            if min(values[name]) > 0 and max(values[name]) / min(values[name]) >= 8:
                ax.set_xscale("log")
            if len(values[name]) <= 8:
                ax.set_xticks(values[name], [f"{value:g}" for value in values[name]])
                ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel(name.rpartition(".")[2].replace("_", " "))
    axes[0].set_ylabel(f"validation {result['metrics'][metric]}, x 100")
    axes[0].legend(frameon=False, fontsize=8)
    said = "; ".join(
        f"{row['label']}: {100 * row['validation'][metric]:.1f}" for row in result["rows"]
        if row["validation"] and row["kind"] != "usual"
    )  # fmt: skip
    return Drawn(
        "What was tried",
        figure,
        "Validation scores of the runs that choose: dots are seeds, the line their mean over the other settings, a "
        "ring the chosen setting.",
        f"Validation {result['metrics'][metric]} of every setting tried. Chosen: {said}.",
    )


def _paired(result: Mapping[str, Any]) -> Drawn:
    """Differences to the reference, an arm a row."""
    metric = result["select_by"]
    shown = [d for d in result["differences"] if d["to"] == "reference" and d["metric"] == metric]
    figure, (ax,) = panels(1, width=6.8, height=1.1 + 0.42 * len(shown))
    colours = colours_of(result)
    most = max((abs(100 * v) for d in shown for v in [*d["by_seed"], d["low"] or 0, d["high"] or 0]), default=1) or 1
    ax.set_xlim(-1.1 * most, 1.1 * most)
    for place, d in enumerate(shown):
        colour = colours[d["arm"]][0]
        ax.plot([100 * v for v in d["by_seed"]], [-place] * len(d["by_seed"]), ".", color="0.5", markersize=6)
        if d["low"] is not None:
            ax.plot([100 * d["low"], 100 * d["high"]], [-place] * 2, color=colour, linewidth=2)
        ax.plot([100 * d["mean"]], [-place], "D", color=colour, markersize=7)
    ax.axvline(0, color="0.5", linewidth=1)
    ax.set_yticks([-place for place in range(len(shown))], [d["of"] for d in shown])
    ax.set_ylim(-len(shown) + 0.4, 0.6)
    ax.set_xlabel(f"{result['metrics'][metric]}, points more than {shown[0]['minus']}")
    told = "; ".join(_told(d) for d in shown)
    return Drawn(
        "Paired differences",
        figure,
        f"Test {result['metrics'][metric]} minus that of {shown[0]['minus']}: dots are seeds, both of a pair from the "
        "same seed; diamond and bar are mean and 95 % t-interval. A bar that holds zero shows no difference.",
        f"Differences to {shown[0]['minus']} in points of {result['metrics'][metric]}: {told}.",
    )


def _told(d: Mapping[str, Any]) -> str:
    mean = f"{d['of']} {100 * d['mean']:+.1f}"
    return mean if d["low"] is None else f"{mean}, interval {100 * d['low']:+.1f} to {100 * d['high']:+.1f}"


def _reported(result: Mapping[str, Any], kind: str) -> dict[str, list[Mapping[str, Any]]]:
    """Label -> what the runs of a chosen row left of that kind."""
    rows = [row for row in result["rows"] if row["kind"] != "usual"][:MOST_LINES]
    found = {}
    for row in rows:
        runs = [run[kind] for run in result["runs"]
                if run.get(kind) and run["arm"] == row["arm"] and run["settings"] == row["settings"]]  # fmt: skip
        if runs:
            found[row["label"]] = runs
    return found


def _style(result: Mapping[str, Any], label: str) -> tuple[str, str]:
    arm = next(row["arm"] for row in result["rows"] if row["label"] == label)
    return colours_of(result)[arm]


def _curves(result: Mapping[str, Any], curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawn:
    names = list(dict.fromkeys(name for runs in curves.values() for run in runs for name in run))
    figure, axes = panels(len(names))
    ends = []
    for ax, name in zip(axes, names, strict=True):
        for label, runs in curves.items():
            lines = [run[name] for run in runs if run.get(name)]
            if not lines:
                continue
            colour, style = _style(result, label)
            length = min(map(len, lines))
            values = np.array([line[:length] for line in lines])
            steps = np.arange(1, length + 1)
            ax.plot(steps, values.T, color=colour, alpha=0.25, linewidth=0.8)
            ax.plot(steps, values.mean(axis=0), style, color=colour, linewidth=2, label=label)
            ends.append(f"{NAMED.get(name, name)} of {label} ends at {values.mean(axis=0)[-1]:.3g}")
        if name in LOGARITHMIC:
            ax.set_yscale("log")
        ax.set_ylabel(NAMED.get(name, name.replace("_", " ")))
        ax.set_xlabel("through training")
    axes[0].legend(frameon=False, fontsize=8)
    return Drawn(
        "Through training",
        figure,
        "Thin lines are seeds, thick ones their mean. Losses on different scales compare by their shapes alone. "
        "Weight, slope and nearness are those of the tail; where a loss uses none, they are measured on its own "
        "embeddings.",
        "; ".join(ends) + ".",
    )


def _histograms(result: Mapping[str, Any], histograms: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawn:
    names = list(next(iter(histograms.values()))[0])
    figure, axes = panels(len(names), width=4.4)
    middles, edges = [], np.zeros(2)
    for ax, name in zip(axes, names, strict=True):
        for label, runs in histograms.items():
            edges = np.array(runs[0][name]["edges"])
            counts = np.sum([run[name]["counts"] for run in runs], axis=0)
            widths = np.diff(np.log(edges)) if edges[0] > 0 else np.diff(edges)
            colour, style = _style(result, label)
            ax.stairs(counts / counts.sum() / widths, edges, color=colour, linestyle=style, label=label)
            half = np.searchsorted(np.cumsum(counts), counts.sum() / 2)
            middles.append(f"median {name} of {label} {edges[half]:.2g}")
        if edges[0] > 0:
            ax.set_xscale("log")
            ax.invert_xaxis()
        ax.set_xlabel(name)
    axes[0].set_ylabel("density")
    axes[0].legend(frameon=False, fontsize=8)
    return Drawn(
        "How held-out views compete",
        figure,
        "Validation images under two views: the similarities of all negatives; and how far each anchor's hardest "
        "negative and its positive stay below the cap 1, which lies to the right.",
        "; ".join(middles) + ".",
    )
