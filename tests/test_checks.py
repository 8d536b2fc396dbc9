"""Bad input: the exception, the parameter it names, and what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from batches import views, whole
from weince import EmbeddingQueue, Gate, InfoNCELoss, LearnableTemperature, ReleasedTopMLoss, WEINCELoss, weince_loss
from weince.checks import check_finite_rows, check_integer, check_number

GOOD = torch.eye(3, 4)
NUMBERS = [(math.nan, ValueError), (math.inf, ValueError), (-math.inf, ValueError), (True, TypeError), ("1", TypeError)]
NO_NUMBER = [*NUMBERS, (None, TypeError), (torch.tensor(0.5), TypeError)]


def numbers(name: str, *outside: float, none: bool = False) -> list[tuple[str, object, type[Exception]]]:
    """Rows of the table for one number: what no number may be, and values outside its range."""
    refused = [row for row in NO_NUMBER if row[0] is not None or not none]
    return [(name, *row) for row in refused] + [(name, value, ValueError) for value in outside]


GATE = [
    *numbers("kappa_rho", -1e-9),
    *numbers("kappa_aic", -1e-9),
    *numbers("margin"),
    *numbers("quantile", 0.0, -0.1, 1.1),
    *numbers("tail_fraction", 0.0, -0.1, 1.1),
    *numbers("slope_max", 0.0, -1.0, none=True),
    *[("tail_min", value, ValueError) for value in (0, -1)],
    *[("tail_min", value, TypeError) for value in (2.5, 32.0, True, "32", None)],
    *[("evidence", value, kind) for value, kind in NO_NUMBER],
    *[("evidence", value, ValueError) for value in (-0.1, 1.1)],
    *[("evidence", "none", TypeError), ("slope", "own", TypeError)],
    *[("slope", value, kind) for value, kind in NO_NUMBER],
    ("slope", -0.1, ValueError),
]
OPTIONS = [
    *[row for row in numbers("temperature", 0, 0.0, -0.5) if not isinstance(row[1], torch.Tensor)],
    ("temperature", torch.tensor(1), TypeError),
    ("temperature", torch.ones(2), ValueError),
    *numbers("eps", 0.0, 1.0, -1e-6),
    *[("reduction", value, ValueError) for value in ("average", "Mean", "", None, 1)],
]
EXTRA = [
    *numbers("temperature", 0.0, -0.5),
    *[("top", value, ValueError) for value in (0, -1)],
    *[("top", value, TypeError) for value in (2.5, True, "1", None, math.nan)],
    *numbers("weibit_share", -0.1),
    *numbers("softmax_share", -0.1),
    *numbers("momentum", -0.1, 1.1),
    *numbers("initial_slope", 0.0, -1.0),
    *numbers("eps", 0.0, 1.0),
]
EMBEDDINGS = [
    ("z_a", torch.ones(4), GOOD, ValueError),
    ("z_a", torch.ones(2, 3, 4), GOOD, ValueError),
    ("z_a", torch.tensor(1.0), GOOD, ValueError),
    ("z_b", GOOD, torch.ones(4), ValueError),
    ("z_b", GOOD, torch.ones(2, 4), ValueError),
    ("z_b", GOOD, torch.ones(3, 5), ValueError),
    ("z_a", torch.ones(0, 4), torch.ones(0, 4), ValueError),
    ("z_a", torch.ones(3, 0), torch.ones(3, 0), ValueError),
    ("z_a", GOOD.long(), GOOD, TypeError),
    ("z_b", GOOD, GOOD.bool(), TypeError),
    ("z_b", GOOD, GOOD.to(torch.complex64), TypeError),
    ("z_a", GOOD.tolist(), GOOD, TypeError),
    ("z_b", GOOD, np.eye(3, 4), TypeError),
    ("z_b", GOOD, None, TypeError),
    ("z_b", GOOD, GOOD.to("meta"), ValueError),
]
CALLS: list[tuple[str, Callable[[], object], type[Exception]]] = []
for name, value, kind in GATE:
    CALLS.append((name, partial(Gate, **{name: value}), kind))
for name, value, kind in OPTIONS:
    CALLS.append((name, partial(weince_loss, GOOD, GOOD, **{name: value}), kind))
    CALLS.append((name, partial(WEINCELoss, **{name: value}), kind))
    if name != "eps":
        CALLS.append((name, partial(InfoNCELoss, **{name: value}), kind))
for name, value, kind in EXTRA:
    CALLS.append((name, partial(ReleasedTopMLoss, **{name: value}), kind))
for name, z_a, z_b, kind in EMBEDDINGS:
    for loss in (weince_loss, WEINCELoss(), InfoNCELoss(), ReleasedTopMLoss()):
        CALLS.append((name, partial(loss, z_a, z_b), kind))
for value in ("both", None, 0.5, {}):
    CALLS.append(("gate", partial(WEINCELoss, gate=value), TypeError))


@pytest.mark.parametrize(("name", "call", "kind"), CALLS)
def test_bad_input_is_refused_by_name(name: str, call: Callable[[], object], kind: type[Exception]):
    with pytest.raises((TypeError, ValueError)) as refusal:
        call()
    assert refusal.type is kind
    message = str(refusal.value)
    assert message.startswith(f"Parameter `{name}` should ")
    assert ". Found " in message
    assert message.endswith(".")


def test_what_was_found_is_shown():
    with pytest.raises(ValueError, match=r"^Parameter `temperature` should be finite and > 0\. Found -1\.0\.$"):
        WEINCELoss(-1.0)
    with pytest.raises(TypeError, match=r"Found '1' of type str\.$"):
        WEINCELoss("1")
    with pytest.raises(ValueError, match=r"Found z_a \(3, 4\) and z_b \(3, 5\)\.$"):
        whole(GOOD, torch.ones(3, 5))
    with pytest.raises(TypeError, match=r"`z_b` .* Found torch\.int64\.$"):
        whole(GOOD, GOOD.long())
    with pytest.raises(ValueError, match=r'one of "mean", "sum", "none"\. Found \'average\'\.$'):
        WEINCELoss(reduction="average")


@pytest.mark.parametrize(
    "settings",
    [
        {"kappa_rho": 0, "kappa_aic": 0.0, "margin": -1e9, "quantile": 1, "tail_fraction": 1.0, "tail_min": 1},
        {"evidence": 0, "slope": 0.0, "slope_max": 1e-9},
        {"evidence": 1.0, "slope": 100},
        {"evidence": "nearness", "slope": "unit", "quantile": 1e-9},
    ],
)
def test_the_edges_of_every_range_are_accepted(settings: dict):
    assert whole(*views(4, 3), gate=Gate(**settings)).loss.isfinite()
    ReleasedTopMLoss(top=1, weibit_share=0, softmax_share=0.0, momentum=0)
    ReleasedTopMLoss(top=10_000, momentum=1.0)(*views(4, 3))


@pytest.mark.parametrize("half", [np.float64(0.5), np.float32(0.5), np.float16(0.5), Fraction(1, 2), 0.5])
def test_whatever_is_a_real_number_is_one(half: object):
    assert check_number("x", half, "a number", lambda v: True) == 0.5
    assert WEINCELoss(half, eps=half)(*views(4, 3)) == WEINCELoss(0.5, eps=0.5)(*views(4, 3))
    gate = Gate(kappa_rho=half, quantile=half, evidence=half, slope=half, slope_max=half)
    assert gate == Gate(kappa_rho=0.5, quantile=0.5, evidence=0.5, slope=0.5, slope_max=0.5)
    assert all(type(value) in (float, int, str) for value in vars(gate).values())
    assert weince_loss(*views(4, 3), half, gate).isfinite()
    assert LearnableTemperature(half)().item() == 0.5


@pytest.mark.parametrize("eight", [np.int64(8), np.int8(8), np.uint16(8), 8])
def test_whatever_is_an_integer_is_one(eight: object):
    assert check_integer("x", eight, 1) == 8
    assert Gate(tail_min=eight) == Gate(tail_min=8)
    assert type(Gate(tail_min=eight).tail_min) is int
    queue = EmbeddingQueue(eight, eight)
    assert queue.rows.shape == (8, 8)
    assert ReleasedTopMLoss(top=eight).top == 8


@pytest.mark.parametrize("value", [np.bool_(True), True, "1", None, 1j, Decimal(1), torch.tensor(1.0)])
def test_what_is_no_real_number_is_none(value: object):
    with pytest.raises(TypeError, match=r"^Parameter `margin` should be finite\. Found .* of type "):
        Gate(margin=value)
    with pytest.raises(TypeError, match=r"^Parameter `tail_min` should be an integer >= 1\. Found .* of type "):
        Gate(tail_min=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_never_silent(value: float):
    z_a, z_b = views(8, 4)
    z_b[3, 1] = value
    for criterion in (WEINCELoss(), WEINCELoss(gate=Gate(evidence=0.5, slope="unit")), InfoNCELoss()):
        assert criterion(z_a, z_b).isnan()
    assert whole(z_a, z_b).per_anchor.isnan().all()
    assert ReleasedTopMLoss()(z_a, z_b).isnan()


@pytest.mark.parametrize(
    "loss",
    [
        partial(weince_loss, check_finite=True),
        WEINCELoss(check_finite=True),
        InfoNCELoss(check_finite=True),
    ],
    ids=["function", "loss", "infonce"],
)
def test_check_finite_names_parameter_and_rows(loss: Callable):
    z_a, z_b = views(8, 4)
    loss(z_a, z_b)
    z_b[3, 1], z_b[5] = math.nan, math.inf
    with pytest.raises(
        ValueError, match=r"^Parameter `z_b` should be finite\. Found NaN or infinity in 2 rows: 3, 5\.$"
    ):
        loss(z_a, z_b)
    z_a[:6, 0] = -math.inf
    with pytest.raises(
        ValueError, match=r"^Parameter `z_a` .* Found NaN or infinity in 6 rows: 0, 1, 2, 3, 4, \.\.\.\.$"
    ):
        loss(z_a, z_b)
    with pytest.raises(ValueError, match=r"`z_a` .* in 1 row: 2\.$"):
        check_finite_rows(z_a=torch.tensor([[0.0], [1.0], [math.nan]]), z_b=GOOD)
