"""The figures of a comparison, drawn from its result alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from weince.lab.rivals import COLOURS

__all__ = ["Drawn", "colours_of", "figures_of", "panel"]

SPARE = ("#117733", "#DDAA33", "#882255", "#44AA99", "#997700", "#332288")
"""Of arms whose loss has no colour of its own."""
LOGARITHMIC = ("rho_0", "gradient_norm")
NAMED = {"loss": "loss, nats", "gradient_norm": "gradient norm", "weight": "mean weight", "slope": "mean slope",
         "rho_0": "reference nearness"}  # fmt: skip
MOST_LINES = 6


class Drawn(NamedTuple):
    """Drawings that belong together, each with what is seen in it, and what they show."""

    title: str
    drawings: list[tuple[Figure, str]]
    caption: str


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


def panel(width: float = 4.6, height: float = 3.3) -> tuple[Figure, Axes]:
    """One panel of so many inches: several stand side by side in a page, or one under the other on a phone."""
    figure = Figure(figsize=(width, height), layout="constrained")
    ax = figure.add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    return figure, ax


def _title(result: Mapping[str, Any], arm: str) -> str:
    return result["plan"]["arms"][arm].get("title") or arm


def _tried(result: Mapping[str, Any]) -> Drawn:
    """A panel for every setting that varies: each tried value, dots are runs, the line the mean over the rest."""
    seeds = result["plan"]["seeds"]
    arms = [name for name, arm in result["plan"]["arms"].items() if "follows" not in arm]
    runs = [run for run in result["runs"] if run["seed"] in seeds and run["arm"] in arms and not run["diverged"]]
    values = {
        name: sorted({run["settings"][name] for run in runs if name in run["settings"]}, key=str)
        for name in dict.fromkeys(name for run in runs for name in run["settings"])
    }
    varied = [name for name, found in values.items() if len(found) > 1] or list(values)[:1]
    metric = result["metrics"][result["select_by"]]
    said = "; ".join(
        f"{row['label']}: {100 * row['validation'][result['select_by']]:.1f}" for row in result["rows"]
        if row["validation"] and row["kind"] != "usual"
    )  # fmt: skip
    return Drawn(
        "What was tried",
        [
            (_tried_of(result, name, values[name], runs, arms),
             f"Validation {metric} against {_short(name)}. Chosen: {said}.")
            for name in varied
        ],
        "Validation scores of the runs that choose: dots are seeds, the line their mean over the other settings, a "
        "ring the chosen setting.",
    )  # fmt: skip


def _short(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _tried_of(
    result: Mapping[str, Any], name: str, values: list[Any], runs: list[Mapping[str, Any]], arms: list[str]
) -> Figure:
    metric, colours = result["select_by"], colours_of(result)
    best = {row["arm"]: row["settings"] for row in result["rows"] if row["kind"] != "usual"}
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    figure, ax = panel()
    for number, arm in enumerate(arms):
        own = [run for run in runs if run["arm"] == arm and name in run["settings"]]
        if not own:
            continue
        tried = sorted({run["settings"][name] for run in own}, key=None if numbers else str)
        place = {value: value if numbers else values.index(value) for value in tried}
        scores = [[100 * r["validation"][metric] for r in own if r["settings"][name] == v] for v in tried]
        colour, style = colours[arm]
        for value, found in zip(tried, scores, strict=True):
            ax.plot([place[value]] * len(found), found, ".", color=colour, alpha=0.45, markersize=6)
        means = [np.mean(s) for s in scores]
        ax.plot([place[v] for v in tried], means, style, color=colour, linewidth=2, label=_title(result, arm))
        if arm in best and best[arm].get(name) in place:
            mean = np.mean([100 * r["validation"][metric] for r in own if r["settings"] == best[arm]])
            size = 10 + 5 * number if len(arms) < 4 else 11  # rings on one point are all seen
            ax.plot([place[best[arm][name]]], [mean], "o", markersize=size, markerfacecolor="none", markeredgewidth=2,
                    color=colour)  # fmt: skip
    if not numbers:
        ax.set_xticks(range(len(values)), [str(value) for value in values])
    else:
        if min(values) > 0 and max(values) / min(values) >= 8:
            ax.set_xscale("log")
        if len(values) <= 8:
            ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(_short(name))
    ax.set_ylabel(f"validation {result['metrics'][metric]}, x 100")
    ax.legend(frameon=False, fontsize=8, ncols=2 if len(arms) > 4 else 1)
    return figure


def _paired(result: Mapping[str, Any]) -> Drawn:
    """Differences to the reference, an arm a row."""
    metric = result["select_by"]
    shown = [d for d in result["differences"] if d["to"] == "reference" and d["metric"] == metric]
    figure, ax = panel(4.6, 0.8 + 0.52 * len(shown))
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
    for place, d in enumerate(shown):  # above its bar: beside it a long name would leave no room on a phone
        ax.text(0.0, 0.22 - place, d["of"], transform=ax.get_yaxis_transform(), fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    ax.set_yticks([])
    ax.set_ylim(-len(shown) + 0.5, 0.7)
    ax.set_xlabel(f"{result['metrics'][metric]}, points more")
    told = "; ".join(_told(d) for d in shown)
    return Drawn(
        "Paired differences",
        [(figure, f"Differences to {shown[0]['minus']} in points of {result['metrics'][metric]}: {told}.")],
        f"Test {result['metrics'][metric]} minus that of {shown[0]['minus']}: dots are seeds, both of a pair from the "
        "same seed; diamond and bar are mean and 95 % t-interval. A bar that contains zero shows no difference.",
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
    drawings = []
    for name in names:
        figure, ax = panel()
        ends = []
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
            ends.append(f"{label} from {values.mean(axis=0)[0]:.3g} to {values.mean(axis=0)[-1]:.3g}")
        if name in LOGARITHMIC:
            ax.set_yscale("log")
        ax.set_ylabel(NAMED.get(name, name.replace("_", " ")))
        ax.set_xlabel("through training")
        ax.legend(frameon=False, fontsize=8)
        drawings.append((figure, f"{NAMED.get(name, name)} through training: {'; '.join(ends)}."))
    return Drawn(
        "Through training",
        drawings,
        "Thin lines are seeds, thick ones their mean. Losses on different scales compare by their shapes alone. "
        "Weight, slope and nearness are those of the tail; where a loss uses none, they are measured on its own "
        "embeddings.",
    )


def _histograms(result: Mapping[str, Any], histograms: Mapping[str, Sequence[Mapping[str, Any]]]) -> Drawn:
    drawings = []
    for name in next(iter(histograms.values()))[0]:
        figure, ax = panel()
        middles = []
        for label, runs in histograms.items():
            edges = np.array(runs[0][name]["edges"])
            counts = np.sum([run[name]["counts"] for run in runs], axis=0)
            logarithmic = edges[0] > 0
            widths = np.diff(np.log(edges)) if logarithmic else np.diff(edges)
            colour, style = _style(result, label)
            ax.stairs(counts / max(counts.sum(), 1) / widths, edges, color=colour, linestyle=style, label=label)
            middles.append(f"{label} {edges[np.searchsorted(np.cumsum(counts), counts.sum() / 2)]:.2g}")
            if logarithmic:
                ax.set_xscale("log")
        if ax.get_xscale() == "log":
            ax.invert_xaxis()
        ax.set_xlabel(name)
        ax.set_ylabel("density")
        ax.legend(frameon=False, fontsize=8)
        drawings.append((figure, f"Distribution of the {name}; medians: {'; '.join(middles)}."))
    return Drawn(
        "How held-out views compete",
        drawings,
        "Validation images under two views: the similarities of all negatives; and how far each anchor's hardest "
        "negative and its positive stay below the cap 1, which lies to the right.",
    )
