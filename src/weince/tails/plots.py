"""The figures of the tails: matplotlib, nothing computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from weince.tails.noise_floor import Simulated, Theory

__all__ = ["noise_floor_figure"]

WEIBIT, SOFTMAX = "#D1495B", "#4477AA"


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
