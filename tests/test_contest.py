"""Who competes, and rows of length one whatever their scale."""

from __future__ import annotations

import pytest
import torch

import reference
from batches import masks, views
from weince.setups import two_views
from weince.units import unit_rows


@pytest.mark.parametrize("n", [2, 3, 7])
def test_every_column_has_one_role(n: int):
    contest = two_views(*views(n, 4))
    positive, negative = masks(contest)
    itself = torch.eye(2 * n, dtype=torch.bool)
    assert torch.equal(positive.int() + negative.int() + itself.int(), torch.ones(2 * n, 2 * n, dtype=torch.int32))
    for i in range(2 * n):
        assert positive[i].nonzero().tolist() == [[reference.positive(i, 2 * n)]]
        assert negative[i].nonzero().flatten().tolist() == reference.negatives(i, 2 * n)
    assert contest.negatives == 2 * n - 2
    assert contest.positive.tolist() == [reference.positive(i, 2 * n) for i in range(2 * n)]
    assert contest.itself.tolist() == list(range(2 * n))


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 5), (16, 8)])
def test_similarities_are_the_oracles(n: int, d: int):
    z_a, z_b = views(n, d)
    z_b[0] = 0
    expected = torch.tensor(reference.similarities(z_a.tolist(), z_b.tolist()), dtype=torch.float64)
    torch.testing.assert_close(two_views(z_a, z_b).similarity(), expected, rtol=0, atol=1e-15 * 8)


def test_unit_rows_gradient():
    z, _ = views(3, 4)
    assert torch.autograd.gradcheck(unit_rows, z.requires_grad_())


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [
        (torch.float32, [1e-30, 1e-20, 1.0, 1e20, 3e37]),
        (torch.float64, [1e-290, 1e-160, 1.0, 1e160, 1e307]),
        (torch.float16, [1e-4, 1.0, 1e4]),
        (torch.bfloat16, [1e-30, 1.0, 1e37]),
    ],
)
def test_rows_of_any_scale_have_length_one(dtype: torch.dtype, scales: list[float]):
    rows = views(6, 8, dtype=torch.float64)[0]
    rounding = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    for scale in scales:
        z = (rows * scale).to(dtype)
        units = unit_rows(z)
        assert units.dtype == torch.promote_types(dtype, torch.float32)
        exact = torch.tensor(reference.normalise(z.tolist()), dtype=torch.float64)
        torch.testing.assert_close(units.double(), exact, rtol=4 * rounding, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_and_denormal_rows_are_zero_with_gradient_zero(dtype: torch.dtype):
    limits = torch.finfo(dtype)
    smallest = limits.tiny / limits.eps  # below it 1 / |z| of the gradient would overflow
    z = torch.zeros(5, 4, dtype=dtype)
    z[1] = limits.tiny / 8
    z[2, 1] = 0.9 * smallest
    z[3, 1] = 1.1 * smallest
    z[4] = 1.0
    z.requires_grad_()
    units = unit_rows(z)
    assert torch.equal(units.detach()[:3], torch.zeros(3, 4, dtype=dtype))
    assert units.detach()[3:].tolist() == [[0.0, 1.0, 0.0, 0.0], [0.5] * 4]
    units.sum().backward()
    assert torch.equal(z.grad[:3], torch.zeros(3, 4, dtype=dtype))
    assert z.grad.isfinite().all()
    assert z.grad[3, 0] > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_nan_and_no_other(value: float):
    z = torch.ones(3, 4)
    z[1, 2] = value
    assert unit_rows(z).isnan().any(dim=1).tolist() == [False, True, False]
