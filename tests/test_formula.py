"""The formula against the oracle's, and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import reference
from weince.formula import blended_logits, per_anchor_loss, shortfall


def loss_of(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """By masks (A, M)."""
    nowhere = torch.finfo(logits.dtype).min
    return per_anchor_loss(logits.masked_fill(~positive, nowhere), logits.masked_fill(~negative, nowhere))


EPS = 1e-6


def random_similarity(a: int = 5, m: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(a, m, generator=generator, dtype=torch.float64) * 1.8 - 0.9


def random_weight_and_slope(a: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, a, generator=generator, dtype=torch.float64).mul(torch.tensor([[1.0], [6.0]])).unbind()


def one_positive(a: int = 5, m: int = 7) -> tuple[Tensor, Tensor]:
    """Column i is anchor i itself, column i + 1 its positive."""
    positive = torch.eye(m, dtype=torch.bool).roll(1, 1)[:a]
    return positive, ~positive & ~torch.eye(m, dtype=torch.bool)[:a]


def test_shortfall_is_floored_without_losing_digits():
    s = torch.tensor([-1.0, 0.5, 1 - 2e-6, 1.0, 1 + 1e-7], requires_grad=True)
    delta = shortfall(s, EPS)
    assert torch.equal(delta, torch.cat([1 - s[:3], torch.tensor([EPS, EPS])]))
    # Clamping s at 1 - eps in float32 would give 1.0133e-6.
    assert delta[3].item() == pytest.approx(EPS, rel=1e-7)
    delta.sum().backward()
    assert s.grad.tolist() == [-1.0, -1.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_logits_are_the_oracles(temperature: float):
    s = random_similarity()
    s[0, 0], s[1, 1], s[2, 2] = 1.0, 1 - 1e-9, -1.0
    weight, slope = random_weight_and_slope()
    weight[3], weight[4] = 0.0, 1.0
    expected = [
        [reference.logit(x, w, b, temperature, EPS) for x in row]
        for row, w, b in zip(s.tolist(), weight.tolist(), slope.tolist(), strict=True)
    ]
    found = blended_logits(s, weight, slope, 1 / temperature, EPS)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=1e-13)


def test_numbers_and_tensors_of_one_value_agree():
    s = random_similarity()
    number = blended_logits(s, 0.3, 2.0, 2.0, EPS)
    tensor = blended_logits(s, torch.full((5,), 0.3).double(), torch.full((5,), 2.0).double(), 2.0, EPS)
    torch.testing.assert_close(number, tensor, rtol=1e-7, atol=0)  # 0.3 of the tensor was rounded to float32


@pytest.mark.parametrize("weight", [0.0, torch.zeros(5)])
def test_weight_zero_is_the_softmax_coordinate_bit_for_bit(weight: Tensor | float):
    s = random_similarity().float()
    s[0, 0] = 1.0
    with_slope = s.clone().requires_grad_()
    plain = s.clone().requires_grad_()
    logits = blended_logits(with_slope, weight, 7.0, 1 / 0.3, EPS)
    assert torch.equal(logits, plain * (1 / 0.3))
    logits.exp().sum().backward()
    (plain * (1 / 0.3)).exp().sum().backward()
    assert torch.equal(with_slope.grad, plain.grad)


def test_the_floor_is_inside_the_logarithm_alone():
    s = torch.tensor([[0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    blended_logits(s, torch.tensor([0.25]).double(), torch.tensor([2.0]).double(), 2.0, EPS).sum().backward()
    # (1 - 0.25) / 0.5 from s / tau; 0.25 * 2 / (1 - 0.5) from the logarithm, nothing of it below the floor.
    torch.testing.assert_close(s.grad, torch.tensor([[2.5, 1.5]]).double(), rtol=1e-14, atol=0)


def test_gradient_of_logits_and_loss():
    s = random_similarity().requires_grad_()
    weight, slope = random_weight_and_slope()
    positive, negative = one_positive()

    def loss(s: Tensor) -> Tensor:
        return loss_of(blended_logits(s, weight, slope, 2.0, EPS), positive, negative)

    assert torch.autograd.gradcheck(loss, s)


def test_loss_is_the_oracles_cross_entropy():
    logits = 10 * random_similarity()
    positive, negative = one_positive()
    expected = [
        reference.cross_entropy(row[i + 1], [x for j, x in enumerate(row) if j not in (i, i + 1)])
        for i, row in enumerate(logits.tolist())
    ]
    found = loss_of(logits, positive, negative)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)


@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("lead", [15.0, 40.0, 80.0])
def test_a_small_loss_and_its_gradient_keep_their_relative_precision(lead: float, by_column: bool):
    logits = torch.tensor([[0.0, lead, 0.0, 0.0]], requires_grad=True)
    negative = torch.tensor([[False, False, True, True]])
    if by_column:
        nowhere = torch.finfo(torch.float32).min
        loss = per_anchor_loss(logits[:, 1:2], logits.masked_fill(~negative, nowhere))
    else:
        loss = loss_of(logits, torch.tensor([[False, True, False, False]]), negative)
    expected = math.log1p(2 * math.exp(-lead))
    # A lead of 80 rounds to 4e-6, which is relative in the loss.
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.sum().backward()
    assert logits.grad[0, 2:].tolist() == pytest.approx([expected / 2] * 2, rel=1e-5)
    # Were +1 and -1 of two terms added first, the rest would be lost in their rounding.
    assert logits.grad[0, 1].item() == pytest.approx(-expected, rel=1e-5)


def test_several_positives_are_the_mean_of_their_log_probabilities():
    logits = 3 * random_similarity(4, 9)
    positive = torch.zeros(4, 9, dtype=torch.bool)
    positive[0, 1:4] = positive[1, 2] = positive[2, :8] = positive[3, 5:7] = True
    negative = ~positive
    negative[:, 0] = False
    taking_part = logits.masked_fill(~(positive | negative), float("-inf"))
    share = positive.double() / positive.sum(dim=1, keepdim=True)
    expected = -(share * nn.functional.log_softmax(taking_part, dim=1).masked_fill(~positive, 0)).sum(dim=1)
    torch.testing.assert_close(loss_of(logits, positive, negative), expected, rtol=1e-12, atol=0)


def test_a_column_that_takes_no_part_changes_nothing():
    positive, negative = one_positive()
    logits = random_similarity().requires_grad_()
    loss = loss_of(logits, positive, negative)
    loss.sum().backward()
    apart = ~(positive | negative)
    assert apart.any(dim=1).all()
    assert torch.equal(logits.grad[apart], torch.zeros(int(apart.sum())).double())
    changed = logits.detach().masked_fill(apart, 50.0)
    assert torch.equal(loss_of(changed, positive, negative), loss)


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_logits_of_any_size_give_a_finite_loss(size: float):
    positive, negative = one_positive()
    for sign in (-1, 1):
        logits = torch.where(positive, sign * size, 0.0).requires_grad_()
        loss = loss_of(logits, positive, negative)
        assert loss.tolist() == ([0.0] * 5 if sign > 0 else pytest.approx([size + math.log(5)] * 5, rel=1e-6))
        loss.sum().backward()
        assert logits.grad.isfinite().all()
