"""The released recipe's extra terms against the oracle's, and the running slope."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import reference
from batches import clusters, views
from weince import ReleasedTopMLoss
from weince.released import pooled_slope, top_m_loss
from weince.setups import two_views

EPS = 1e-6


def similarities(batch: tuple[Tensor, Tensor]) -> list[list[float]]:
    return reference.similarities(*(z.tolist() for z in batch))


@pytest.mark.parametrize("top", [1, 2, 7, 18, 50])
@pytest.mark.parametrize(("n", "d"), [(2, 3), (3, 2), (10, 5)])
def test_top_m_is_the_oracles(n: int, d: int, top: int):
    batch = clusters(n, d)
    s = similarities(batch)
    for weight, slope in ((0.0, 1.0), (1.0, 0.5), (1.0, 16.0)):
        found = top_m_loss(two_views(*batch), top, weight=weight, slope=slope, temperature=0.2, eps=EPS)
        assert found.mean().item() == pytest.approx(reference.top_m_loss(s, top, weight, slope, 0.2, EPS), rel=1e-9)


def test_top_m_gradient():
    z_a, z_b = (z.requires_grad_() for z in clusters(5, 3))

    def loss(z_a: Tensor, z_b: Tensor) -> Tensor:
        return top_m_loss(two_views(z_a, z_b), 3, weight=1.0, slope=2.0, temperature=0.2, eps=EPS).mean()

    assert torch.autograd.gradcheck(loss, (z_a, z_b))


# 8, 24, 1,088 and 23,408 negatives: too few; all; 1,024 of them; 5 % of them, 1,170.4 truncated.
@pytest.mark.parametrize(("n", "taken"), [(2, 0), (3, 24), (17, 1024), (77, 1170)])
def test_pooled_slope_is_the_oracles(n: int, taken: int):
    batch = clusters(n, 6)
    expected = reference.pooled_fit(similarities(batch), EPS)
    found = pooled_slope(two_views(*(z.requires_grad_() for z in batch)), EPS)
    if taken == 0:
        assert expected is None
        assert (found.slope.item(), found.r2.item()) == (0.0, 0.0)
        return
    count = 2 * n * (2 * n - 2)
    assert min(count, max(1024, int(0.05 * count))) == taken
    assert found.slope.item() == pytest.approx(expected.slope, rel=1e-9)
    assert found.r2.item() == pytest.approx(expected.r2, rel=1e-9)
    assert not found.slope.requires_grad


def test_the_loss_is_the_sum_of_its_terms_at_the_moved_slope():
    criterion = ReleasedTopMLoss(0.2, 5, weibit_share=0.3, softmax_share=0.7, momentum=0.6, initial_slope=3.0).double()
    slope = 3.0
    for seed in range(4):
        batch = views(12, 4, seed)
        s = similarities(batch)
        pooled = reference.pooled_fit(s, EPS)
        assert pooled.r2 > 0.85
        slope = reference.moved_slope(slope, pooled, 0.6)
        expected = 0.3 * reference.top_m_loss(s, 5, 1.0, slope, 0.2) + 0.7 * reference.top_m_loss(s, 5, 0.0, slope, 0.2)
        assert criterion(*batch).item() == pytest.approx(expected, rel=1e-9)
        assert criterion.slope.item() == pytest.approx(slope, rel=1e-9)


def test_the_defaults_are_the_released_recipe():
    criterion = ReleasedTopMLoss().double()
    assert criterion.slope.item() == 4.0
    batch = views(40, 8)
    s = similarities(batch)
    slope = reference.moved_slope(4.0, reference.pooled_fit(s))
    assert slope != 4.0
    expected = (reference.top_m_loss(s, 50, 1.0, slope, 0.5) + reference.top_m_loss(s, 50, 0.0, slope, 0.5)) / 2
    assert criterion(*batch).item() == pytest.approx(expected, rel=1e-9)


def test_the_slope_stands_in_eval():
    criterion = ReleasedTopMLoss().eval()
    criterion(*views(12, 4))
    assert criterion.slope.item() == 4.0


def test_a_poor_line_does_not_move_the_slope():
    batch = clusters(24, 8, spread=0.01)  # shortfalls of two sizes: no line
    assert 0 < pooled_slope(two_views(*batch), EPS).r2 < 0.85
    criterion = ReleasedTopMLoss()
    criterion(*batch)
    assert criterion.slope.item() == 4.0
    criterion(*views(2, 4))  # too few negatives
    assert criterion.slope.item() == 4.0
    criterion(*(z * float("nan") for z in views(12, 4)))
    assert criterion.slope.item() == 4.0


def sphere_of_many_dimensions(generator: torch.Generator) -> Tensor:
    return torch.randn(2, 40, 1000, generator=generator, dtype=torch.float64)


def angles_over_two_decades(generator: torch.Generator) -> Tensor:
    angle = 10 ** (-2 * torch.rand(2, 16, generator=generator, dtype=torch.float64))
    return torch.stack([angle.cos(), angle.sin()], dim=2)


@pytest.mark.parametrize(("points", "bound"), [(sphere_of_many_dimensions, 16.0), (angles_over_two_decades, 0.5)])
def test_the_pooled_slope_is_clamped(points: Callable[[torch.Generator], Tensor], bound: float):
    batch = points(torch.Generator().manual_seed(0)).unbind()
    pooled = pooled_slope(two_views(*batch), EPS)
    assert pooled.r2 > 0.85
    assert not 0.5 <= pooled.slope <= 16.0
    criterion = ReleasedTopMLoss(momentum=0.0)
    criterion(*batch)
    assert criterion.slope.item() == bound


def test_the_slope_is_saved_and_loaded():
    criterion = ReleasedTopMLoss()
    criterion(*views(12, 4))
    assert criterion.slope.item() != 4.0
    other = ReleasedTopMLoss()
    other.load_state_dict(criterion.state_dict())
    assert torch.equal(other.slope, criterion.slope)
    assert list(criterion.parameters()) == []


def test_two_steps_before_one_backward():
    # The second step moves the buffer; the first step's backward must still see its own slope.
    criterion = ReleasedTopMLoss(momentum=0.0).double()
    z_a, z_b = (z.requires_grad_() for z in views(12, 4))
    alone = torch.autograd.grad(criterion(z_a, z_b), z_a)[0]
    first = criterion(z_a, z_b)
    criterion(*views(12, 3, seed=1))
    assert torch.equal(torch.autograd.grad(first, z_a)[0], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32(dtype: torch.dtype):
    batch = views(12, 4, dtype=dtype)
    loss = ReleasedTopMLoss()(*batch)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, ReleasedTopMLoss()(*(z.float() for z in batch)))
