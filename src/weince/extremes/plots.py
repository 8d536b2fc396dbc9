"""The figures of the tails: matplotlib, nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from weince.extremes.curves import Curves, MeanExcess
from weince.extremes.domain import Tail
from weince.extremes.noise_floor import Simulated, Theory

__all__ = ["anchors_figure", "noise_floor_figure", "tail_figure", "thresholds_figure", "training_figure"]

WEIBIT, SOFTMAX = "#D1495B", "#4477AA"
GPD, EXPONENTIAL, DATA = WEIBIT, SOFTMAX, "#5C6675"


def tail_figure(tail: Tail, drawn: Curves) -> Figure:
    """Density and quantiles of the exceedances, beside both laws."""
    figure, (left, right) = _panels(2)
    left.bar(drawn.place, drawn.density, drawn.width, color=DATA, alpha=0.35, label=f"{tail.n:,} pairs")
    left.plot(drawn.place, drawn.gpd_density, color=GPD, label=f"GPD, xi = {tail.best.shape:.2f}")
    left.plot(drawn.place, drawn.exponential_density, color=EXPONENTIAL, linestyle="--", label="exponential")
    left.set_xlabel("similarity")
    left.set_ylabel("density over the threshold")
    left.legend(frameon=False, fontsize=8)
    ends = [drawn.quantile[0], drawn.quantile[-1]]
    right.plot(ends, ends, color="0.6", linewidth=1)
    right.plot(drawn.gpd_quantile, drawn.quantile, "o", color=GPD, markersize=3, label="GPD")
    right.plot(drawn.exponential_quantile, drawn.quantile, "x", color=EXPONENTIAL, markersize=3, label="exponential")
    right.axvline(1, color="0.3", linestyle=":", linewidth=1)
    right.set_xlabel("similarity the law expects")
    right.set_ylabel("similarity found")
    right.legend(frameon=False, fontsize=8)
    return figure


def thresholds_figure(tails: Sequence[Tail], excess: MeanExcess) -> Figure:
    """Shape and endpoint over the threshold, and the mean excess."""
    figure, (left, middle, right) = _panels(3)
    u = [tail.threshold for tail in tails]
    _with_intervals(left, u, [(t.best.shape, *t.best.shape_interval) for t in tails])
    left.axhline(0, color="0.3", linestyle=":", linewidth=1)
    left.set_ylabel("shape xi")
    _with_intervals(middle, u, [(t.best.endpoint, *t.best.endpoint_interval) for t in tails])
    middle.axhline(1, color="0.3", linestyle=":", linewidth=1)
    middle.set_ylabel("endpoint")
    bounds = [bound for t in tails for bound in t.best.endpoint_interval if np.isfinite(bound)]
    low, high = min(1.0, *bounds), max(1.0, *(min(bound, 1.5) for bound in bounds))
    middle.set_ylim(low - 0.06 * (high - low) - 1e-4, high + 0.06 * (high - low) + 1e-4)
    right.fill_between(excess.threshold, excess.mean - excess.error, excess.mean + excess.error, color=DATA, alpha=0.25,
                       linewidth=0)  # fmt: skip
    right.plot(excess.threshold, excess.mean, color=DATA)
    right.set_ylabel("mean excess")
    for ax in (left, middle, right):
        ax.set_xlabel("threshold, a similarity")
    return figure


def anchors_figure(nearness: NDArray[np.float64], slope: NDArray[np.float64], weight: NDArray[np.float64],
                   sample: NDArray[np.float64]) -> Figure:  # fmt: skip
    """All similarities, and every anchor's nearness, slope and weight."""
    figure, (left, right) = _panels(2)
    left.hist(sample, bins=80, density=True, color=DATA, alpha=0.5)
    left.axvline(1, color="0.3", linestyle=":", linewidth=1)
    left.set_xlabel("similarity of a random pair")
    left.set_ylabel("density")
    drawn = right.scatter(nearness, np.maximum(slope, 1e-2), c=weight, cmap="viridis", s=7, vmin=0, vmax=1)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("shortfall of the hardest negative, rho")
    right.set_ylabel("slope beta")
    figure.colorbar(drawn, ax=right, label="weight lambda")
    return figure


def training_figure(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Shape, endpoint and nearness by epoch, one line a run.

    Args:
        runs: name -> rows with epoch, shape, shape_low, shape_high, endpoint, endpoint_low, endpoint_high, nearness.
    """
    figure, axes = _panels(3)
    colours = ["#4477AA", "#D1495B", "#228833", "#CCBB44", "#66CCEE", "#AA3377"]
    for place, (name, rows) in enumerate(runs.items()):
        epochs = [row["epoch"] for row in rows]
        colour = colours[place % len(colours)]
        for ax, quantity in zip(axes, ("shape", "endpoint", "nearness"), strict=True):
            ax.plot(epochs, [row[quantity] for row in rows], "o-", color=colour, markersize=3, label=name)
            if f"{quantity}_low" in rows[0]:
                low, high = ([row[f"{quantity}_{side}"] for row in rows] for side in ("low", "high"))
                ax.fill_between(epochs, low, np.minimum(high, 1e3), color=colour, alpha=0.15, linewidth=0)
    for ax, name, line in zip(axes, ("shape xi", "endpoint", "nearness rho, median"), (0, 1, None), strict=True):
        ax.set_xlabel("epoch")
        ax.set_ylabel(name)
        if line is not None:
            ax.axhline(line, color="0.3", linestyle=":", linewidth=1)
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(max(low, 0.4), min(high, 1.6))
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.4 * count, 3.4), layout="constrained")
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _with_intervals(ax: Axes, u: Sequence[float], values: Sequence[tuple[float, ...]]) -> None:
    middle, low, high = np.minimum(np.array(values), 10.0).T
    ax.fill_between(u, low, high, color=GPD, alpha=0.2, linewidth=0)
    ax.plot(u, middle, "o-", color=GPD, markersize=3)


def noise_floor_figure(found: Sequence[Simulated], limit: Theory) -> Figure:
    """Mean squared error of both models by sample size: dots are simulated, lines theory."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    ax = figure.add_subplot()
    n = np.geomspace(found[0].n, found[-1].n, 100)
    for name, colour, line, values, errors in (
        ("Weibit, the law itself", WEIBIT, limit.weibit_mse(n), [f.weibit_mse for f in found],
         [f.weibit_se for f in found]),
        ("softmax in the score", SOFTMAX, limit.softmax_mse(n), [f.softmax_mse for f in found],
         [f.softmax_se for f in found]),
    ):  # fmt: skip
        ax.plot(n, line, color=colour, linewidth=1.4, label=f"{name}: theory")
        ax.errorbar([f.n for f in found], values, np.multiply(2, errors), fmt="o", color=colour, markersize=5,
                    label=f"{name}: simulated")  # fmt: skip
    ax.axhline(limit.floor, color=SOFTMAX, linestyle=":", linewidth=1.2)
    ax.annotate(f"floor {limit.floor:.4f}", (found[-1].n, limit.floor), xytext=(0, -5), textcoords="offset points",
                color=SOFTMAX, fontsize=9, ha="right", va="top")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("winners observed, n")
    ax.set_ylabel("mean squared error of the log-odds")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
