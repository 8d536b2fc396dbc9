"""The published numbers, as far as they are known to us."""

from __future__ import annotations

import csv
import io
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Published", "published"]


class Published(NamedTuple):
    """A published row. Estimates are (mean, half width of the interval or None), shares of one.

    Attributes:
        recipe: name of the recipe that is meant to reproduce it.
        benchmark: data.
        encoder: trained on it.
        metric: what is reported.
        estimates: loss -> estimate.
    """

    recipe: str
    benchmark: str
    encoder: str
    metric: str
    estimates: dict[str, tuple[float, float | None]]


def published() -> list[Published]:
    """The published rows that are known to us.

    Source: arXiv:2606.00262.

    Examples:
        >>> published()[0].estimates["weince"]
        (0.7794, 0.0027)
    """
    text = files("weince.lab").joinpath("published.csv").read_text(encoding="utf-8")

    def share(points: str) -> float:
        return round(float(points) / 100, 6)

    return [
        Published(
            row["recipe"],
            row["benchmark"],
            row["encoder"],
            row["metric"],
            {
                loss: (share(row[loss]), share(half) if (half := row[f"{loss}_half_width"]) else None)
                for loss in ("infonce", "weince")
            },
        )
        for row in csv.DictReader(io.StringIO(text))
    ]
