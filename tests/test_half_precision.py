"""Half precision: no worse than the plain InfoNCE people write, each against its own float32 truth."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from batches import clusters, views
from weince import Gate, InfoNCELoss, Options, ReleasedTopMLoss, WEINCELoss, contest_output
from weince.setups import two_views

pytestmark = pytest.mark.usefixtures(
    "tiles_pay"
)  # on a CPU autocast does not reach into tiles; the dense path must ask
TEMPERATURE = 0.2
SEEDS = range(9)
LOSSES = {"weince": WEINCELoss(TEMPERATURE), "infonce": InfoNCELoss(TEMPERATURE)}

Criterion = Callable[[Tensor, Tensor], Tensor]

losses = pytest.mark.parametrize("criterion", LOSSES.values(), ids=LOSSES)
kinds = pytest.mark.parametrize("batch", [views, clusters])
halves = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


def plain(z_a: Tensor, z_b: Tensor) -> Tensor:
    """Normalise, multiply, cross-entropy (in float32, which is kind to it)."""
    u = nn.functional.normalize(torch.cat([z_a, z_b]), dim=1)
    logits = (u @ u.T).float() / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(u), dtype=torch.bool), float("-inf"))
    return nn.functional.cross_entropy(logits, torch.arange(len(u)).roll(len(z_a)))


def under_autocast(criterion: Criterion) -> Criterion:
    def cast(z_a: Tensor, z_b: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return criterion(z_a, z_b)

    return cast


def result(criterion: Criterion, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    inputs = [z.clone().requires_grad_() for z in batch]
    loss = criterion(*inputs)
    return loss.detach().double(), torch.cat(torch.autograd.grad(loss, inputs)).double()


def errors(half: Criterion, full: Criterion, inputs: list, truths: list) -> tuple[float, float]:
    """Median over the batches of the relative error of loss and gradient."""
    pairs = []
    for rounded, exact in zip(inputs, truths, strict=True):
        (loss, gradient), (true_loss, true_gradient) = result(half, rounded), result(full, exact)
        pairs.append(((loss - true_loss).abs() / true_loss, (gradient - true_gradient).norm() / true_gradient.norm()))
    return tuple(median(map(float, column)) for column in zip(*pairs, strict=True))


@kinds
@halves
@losses
def test_half_inputs(criterion: nn.Module, dtype: torch.dtype, batch: Callable):
    rounded = [batch(64, 32, seed, dtype=dtype) for seed in SEEDS]
    exact = [tuple(z.float() for z in pair) for pair in rounded]
    ours, theirs = errors(criterion, criterion, rounded, exact), errors(plain, plain, rounded, exact)
    assert ours[0] <= theirs[0]
    assert ours[1] <= theirs[1]
    # All that is left is the rounding of the gradient to the dtype of the inputs.
    assert ours[0] == 0
    assert 0 < ours[1] < torch.finfo(dtype).eps


@kinds
@halves
@losses
def test_the_gradient_for_embeddings_that_were_rounded(criterion: nn.Module, dtype: torch.dtype, batch: Callable):
    # Against the embeddings before rounding, the gradient alone: a shortfall feels the rounding of its embedding more
    # than a similarity does, so the value of WEINCE is off by more than that of InfoNCE, whatever computes it.
    exact = [batch(64, 32, seed, dtype=torch.float32) for seed in SEEDS]
    rounded = [tuple(z.to(dtype) for z in pair) for pair in exact]
    assert errors(criterion, criterion, rounded, exact)[1] <= errors(plain, plain, rounded, exact)[1]


@kinds
@losses
def test_autocast(criterion: nn.Module, batch: Callable):
    exact = [batch(64, 32, seed, dtype=torch.float32) for seed in SEEDS]
    ours = errors(under_autocast(criterion), criterion, exact, exact)
    theirs = errors(under_autocast(plain), plain, exact, exact)
    assert min(theirs) > 1e-5  # autocast did round
    assert ours[0] <= theirs[0]
    assert ours[1] <= theirs[1]
    assert ours == (0, 0)  # autocast is off inside


def test_statistics_under_autocast_are_in_float32():
    batch = clusters(16, 8, dtype=torch.float32)
    gate = Gate(evidence="beaten*endpoint")  # which takes every statistic
    expected = WEINCELoss(TEMPERATURE, gate).output(*batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (batch[0] @ batch[1].T).dtype == torch.bfloat16
        found = WEINCELoss(TEMPERATURE, gate).output(*batch)
        extra = ReleasedTopMLoss(TEMPERATURE)
        loss = extra(*batch)
    for value, same in zip((found.weight, *found.tail), (expected.weight, *expected.tail), strict=True):
        assert value.dtype in (torch.float32, torch.bool)
        assert torch.equal(value, same)
    other = ReleasedTopMLoss(TEMPERATURE)
    assert torch.equal(loss, other(*batch))
    assert torch.equal(extra.slope, other.slope)


def test_autocast_would_reach_the_dense_path():
    """What the tests above would miss on tiles alone: without the guard, products are in bfloat16."""
    batch = clusters(16, 8, dtype=torch.float32)
    contest, dense = two_views(*batch), Options(implementation="dense")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contest.similarity().dtype == torch.bfloat16
        output = contest_output(contest, TEMPERATURE, dense)
    assert output.per_anchor.dtype == torch.float32
    assert torch.equal(output.per_anchor, contest_output(contest, TEMPERATURE, dense).per_anchor)
