"""The losses against the oracle on random batches, and what they promise about dtype, shape, order and gradient."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

import reference
from batches import clusters, views, whole
from weince import Gate, InfoNCELoss, LossOutput, WEINCELoss

SIZES = [(2, 3), (3, 2), (5, 4), (12, 6), (30, 5)]
GATES = [
    Gate(),
    Gate(slope="unit"),
    Gate(evidence="nearness", kappa_rho=5.0, quantile=0.5),
    Gate(evidence="aic", kappa_aic=0.1),
    Gate(evidence="endpoint", kappa_end=2.0),
    Gate(evidence="nearness*endpoint", kappa_end=2.0),
    Gate(evidence="beaten*endpoint", kappa_end=2.0),
    Gate(evidence=0.3),
    Gate(evidence=0.3, slope=2.0),
    Gate(evidence=1.0, slope=0.7, slope_max=0.5),
    Gate(slope_max=1.5, tail_min=1, tail_fraction=0.5),
    Gate(tail_fraction=0.68, tail_min=1),  # with N = 30, K_tail = 39: burn 1
    Gate(tail_fraction=0.69, tail_min=1),  # 40: burn 2
]


def value_and_gradient(loss: nn.Module, z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z_a, z_b = z_a.clone().requires_grad_(), z_b.clone().requires_grad_()
    value = loss(z_a, z_b)
    return value.detach(), *torch.autograd.grad(value.sum(), (z_a, z_b))


def close(found: Tensor, expected: list, rtol: float = 1e-9) -> None:
    expected = torch.tensor(expected, dtype=found.dtype)
    torch.testing.assert_close(found.detach(), expected, rtol=rtol, atol=rtol * float(expected.abs().max()))


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: str(GATES.index(gate)))
@pytest.mark.parametrize(("n", "d"), SIZES)
def test_everything_is_the_oracles(n: int, d: int, gate: Gate):
    for seed, (batch, temperature, eps) in enumerate(product((views, clusters), (0.07, 0.5), (1e-6, 0.05))):
        z_a, z_b = (z.requires_grad_() for z in batch(n, d, seed))
        output = whole(z_a, z_b, temperature, gate, eps=eps)
        output.loss.backward()
        rows = z_a.tolist(), z_b.tolist()
        expected = reference.weince(reference.similarities(*rows), temperature, gate, eps)
        assert output.loss.item() == pytest.approx(sum(expected.per_anchor) / (2 * n), rel=1e-9)
        close(output.per_anchor, expected.per_anchor)
        close(output.weight, expected.weight)
        if output.tail is not None:
            for name, found, values in zip(
                output.tail._fields, output.tail, zip(*expected.fits, strict=True), strict=True
            ):
                pooled, paired = name in ("dispersion", "excess", "points"), name == "beaten"
                if (pooled and not gate.needs_pool) or (paired and not gate.needs_positives):
                    assert found.isnan().all()  # not asked for
                else:
                    close(found.double(), values)
        gradient = reference.gradient(*rows, expected.weight, expected.slope, temperature, eps)
        close(torch.cat([z_a.grad, z_b.grad]), gradient)


def test_the_oracles_gradient_is_its_finite_difference():
    z_a, z_b = (z.tolist() for z in clusters(4, 3, seed=1))
    weight, slope = [0.1 * k for k in range(8)], [4 - 0.5 * k for k in range(8)]
    gradient = reference.gradient(z_a, z_b, weight, slope, 0.3, 1e-6)

    def loss(row: int, column: int, step: float) -> float:
        moved = [list(z) for z in z_a + z_b]
        moved[row][column] += step
        return sum(reference.anchor_losses(reference.similarities(moved[:4], moved[4:]), weight, slope, 0.3, 1e-6)) / 8

    for row, column in product(range(8), range(3)):
        difference = (loss(row, column, 1e-6) - loss(row, column, -1e-6)) / 2e-6
        assert gradient[row][column] == pytest.approx(difference, abs=1e-8)


def test_gradcheck_with_fixed_weight_and_slope():
    z_a, z_b = (z.requires_grad_() for z in clusters(4, 3))
    for evidence in (0.0, 0.4, 1.0):
        assert torch.autograd.gradcheck(WEINCELoss(0.3, Gate(evidence=evidence, slope=3.0)), (z_a, z_b))


def test_weight_and_slope_are_constants_of_the_gradient():
    # Not stopped, the gradient of lambda alone would be kappa_rho times a term of the loss's size.
    z_a, z_b = (z.requires_grad_() for z in clusters(12, 4))
    output = whole(z_a, z_b, 0.5, Gate(tail_min=10))
    assert 0.01 < output.weight.max() < 1  # none of them saturated
    assert not output.weight.requires_grad
    assert not any(value.requires_grad for value in output.tail)
    assert output.per_anchor.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gate", [Gate(margin=1e9), Gate(evidence=0.0), Gate(evidence=0.0, slope=1.0)], ids=str)
def test_weight_zero_is_infonce_bit_for_bit(gate: Gate, dtype: torch.dtype):
    for reduction, batch in product(("mean", "sum", "none"), (views(9, 5, dtype=dtype), clusters(24, 8, dtype=dtype))):
        assert (WEINCELoss(0.2, gate).output(*batch).weight == 0).all()
        expected = value_and_gradient(InfoNCELoss(0.2, reduction), *batch)
        for found, same in zip(value_and_gradient(WEINCELoss(0.2, gate, reduction), *batch), expected, strict=True):
            assert torch.equal(found, same)
        blended = value_and_gradient(WEINCELoss(0.2, Gate(evidence=0.5, slope=1.0), reduction), *batch)
        assert not torch.equal(blended[0], expected[0])


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (16, 8)])
def test_infonce_is_cross_entropy(n: int, d: int, temperature: float):
    class CrossEntropy(nn.Module):
        def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
            u = nn.functional.normalize(torch.cat([z_a, z_b]), dim=1)
            logits = (u @ u.T / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
            return nn.functional.cross_entropy(logits, torch.arange(2 * n).roll(n))

    batch = views(n, d)
    expected = value_and_gradient(CrossEntropy(), *batch)
    for found, same in zip(value_and_gradient(InfoNCELoss(temperature), *batch), expected, strict=True):
        torch.testing.assert_close(found, same, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize(
    "gate", [Gate(), Gate(slope="unit"), Gate(evidence=0.3, slope=2.0)], ids=["own", "unit", "fixed"]
)
@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_dtype_and_shape_of_the_output(dtype: torch.dtype, result: torch.dtype, gate: Gate):
    z_a, z_b = (z.requires_grad_() for z in views(6, 4, dtype=dtype))
    for reduction, shape in (("mean", ()), ("sum", ()), ("none", (12,))):
        output = WEINCELoss(gate=gate, reduction=reduction).output(z_a, z_b)
        assert isinstance(output, LossOutput)
        assert (output.loss.dtype, output.loss.shape) == (result, shape)
        assert (output.per_anchor.dtype, output.per_anchor.shape) == (result, (12,))
        assert (output.weight.dtype, output.weight.shape) == (result, (12,))
        for value in output.tail or ():
            assert value.shape == (12,)
            assert value.dtype in (result, torch.bool)
        output.loss.sum().backward()
        assert z_a.grad.dtype == dtype


def test_view_a_comes_first():
    z_a, z_b = clusters(6, 4)
    changed = z_a.clone()
    changed[2] = -changed[2]
    before, after = (whole(z, z_b, gate=Gate(evidence=0.5, slope=1.0)).per_anchor for z in (z_a, changed))
    # Rows 2 and 6 + 2 see their positive leave; they lose most.
    assert (after - before).argsort(descending=True)[:2].sort().values.tolist() == [2, 8]
    z_b[4] = z_a[1]  # a duplicate across views: nearness 0 to rounding for row 1 of a and row 4 of b
    nearest = whole(z_a, z_b).tail.nearness.argsort()[:2].sort().values
    assert nearest.tolist() == [1, 6 + 4]


def test_reductions():
    batch = clusters(7, 5)
    mean, total, none = (whole(*batch, reduction=reduction) for reduction in ("mean", "sum", "none"))
    assert torch.equal(none.loss, none.per_anchor)
    assert torch.equal(mean.per_anchor, none.per_anchor)
    assert total.loss.item() == pytest.approx(sum(none.loss.tolist()), rel=1e-12)
    assert mean.loss.item() == pytest.approx(sum(none.loss.tolist()) / 14, rel=1e-12)
    for reduction, output in (("mean", mean), ("sum", total), ("none", none)):
        assert torch.equal(WEINCELoss(reduction=reduction)(*batch), output.loss)
        plain = InfoNCELoss(reduction=reduction)(*batch)
        assert torch.equal(plain, whole(*batch, 0.1, Gate(evidence=0.0, slope=1.0), reduction).loss)


def test_modules_pass_on_every_setting():
    batch, gate = clusters(7, 5), Gate(kappa_rho=3.0, margin=-20.0)
    expected = whole(*batch, 0.07, gate, "sum", 0.3)
    assert torch.equal(WEINCELoss(0.07, gate, "sum", eps=0.3).output(*batch).loss, expected.loss)
    assert torch.equal(WEINCELoss(0.07, gate, "sum", eps=0.3)(*batch), expected.loss)
    for other in (
        whole(*batch, 0.08, gate, "sum", 0.3),
        whole(*batch, 0.07, replace(gate, margin=20.0), "sum", 0.3),
        whole(*batch, 0.07, gate, "sum", 0.4),
    ):
        assert not torch.equal(other.loss, expected.loss)
    shown = repr(WEINCELoss(0.07, gate, "sum"))
    assert "temperature=0.07" in shown
    assert "kappa_rho=3.0" in shown


@pytest.mark.parametrize("criterion", [WEINCELoss(), InfoNCELoss()], ids=["weince", "infonce"])
def test_a_hook_sees_the_output_and_the_module_keeps_nothing(criterion: WEINCELoss):
    before = dict(vars(criterion.inner))
    seen = []
    handle = criterion.inner.register_forward_hook(lambda module, args, output: seen.append(output))
    z_a, z_b = (z.requires_grad_() for z in clusters(6, 4))
    loss = criterion(z_a, z_b)
    handle.remove()
    assert len(seen) == 1
    assert isinstance(seen[0], LossOutput)
    assert seen[0].loss is loss
    assert seen[0].weight.shape == (12,)
    assert vars(criterion.inner) == before
    assert (list(criterion.parameters()), criterion.state_dict()) == ([], {})


@pytest.mark.parametrize("weight", [0.0, 0.25, 1])
@pytest.mark.parametrize("slope", [0.0, 3, "unit"])
def test_fixed_weight_and_slope_make_no_fit(weight: float, slope: float | str):
    output = whole(*clusters(6, 4, dtype=torch.float32), gate=Gate(evidence=weight, slope=slope))
    assert output.tail is None
    assert output.weight.tolist() == [weight] * 12
    assert not output.weight.requires_grad


def test_slope_max_bounds_the_slope_of_the_logits():
    batch = clusters(12, 6)
    free = whole(*batch, gate=Gate(evidence=1.0))
    bound = free.tail.slope.median().item()
    bounded = whole(*batch, gate=Gate(evidence=1.0, slope_max=bound))
    touched = free.tail.slope > bound
    assert touched.any()
    assert torch.equal(bounded.per_anchor[~touched], free.per_anchor[~touched])
    assert (bounded.per_anchor != free.per_anchor)[touched].all()
    unit = whole(*batch, gate=Gate(evidence=1.0, slope=0.5)).loss
    for slope in ("unit", 4.0):
        assert torch.equal(whole(*batch, gate=Gate(evidence=1.0, slope=slope, slope_max=0.5)).loss, unit)


def test_the_smallest_batch_has_no_fit():
    # N = 2: K_tail = 2, one point is left after the burn.
    batch = views(2, 4)
    own, unit = whole(*batch), whole(*batch, gate=Gate(slope="unit"))
    assert own.tail.valid.tolist() == [False] * 4
    assert torch.equal(own.loss, InfoNCELoss()(*batch))
    assert own.weight.tolist() == [0.0] * 4
    assert (unit.weight > 0).all()
    assert not torch.equal(unit.loss, own.loss)
