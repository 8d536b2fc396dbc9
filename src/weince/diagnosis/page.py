"""The page of a diagnosis, interactive and offline."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from weince.diagnosis.examine import Diagnosis
from weince.extremes.plots import tail_figure, thresholds_figure
from weince.shell.figures import svg
from weince.shell.pages import render
from weince.shell.words import count

__all__ = ["page", "short"]

PAGE_ANCHORS = 2000


def page(diagnosis: Diagnosis) -> str:
    """The page, with all that it shows inside."""
    d = diagnosis
    seen = _seen(d)
    return render(
        "diagnosis/diagnosis.html",
        summary=d.summary,
        facts=_facts(d.summary),
        seen=seen,
        quantiles=[
            [name.replace("_", " "), *(f"{value:.4g}" for value in quantiles.values())]
            for name, quantiles in d.summary["loss"].items()
        ],
        drawings={
            "tail": svg(tail_figure(d.tails[0], d.curves[0]), seen["tail"]),
            "thresholds": svg(
                thresholds_figure(d.tails, d.excess), " ".join(seen[name] for name in ("shape", "endpoint", "excess"))
            ),
        },
        payload=_payload(d),
    )


def _facts(summary: dict[str, Any]) -> str:
    def size(part: dict[str, Any]) -> str:
        return f"{part['shape'][0]:,} × {part['shape'][1]:,} {part['dtype']}"

    corpus = f" against {size(summary['corpus'])}" if summary["corpus"] else ""
    alignment = "" if summary["alignment"] is None else f" · alignment {summary['alignment']:.3f}"
    return (
        f"{size(summary['file'])}{corpus} · {count(summary['anchors'], 'anchor')}, "
        f"{count(summary['pairs'], 'pair')} of negatives, searched exactly{alignment} · "
        f"uniformity {summary['uniformity']:.3f}"
    )


def _seen(d: Diagnosis) -> dict[str, str]:
    """What each plot shows, for those who do not see it."""
    first, last = d.tails[0], d.tails[-1]
    over = f"at {count(len(d.tails), 'threshold')} from {first.threshold:.3f} to {last.threshold:.3f}"
    middle, high, low = (
        {name: float(np.quantile(values, share)) for name, values in (
            ("rho", d.anchors.nearness), ("beta", d.anchors.slope_line), ("s", d.background))}
        for share in (0.5, 0.95, 0.05)
    )  # fmt: skip
    return {
        "tail": f"Density and quantiles of {count(first.n, 'similarity', 'similarities')} over {first.threshold:.3f}, "
        f"beside a GPD with xi = {first.best.shape:.2f} and an exponential law.",
        "shape": f"Shape xi {over}: {_way([tail.best.shape for tail in d.tails], 2)}.",
        "endpoint": f"Endpoint {over}, where the cap is 1: {_way([tail.best.endpoint for tail in d.tails], 3)}.",
        "excess": f"Mean excess over the threshold, {_way(d.excess.mean.tolist(), 4)}.",
        "anchors": f"{count(len(d.anchors.row[:PAGE_ANCHORS]), 'anchor')} by the shortfall rho of the hardest "
        f"negative, {_spread(low['rho'], middle['rho'], high['rho'])}, and the slope beta, "
        f"{_spread(low['beta'], middle['beta'], high['beta'])}.",
        "background": f"Density of the similarity of random pairs, {_spread(low['s'], middle['s'], high['s'])}; the "
        f"threshold {first.threshold:.3f} and the cap 1 are marked.",
    }


def _way(values: list[float], digits: int) -> str:
    """From the first value to the last."""
    first, last = (f"{value:.{digits}f}" if np.isfinite(value) else "none" for value in (values[0], values[-1]))
    return f"from {first} at the lowest to {last} at the highest"


def _spread(low: float, middle: float, high: float) -> str:
    return f"median {middle:.3g} (5 % {low:.3g}, 95 % {high:.3g})"


def _payload(d: Diagnosis) -> dict[str, Any]:
    """What the page's script draws."""
    a = d.anchors
    density, edges = np.histogram(d.background, 100, density=True)
    shown = slice(0, PAGE_ANCHORS)
    return {
        "thresholds": [
            {**summary, "curves": {name: _rounded(part) for name, part in drawn._asdict().items()}}
            for summary, drawn in zip(d.summary["thresholds"], d.curves, strict=True)
        ],
        "excess": {name: _rounded(part) for name, part in d.excess._asdict().items()},
        "background": {"place": _rounded((edges[1:] + edges[:-1]) / 2), "density": _rounded(density)},
        "anchors": {
            name: _rounded(getattr(a, name)[shown])
            for name in ("row", "nearness", "slope_line", "slope_likelihood", "weight", "effective_temperature",
                         "neighbours", "neighbour_similarity")
        },
        "labels": _labels(d, a.row[shown], a.neighbours[shown]),
    }  # fmt: skip


def _labels(d: Diagnosis, rows: NDArray[np.int64], neighbours: NDArray[np.int64]) -> dict[str, Any] | None:
    if d.labels is None or d.corpus_labels is None:
        return None
    return {
        "anchors": [str(label) for label in d.labels[rows]],
        "neighbours": [[str(label) for label in line] for line in d.corpus_labels[neighbours]],
    }


def _rounded(part: Any) -> Any:
    """Plain lists of seven digits; infinity and NaN as None."""
    if isinstance(part, float):
        return short(part)
    if part.dtype.kind in "iu":
        return part.tolist()
    return [_rounded(row) for row in part] if part.ndim > 1 else [short(value) for value in part.tolist()]


def short(value: float) -> float | None:
    """Seven digits; None where it is infinite or unknown, since JSON has neither."""
    return float(f"{value:.7g}") if np.isfinite(value) else None
