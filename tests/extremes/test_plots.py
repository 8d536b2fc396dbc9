"""What figures draw where an interval has no bound."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from weince.extremes.plots import training_figure

ROW = {"shape": -0.3, "shape_low": -0.4, "shape_high": -0.2, "endpoint": 1.01, "endpoint_low": 0.99,
       "endpoint_high": 1.05, "nearness": 0.02}  # fmt: skip


def heights(ax: Axes) -> np.ndarray:
    (band,) = ax.collections
    return band.get_paths()[0].vertices[:, 1]  # pyright: ignore


def drawn(**changed: float) -> tuple[list[Axes], list[np.ndarray]]:
    rows = [{**ROW, "epoch": 0}, {**ROW, "epoch": 1, **changed}]
    figure = training_figure({"a": rows}, {"a": "#4477AA"})
    return figure.axes, [heights(ax) for ax in figure.axes]


def test_bands_are_the_intervals():
    _, (shape, endpoint, _) = drawn()
    assert (shape.min(), shape.max()) == pytest.approx((-0.4, -0.2))
    assert (endpoint.min(), endpoint.max()) == pytest.approx((0.99, 1.05))


@pytest.mark.parametrize("unbounded", [np.inf, np.nan])
def test_an_interval_without_a_bound_goes_to_the_edge_of_the_axis(unbounded):
    (first, second, _), (shape, endpoint, _) = drawn(shape_low=-unbounded, endpoint_high=unbounded)
    assert shape.min() == pytest.approx(first.get_ylim()[0])
    assert endpoint.max() == pytest.approx(second.get_ylim()[1])
    # What is far away leaves the rest to be seen.
    (_, second, _), (_, endpoint, _) = drawn(endpoint=30.0, endpoint_high=1e6)
    assert second.get_ylim()[1] < 2
    assert endpoint.max() == pytest.approx(second.get_ylim()[1])
