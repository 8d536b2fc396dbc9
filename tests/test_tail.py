"""The tail fit against the oracle's, at every edge of its size, and on tails whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import reference
from batches import whole
from weince import Gate, InfoNCELoss
from weince.tail import TailFit, TailRule, fit_tail, measure_tail, tail_size, tail_sizes
from weince.units import unit_rows

EPS = 1e-6
EDGES = [1, 2, 3, 4, 5, 10, 19, 20, 21, 39, 40, 41, 59, 60, 61, 100]


def random_tail(size: int, anchors: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Similarities in descending order, (A, K)."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.rand(anchors, size, generator=generator, dtype=torch.float64) ** 0.5
    return s.sort(dim=1, descending=True).values.to(dtype)


def power_law(size: int, slope: float, scale: float = 1.0) -> Tensor:
    """One tail that is exactly F = (delta / scale) ** slope at its plotting positions."""
    f = torch.arange(1, size + 1, dtype=torch.float64) / (size + 1)
    return 1 - scale * f.pow(1 / slope).unsqueeze(0)


def assert_is_the_oracles(fit: TailFit, hardest: Tensor, rtol: float = 1e-9) -> None:
    expected = [reference.fit_tail([1 - s for s in row], len(row), EPS) for row in hardest.tolist()]
    for found, values in zip(fit, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(
            found, torch.tensor(values, dtype=found.dtype), rtol=rtol, atol=1e-12, equal_nan=True
        )


@pytest.mark.parametrize("minimum", [1, 10, 32, 1000])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 1.0])
def test_tail_size_is_the_oracles(fraction: float, minimum: int):
    for count in range(1, 600, 7):
        assert tail_size(count, fraction, minimum) == reference.tail_size(count, fraction, minimum)


@pytest.mark.parametrize(
    ("count", "fraction", "minimum", "expected"),
    [
        (510, 0.10, 32, 51),
        (320, 0.10, 32, 32),
        (340, 0.10, 32, 34),
        (62, 0.10, 32, 32),
        (20, 0.10, 32, 20),
        (100, 0.01, 1, 10),  # never below 10 where there are 10
        (5, 0.01, 1, 5),
        (50, 0.25, 1, 12),  # 12.5 and 13.5: half to even
        (54, 0.25, 1, 14),
    ],
)
def test_tail_size_by_hand(count: int, fraction: float, minimum: int, expected: int):
    assert tail_size(count, fraction, minimum) == expected


@pytest.mark.parametrize("size", EDGES)
def test_fit_is_the_oracles(size: int):
    hardest = random_tail(size)
    assert_is_the_oracles(fit_tail(hardest, EPS, moments=True), hardest)


@pytest.mark.parametrize("size", [3, 20, 40, 100])
def test_fit_with_duplicates_is_the_oracles(size: int):
    hardest = random_tail(size)
    hardest[0, : size // 2] = 1.0  # exact duplicates: the floor
    hardest[1, : size // 2] = 1 + 1e-12
    hardest[2, 0] = 1 - 1e-9  # one of them: burned
    hardest[3] = hardest[3].round(decimals=1)  # ties
    assert_is_the_oracles(fit_tail(hardest, EPS, moments=True), hardest)


@pytest.mark.parametrize(("size", "burn"), [(5, 1), (20, 1), (39, 1), (40, 2), (59, 2), (60, 3)])
def test_burned_points_move_the_nearness_alone(size: int, burn: int):
    hardest = random_tail(size)
    fit = fit_tail(hardest, EPS)
    nearer = hardest.clone()
    nearer[:, :burn] = 1 - (1 - hardest[:, :burn]) / 7
    moved = fit_tail(nearer, EPS)
    assert torch.equal(moved.slope, fit.slope)
    assert torch.equal(moved.aic_gap, fit.aic_gap)
    torch.testing.assert_close(moved.nearness, fit.nearness / 7, rtol=1e-12, atol=0)
    nearer[:, burn] = 1 - (1 - hardest[:, burn]) / 1.1
    assert (fit_tail(nearer, EPS).slope != fit.slope).all()


@pytest.mark.parametrize("slope", [0.3, 1.0, 7.5])
@pytest.mark.parametrize("size", [4, 40, 100])
def test_a_power_law_gives_its_slope(slope: float, size: int):
    fit = fit_tail(power_law(size, slope), EPS)
    assert fit.slope.item() == pytest.approx(slope, rel=1e-9)
    assert fit.r2.item() == pytest.approx(1.0, abs=1e-9)
    assert fit.valid.item()
    assert fit.aic_gap.item() > 0


def test_a_gumbel_line_is_preferred_where_it_holds():
    # log(-log F) = -2 log delta + c, with no noise.
    f = torch.arange(1, 101, dtype=torch.float64) / 101
    fit = fit_tail(1 - 0.5 * (-torch.log(f)).pow(-1 / 2).unsqueeze(0), EPS)
    assert fit.aic_gap.item() < -100


def test_slope_and_evidence_do_not_depend_on_the_scale_of_the_shortfalls():
    hardest = random_tail(50)
    fit, scaled = fit_tail(hardest, EPS), fit_tail(1 - 0.01 * (1 - hardest), EPS)
    for name in ("slope", "r2", "aic_gap"):
        torch.testing.assert_close(getattr(scaled, name), getattr(fit, name), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scaled.nearness, 0.01 * fit.nearness, rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_tail_too_short_for_a_line_is_no_fit(size: int):
    fit = fit_tail(random_tail(size), EPS)
    for name in ("slope", "r2", "aic_gap"):
        assert getattr(fit, name).tolist() == [0.0] * 4
    assert fit.valid.tolist() == [False] * 4
    assert fit.nearness.tolist() == ((1 - random_tail(size)[:, 0]).tolist() if size else [2.0] * 4)


def test_equal_shortfalls_are_no_fit():
    fit = fit_tail(torch.zeros(1, 20, dtype=torch.float64), EPS)
    assert (fit.slope.item(), fit.valid.item(), fit.nearness.item()) == (0.0, False, 1.0)
    assert math.isfinite(fit.aic_gap.item())


def test_a_line_of_the_wrong_sign_loses():
    # Shortfalls that fall with their rank, which no sorted tail does: the sign alone is at stake.
    rising = power_law(30, 2.0)
    fit = fit_tail(rising.flip(1), EPS)
    assert (fit.slope.item(), fit.valid.item()) == (0.0, False)
    # n log((SSE_G + 1e6) / (SSE_W + 1e6)) with both wrong, which is about 0.
    assert abs(fit.aic_gap.item()) < 0.01


def test_float32_keeps_the_fit_of_a_narrow_tail():
    # log delta has a spread of 0.006 about -1.6: sums of uncentred float32 squares would be off by 0.4 %.
    f = torch.arange(1, 101, dtype=torch.float64) / 101
    hardest = 1 - (math.log(0.2) + 0.02 * f + 0.002 * torch.sin(40 * f)).exp().unsqueeze(0)
    exact, rounded = fit_tail(hardest, EPS), fit_tail(hardest.float(), EPS)
    # x moves by 2e-7 (s rounds to 3e-8 at 0.8), 4e-5 of its spread, with random sign over 95 points.
    assert rounded.slope.item() == pytest.approx(exact.slope.item(), rel=4e-5)
    assert rounded.aic_gap.item() == pytest.approx(exact.aic_gap.item(), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_and_the_dtype_of_the_similarities(dtype: torch.dtype):
    fit = fit_tail(random_tail(20, dtype=dtype).requires_grad_(), EPS, moments=True)
    assert [value.dtype for value in fit] == [dtype] * 8 + [torch.bool]
    assert not any(value.requires_grad for value in fit)


@pytest.mark.parametrize("size", [3, 4, 20, 51, 100])
@pytest.mark.parametrize("lines", [True, False])
def test_the_maximum_likelihood_slope_is_the_oracles_and_needs_no_order(size: int, lines: bool):
    hardest = random_tail(size)
    expected = [reference.likelihood_slope([1 - s for s in row], size, EPS) for row in hardest.tolist()]
    fit = fit_tail(hardest if lines else hardest.flip(1), EPS, estimator="maximum_likelihood", lines=lines)
    torch.testing.assert_close(fit.slope, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert fit.valid.all()
    line = fit_tail(hardest, EPS)
    assert torch.equal(fit.nearness, line.nearness)
    for found, with_line in ((fit.r2, line.r2), (fit.aic_gap, line.aic_gap)):
        assert torch.equal(found, with_line) if lines else found.isnan().all()


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_tail_too_short_for_maximum_likelihood_is_no_fit(size: int):
    fit = fit_tail(random_tail(size), EPS, estimator="maximum_likelihood", lines=False)
    assert (fit.slope.tolist(), fit.valid.tolist()) == ([0.0] * 4, [False] * 4)


def test_equal_shortfalls_have_no_maximum_likelihood_slope():
    fit = fit_tail(torch.zeros(1, 20, dtype=torch.float64), EPS, estimator="maximum_likelihood", lines=False)
    assert (fit.slope.item(), fit.valid.item()) == (0.0, False)


def test_maximum_likelihood_is_unbiased_with_the_spread_that_theory_gives():
    """A power law of exponent 3: standard deviation beta / sqrt(K - 3), for which the line has a fifth more."""
    anchors, size, slope = 4000, 51, 3.0
    generator = torch.Generator().manual_seed(0)
    delta = torch.rand(anchors, size, generator=generator, dtype=torch.float64).pow(1 / slope).sort(dim=1).values
    likelihood = fit_tail(1 - delta, EPS, estimator="maximum_likelihood", lines=False).slope
    line = fit_tail(1 - delta, EPS).slope
    spread = slope / (size - 3) ** 0.5
    assert likelihood.mean().item() == pytest.approx(slope, abs=4 * spread / anchors**0.5)
    # The standard error of a standard deviation is 1 / sqrt(2 A) = 1.1 %.
    assert likelihood.std().item() == pytest.approx(spread, rel=0.05)
    assert line.std().item() > 1.05 * likelihood.std().item()


@pytest.mark.parametrize("estimator", ["line", "maximum_likelihood"])
def test_anchors_with_tails_of_their_own_size_are_fitted_as_if_alone(estimator: str):
    hardest = random_tail(60, anchors=9)
    sizes = torch.tensor([0, 1, 2, 3, 4, 19, 20, 41, 60])
    own = hardest.clone()
    for row, size in zip(own, sizes, strict=True):
        row[size:] = float("-inf")  # an anchor with fewer negatives than columns
    for filled in (hardest, own):
        together = fit_tail(filled, EPS, sizes, estimator, moments=True)
        for i, size in enumerate(sizes.tolist()):
            alone = fit_tail(hardest[i : i + 1, :size], EPS, estimator=estimator, moments=True)
            for found, expected in zip(together, alone, strict=True):
                torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert together.points.tolist() == [0, 0, 0, 2, 3, 18, 19, 40, 59]


def test_sizes_of_tails_are_the_numbers_one_by_one():
    counts = torch.arange(0, 700)
    rule = TailRule(0.1, 32, "line", True)
    assert tail_sizes(counts, rule).tolist() == [tail_size(count, 0.1, 32) for count in counts.tolist()]


@pytest.mark.parametrize(("d", "slope"), [(3, 1.0), (5, 2.0)])
def test_uniform_points_on_a_sphere_have_slope_half_the_dimension(d: int, slope: float):
    # (1 + s) / 2 is Beta((D-1)/2, (D-1)/2): at the cap F ~ delta ** ((D-1)/2), exactly so for D = 3.
    generator = torch.Generator().manual_seed(0)
    anchors, candidates = (unit_rows(torch.randn(n, d, generator=generator).double()) for n in (300, 4000))
    fit = fit_tail((anchors @ candidates.T).topk(100, dim=1).values, EPS)
    # 300 anchors give a standard error of 0.7 %. The lines themselves are biased low, by 1 to 2 % here, and for D = 5
    # the 2.5 % quantile adds as much. One dimension more or less would be 25 %.
    assert fit.slope.mean().item() == pytest.approx(slope, rel=0.06)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_noise_is_no_tail(dtype: torch.dtype):
    """Equidistant negatives and a collapsed batch: the spread of log delta is rounding, and sorted noise is a line."""
    basis = torch.linalg.qr(torch.randn(64, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q.T
    one = torch.randn(1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64).expand(20, -1)
    for z in (basis.to(dtype), one.to(dtype)):
        output = whole(z, z)
        assert output.tail is not None
        assert not output.tail.valid.any()
        assert (output.tail.slope == 0).all()
        assert (output.weight == 0).all()
        assert torch.equal(output.loss, InfoNCELoss()(z, z))
    # A spread of a thousand times the rounding of float32 is a tail again.
    generator = torch.Generator().manual_seed(2)
    fit = fit_tail(
        (0.5 + 5e-4 * torch.rand(6, 40, generator=generator, dtype=dtype)).sort(descending=True).values, 1e-6
    )
    assert fit.valid.all()


def test_tails_of_their_own_size_are_the_oracles_where_no_line_is_fitted():
    """Maximum likelihood alone needs no order; the ends of tails of different sizes do."""
    generator = torch.Generator().manual_seed(11)
    similarity = 2 * torch.rand(4, 400, generator=generator, dtype=torch.float64) - 1
    counts = torch.tensor([150, 20, 50, 400])
    for row, count in zip(similarity, counts, strict=True):
        row[count:] = float("-inf")
    rule = Gate(evidence="endpoint", slope_estimator="maximum_likelihood").rule
    fit = measure_tail(similarity.clone(), 400, counts, rule, EPS)
    for i, count in enumerate(counts.tolist()):
        shortfalls, size = [1 - s for s in similarity[i, :count].tolist()], tail_size(count, 0.1, 32)
        assert fit.slope[i].item() == pytest.approx(reference.likelihood_slope(shortfalls, size, EPS), rel=1e-9)
        expected = reference.moments(sorted(shortfalls)[:size])
        assert (fit.dispersion[i].item(), fit.excess[i].item(), fit.points[i].item()) == pytest.approx(
            expected, rel=1e-9
        )


def test_a_positive_is_beaten_by_what_is_nearer_by_more_than_rounding():
    """An own old key in a queue equals the positive, but for the rounding of another product."""
    s = torch.tensor([[0.3, 0.9, 0.1]] * 5, dtype=torch.float64)
    best = torch.tensor([0.8, 0.95, 0.9, 0.9 - 2e-16, float("-inf")], dtype=torch.float64)
    rule = TailRule(0.1, 32, "line", True)
    for dtype in (torch.float64, torch.float32):
        fit = measure_tail(s.to(dtype), 3, None, rule, EPS, best.to(dtype))
        assert fit.beaten.tolist()[:4] == [1, 0, 0, 0]
        assert fit.beaten[4].isnan()
    assert measure_tail(s, 3, None, rule, EPS).beaten.isnan().all()
