"""The gate against the oracle's: which weight and which slope an anchor gets."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict

import pytest
import torch
from torch import Tensor

import reference
import weince.setups
from batches import views, whole
from weince import CAUTIOUS, ENDPOINT, INFONCE, PAPER, WEIBIT
from weince.gate import EVIDENCE, Gate, mix, nearness_reference
from weince.tail import TailFit

GATES = [
    Gate(evidence=evidence, slope=slope, slope_max=slope_max, quantile=quantile)
    for evidence in (*EVIDENCE, 0.0, 0.3, 1.0)
    for slope in ("anchor", "unit", 0.0, 4.0)
    for slope_max, quantile in ((None, 0.2), (2.0, 0.9))
]


def fits(anchors: int = 17, seed: int = 0, dtype: torch.dtype = torch.float64) -> TailFit:
    """Fits of every size, every fifth of them not valid."""
    generator = torch.Generator().manual_seed(seed)
    valid = torch.arange(anchors) % 5 != 2
    slope, r2, spread, nearness, own = torch.rand(5, anchors, generator=generator, dtype=torch.float64).to(dtype)
    excess = 0.1 + 0.2 * own  # tails that end near the cap, but for noise
    dispersion = 2 / (1 + excess) + 0.1 * (r2 - 0.5)
    points = torch.where(torch.arange(anchors) % 7 == 3, 4.0, 40.0).to(dtype)
    beaten = torch.where(torch.arange(anchors) % 6 == 4, float("nan"), (own > 0.45).to(dtype))
    nearness = 2 * nearness**4 + 1e-6
    return TailFit(6 * slope * valid, r2, 60 * spread - 30, nearness, dispersion, excess, points, beaten, valid)


def rows(tail: TailFit) -> list[reference.Fit]:
    return [reference.Fit(*values) for values in zip(*(value.tolist() for value in tail), strict=True)]


def broadcast(value: Tensor | float, anchors: int) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full((anchors,), value, dtype=torch.float64)


def test_the_defaults_are_the_papers():
    assert asdict(Gate()) == {
        "kappa_rho": 10.0,
        "kappa_aic": 1.0,
        "margin": 2.0,
        "quantile": 0.2,
        "tail_fraction": 0.10,
        "tail_min": 32,
        "evidence": "both",
        "slope": "anchor",
        "slope_max": None,
        "slope_estimator": "line",
        "kappa_end": 10.0,
    }


def test_a_gate_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Gate().margin = 0.0


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_weight_and_slope_are_the_oracles(gate: Gate):
    tail = fits()
    weight, slope = reference.mix(rows(tail), gate)
    found = mix(tail if gate.needs_fit else None, gate)
    for value, expected in ((found.weight, weight), (found.slope, slope)):
        expected = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(broadcast(value, 17), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kappa_rho", [0.0, 5.0, 20.0])
@pytest.mark.parametrize("kappa_aic", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("margin", [-4.0, 0.0, 6.0])
def test_sharpness_and_margin_are_the_oracles(kappa_rho: float, kappa_aic: float, margin: float):
    tail, gate = fits(), Gate(kappa_rho, kappa_aic, margin)
    weight, _ = reference.mix(rows(tail), gate)
    torch.testing.assert_close(mix(tail, gate).weight, torch.tensor(weight, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("quantile", [1e-9, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("anchors", [1, 2, 3, 4, 6, 7, 11, 48])
def test_rho_0_is_the_nearest_rank(anchors: int, quantile: float):
    nearness = fits(anchors).nearness
    expected = reference.nearness_reference(nearness.tolist(), quantile)
    assert nearness_reference(nearness, quantile).item() == expected


def test_rho_0_rounds_half_to_even():
    nearness = torch.arange(4.0)  # 0.5 * 3 = 1.5 -> 2
    assert nearness_reference(nearness, 0.5).item() == 2.0
    nearness = torch.arange(6.0)  # 0.5 * 5 = 2.5 -> 2
    assert nearness_reference(nearness, 0.5).item() == 2.0


def test_the_anchor_at_rho_0_with_even_evidence_has_weight_a_quarter():
    tail = fits(11)._replace(aic_gap=torch.full((11,), 2.0).double(), valid=torch.ones(11, dtype=torch.bool))
    weight = mix(tail, Gate()).weight
    assert weight[tail.nearness.argsort()[2]].item() == 0.25
    nearer = weight[tail.nearness.argsort()]
    assert (nearer.diff() < 0).all()


@pytest.mark.parametrize("evidence", ["both", "nearness", "aic", 0.7])
def test_without_a_valid_fit_an_anchor_with_its_own_slope_is_plain_infonce(evidence: str | float):
    tail = fits()
    assert not tail.valid.all()
    own = mix(tail, Gate(evidence=evidence, slope="anchor")).weight
    assert own[~tail.valid].tolist() == [0.0] * int((~tail.valid).sum())
    assert (own[tail.valid] > 0).all()
    for slope in ("unit", 4.0):
        weight = mix(tail, Gate(evidence=evidence, slope=slope)).weight
        assert (broadcast(weight, 17) > 0).all()


@pytest.mark.parametrize(
    ("gate", "needs_fit"),
    [
        (Gate(), True),
        (Gate(slope=1.0), True),
        (Gate(evidence=0.5), True),
        (Gate(evidence=0.5, slope="unit"), False),
        (Gate(evidence=0, slope=2), False),
    ],
)
def test_a_fit_is_needed_where_something_is_measured(gate: Gate, needs_fit: bool):
    assert gate.needs_fit is needs_fit


def test_no_gradient_and_the_dtype_of_the_fits():
    for dtype in (torch.float32, torch.float64):
        tail = fits(dtype=dtype)
        tail.nearness.requires_grad_()
        found = mix(tail, Gate())
        assert (found.weight.dtype, found.slope.dtype) == (dtype, dtype)
        assert not found.weight.requires_grad
        assert not found.slope.requires_grad


def test_named_gates_are_what_they_say():
    assert Gate() == PAPER
    assert Gate(evidence=0.0, slope=1.0) == INFONCE
    assert Gate(evidence="endpoint") == ENDPOINT
    assert Gate(evidence=1.0, slope_estimator="maximum_likelihood") == WEIBIT
    assert Gate(evidence="beaten*endpoint", slope_max=8.0) == CAUTIOUS
    named = {"INFONCE": INFONCE, "PAPER": PAPER, "ENDPOINT": ENDPOINT, "CAUTIOUS": CAUTIOUS, "WEIBIT": WEIBIT}
    for name, gate in named.items():
        assert getattr(weince.setups, name) is gate
        assert repr(gate) == repr(Gate.parsed(gate.text))
    assert [gate.needs_fit for gate in (PAPER, ENDPOINT, CAUTIOUS, WEIBIT, INFONCE)] == [True, True, True, True, False]


def test_weibit_has_no_temperature_where_every_anchor_has_a_fit():
    z_a, z_b = views(40, 6)
    low, high = (whole(z_a, z_b, temperature, WEIBIT) for temperature in (0.05, 0.5))
    assert low.tail is not None
    assert bool(low.tail.valid.all())
    assert torch.equal(low.loss, high.loss)
    assert bool((low.weight == 1).all())
    # Two rows leave no tail to fit, so the temperature decides.
    assert not torch.equal(*(whole(z_a[:2], z_b[:2], temperature, WEIBIT).loss for temperature in (0.05, 0.5)))
