"""What must hold for every batch, searched by Hypothesis: symmetry, scale, and nothing that is not finite."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from batches import clusters, views, whole
from weince import Gate, InfoNCELoss, LossOutput, ReleasedTopMLoss
from weince.setups import two_views

searched = settings(deadline=None, derandomize=True, database=None, max_examples=60)

seeds = st.integers(0, 10_000)
gates = st.sampled_from(
    [
        Gate(),
        Gate(tail_min=1),
        Gate(slope="unit"),
        Gate(evidence="nearness"),
        Gate(evidence="aic"),
        Gate(evidence="endpoint"),
        Gate(evidence=1.0),
        Gate(evidence=0.5, slope=3.0),
        Gate(slope_max=2.0, kappa_rho=20.0, kappa_aic=2.0, margin=6.0),
    ]
)
temperatures = st.sampled_from([0.05, 0.2, 0.5, 5.0])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    batch = draw(st.sampled_from([views, clusters]))
    return batch(draw(st.integers(2, 14)), draw(st.integers(2, 6)), draw(seeds))


def close(found: Tensor, expected: Tensor) -> None:
    # Rounding of s, 1e-16, is 1e-10 of a shortfall at the floor, and kappa_rho or a slope of some ten times that.
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def outputs(output: LossOutput) -> list[Tensor]:
    # Moments that were not asked for are NaN.
    return [output.per_anchor, output.weight, *(v.double() for v in output.tail or () if not v.isnan().all())]


@searched
@given(batches(), gates, temperatures, seeds)
def test_permuting_examples_permutes_the_outputs(
    batch: tuple[Tensor, Tensor], gate: Gate, temperature: float, seed: int
):
    n = len(batch[0])
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    before = whole(*batch, temperature, gate)
    after = whole(*(z[order] for z in batch), temperature, gate)
    both = torch.cat([order, n + order])
    close(after.loss, before.loss)
    for found, expected in zip(outputs(after), outputs(before), strict=True):
        close(found, expected[both])


@searched
@given(batches(), gates, temperatures)
def test_swapping_the_views_swaps_the_halves(batch: tuple[Tensor, Tensor], gate: Gate, temperature: float):
    before, after = (whole(*pair, temperature, gate) for pair in (batch, batch[::-1]))
    close(after.loss, before.loss)
    for found, expected in zip(outputs(after), outputs(before), strict=True):
        close(found, expected.roll(len(batch[0])))


@searched
@given(batches(), gates, temperatures, seeds)
def test_the_length_of_a_row_does_not_matter(batch: tuple[Tensor, Tensor], gate: Gate, temperature: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    factors = 10 ** (12 * torch.rand(2, len(batch[0]), 1, generator=generator, dtype=torch.float64) - 6)
    before = whole(*batch, temperature, gate)
    after = whole(batch[0] * factors[0], batch[1] * factors[1], temperature, gate)
    for found, expected in zip(outputs(after), outputs(before), strict=True):
        close(found, expected)


DEGENERATE = [
    "as it is",
    "views equal",
    "duplicates",
    "near-duplicates",
    "collapsed",
    "nearly collapsed",
    "zero rows",
    "all zero",
    "tiny",
    "huge",
    "denormal",
    "any scale",
    "opposite",
    "orthogonal",
]


@st.composite
def degenerate(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    n, d, kind = draw(st.integers(2, 24)), draw(st.integers(1, 6)), draw(st.sampled_from(DEGENERATE))
    z_a, z_b = views(n, d, draw(seeds))
    if kind == "views equal":
        z_b = z_a.clone()
    elif kind == "duplicates":
        z_a[: n // 2 + 1] = z_a[0]
    elif kind == "near-duplicates":
        z_a[1] = z_a[0] * (1 + 10.0 ** -draw(st.integers(1, 8)) * torch.arange(d))
    elif kind == "collapsed":
        z_a[:], z_b[:] = z_a[0], z_a[0]
    elif kind == "nearly collapsed":
        size = 10.0 ** -draw(st.integers(1, 8))
        z_a, z_b = z_a[0] + size * z_a, z_a[0] + size * z_b
    elif kind == "zero rows":
        z_a[::2], z_b[1::3] = 0, 0
    elif kind == "all zero":
        z_a[:], z_b[:] = 0, 0
    elif kind in ("tiny", "huge", "denormal"):
        factor = {"tiny": 1e-30, "huge": 1e30, "denormal": 1e-40}[kind]
        z_a[::2] *= factor
        z_b *= factor
    elif kind == "any scale":
        z_a *= 10.0 ** torch.linspace(-30, 30, n).unsqueeze(1)
    elif kind == "opposite":
        z_b = -z_a
    elif kind == "orthogonal":
        z_a = torch.eye(n, dtype=torch.float64)
        z_b = z_a + 10.0 ** -draw(st.integers(1, 9))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    return z_a.to(dtype).requires_grad_(), z_b.to(dtype).requires_grad_()


@settings(searched, max_examples=400)
@given(degenerate(), gates, temperatures, st.sampled_from([1e-6, 1e-3]))
def test_every_number_is_finite(batch: tuple[Tensor, Tensor], gate: Gate, temperature: float, eps: float):
    output = whole(*batch, temperature, gate, eps=eps)
    assert all(value.isfinite().all() for value in outputs(output))
    assert (output.per_anchor >= 0).all()
    assert ((output.weight >= 0) & (output.weight <= 1)).all()
    if output.tail is not None:
        assert (output.tail.slope >= 0).all()
        assert ((output.tail.nearness >= 0.99 * eps) & (output.tail.nearness <= 2.01)).all()
    for gradient in torch.autograd.grad(output.loss, batch):
        assert gradient.isfinite().all()


@settings(searched, max_examples=200)
@given(degenerate(), temperatures)
def test_every_number_of_the_other_losses_is_finite(batch: tuple[Tensor, Tensor], temperature: float):
    extra = ReleasedTopMLoss(temperature)
    for criterion in (InfoNCELoss(temperature), extra):
        loss = criterion(*batch)
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, batch):
            assert gradient.isfinite().all()
    assert 0.5 <= extra.slope <= 16.0


@searched
@given(batches(), gates, temperatures, seeds)
def test_a_zero_row_is_orthogonal_to_all_and_stays(
    batch: tuple[Tensor, Tensor], gate: Gate, temperature: float, seed: int
):
    z_a, z_b = batch
    row = seed % len(z_a)
    z_a[row] = 0
    assert torch.equal(two_views(z_a, z_b).similarity()[row], torch.zeros(2 * len(z_a)).double())
    z_a.requires_grad_()
    whole(z_a, z_b, temperature, gate).loss.backward()
    assert torch.equal(z_a.grad[row], torch.zeros(z_a.shape[1]).double())
