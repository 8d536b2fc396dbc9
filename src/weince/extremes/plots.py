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
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def thresholds_figure(tails: Sequence[Tail], excess: MeanExcess) -> Figure:
    """Shape and endpoint over the threshold, and the mean excess."""
    figure, (left, middle, right) = _panels(3)
    u = [tail.threshold for tail in tails]
    for ax, values, level, least, most in (
        (left, [(t.best.shape, *t.best.shape_interval) for t in tails], 0.0, -1.0, 1.0),
        (middle, [(t.best.endpoint, *t.best.endpoint_interval) for t in tails], 1.0, -1.0, 1.5),
    ):
        value, low, high = np.array(values).T
        bottom, top = _extent(np.array(values), level, least, most)
        _with_intervals(ax, u, value, low, high, (bottom, top), GPD)
        ax.set_ylim(bottom, top)
        ax.axhline(level, color="0.3", linestyle=":", linewidth=1)
    left.set_ylabel("shape xi")
    middle.set_ylabel("endpoint")
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


def training_figure(runs: Mapping[str, Sequence[Mapping[str, float]]], colours: Mapping[str, str]) -> Figure:
    """Shape, endpoint and nearness by epoch, one line a run.

    Args:
        runs: name -> rows with epoch, shape, shape_low, shape_high, endpoint, endpoint_low, endpoint_high, nearness.
        colours: of the runs, by name.
    """
    figure, axes = _panels(3)
    for ax, quantity, label, level, least, most in (
        (axes[0], "shape", "shape xi", 0.0, -1.0, 1.0),
        (axes[1], "endpoint", "endpoint", 1.0, 0.4, 1.6),
        (axes[2], "nearness", "nearness rho, median", None, 0.0, 2.0),
    ):
        names = [
            name for name in (quantity, f"{quantity}_low", f"{quantity}_high") if name in next(iter(runs.values()))[0]
        ]
        edges = _extent(
            np.array([[row[n] for n in names] for rows in runs.values() for row in rows]), level, least, most
        )
        for name, rows in runs.items():
            epochs = [row["epoch"] for row in rows]
            value, low, high = (np.array([row[n] for row in rows]) for n in (names * 3)[:3])
            _with_intervals(ax, epochs, value, low, high, edges, colours[name], name)
        ax.set_ylim(*edges)
        ax.set_xlabel("epoch")
        ax.set_ylabel(label)
        if level is not None:
            ax.axhline(level, color="0.3", linestyle=":", linewidth=1)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper left", ncols=4)
    return figure


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=((4.4 if count < 3 else 3.6) * count, 3.4), layout="constrained")
    axes = [figure.add_subplot(1, count, place + 1) for place in range(count)]
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _extent(values: NDArray[np.float64], level: float | None, least: float, most: float) -> tuple[float, float]:
    """The part of an axis that estimates and the finite bounds of their intervals need, between `least` and `most`."""
    held = np.clip(values[np.isfinite(values)], least, most).tolist() + ([] if level is None else [level])
    room = 0.06 * (max(held) - min(held)) + 1e-4
    return min(held) - room, max(held) + room


def _with_intervals(
    ax: Axes,
    x: Sequence[float],
    value: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    edges: tuple[float, float],
    colour: str,
    name: str | None = None,
) -> None:
    """A line and its band; an interval without a bound is drawn to the edge of the axis."""
    bottom, top = edges
    low, high = np.where(np.isfinite(low), low, bottom), np.where(np.isfinite(high), high, top)
    ax.fill_between(x, np.maximum(low, bottom), np.minimum(high, top), color=colour, alpha=0.2, linewidth=0)
    ax.plot(x, np.where(np.isfinite(value), value, np.nan), "o-", color=colour, markersize=3, label=name)


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
                fontsize=9, ha="right", va="top")  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("winners observed, n")
    ax.set_ylabel("mean squared error of the log-odds")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    return figure
