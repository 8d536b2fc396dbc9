"""The evidence of the end: its null distribution, its size and power, and what it says of tails whose end is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from batches import whole
from weince import CAUTIOUS, Gate, SupervisedLoss, WEINCELoss
from weince.evidence import beaten_weight, end_of, end_weight
from weince.gate import mix
from weince.tail import TailFit, measure_tail

RULE = Gate(evidence="endpoint").rule


def measured(similarity: Tensor) -> TailFit:
    return measure_tail(similarity.clone(), similarity.shape[1], None, RULE, 1e-6)


def among_themselves(rows: int, law, share: float, generator: torch.Generator) -> Tensor:
    """(A, A - 1) similarities of a batch with itself, each with the law `law` of a uniform; rows have effects."""
    effect = torch.randn(rows, generator=generator, dtype=torch.float64)
    own = torch.randn(rows, rows, generator=generator, dtype=torch.float64).triu(1)
    normal = (share / 2) ** 0.5 * (effect + effect[:, None]) + (1 - share) ** 0.5 * (own + own.T)
    s = law(torch.special.ndtr(-normal).clamp_min(1e-300))
    return s[~torch.eye(rows, dtype=torch.bool)].reshape(rows, rows - 1)


def weights(similarity: Tensor) -> Tensor:
    return mix(measured(similarity), Gate(evidence="endpoint", slope="unit")).weight  # pyright: ignore


EXPONENTIAL = {f"scale {scale}": (lambda q, scale=scale: -0.5 - scale * q.log()) for scale in (0.02, 0.05, 0.1)}
AT_THE_CAP = {f"slope {slope}": (lambda q, slope=slope: 1 - 2 * q ** (1 / slope)) for slope in (1, 3, 6)}


def test_the_null_moments_are_exact():
    """20,000 exponential tails: mean 2 and the stated variance, whatever the scale, within four standard errors."""
    generator = torch.Generator().manual_seed(0)
    for n in (8, 31, 50):
        tails = -torch.rand(20_000, n + 1, generator=generator, dtype=torch.float64).log()
        # The smallest of n + 1 is the threshold: by memorylessness the rest are exponential over it.
        fit = measure_tail(0.01 * tails - 0.5, n + 1, None, RULE._replace(fraction=1.0), 1e-6)
        null = 4 * (n - 1) / ((n + 2) * (n + 3))
        assert (fit.points == n).all()
        assert fit.dispersion.mean().item() == pytest.approx(2, abs=4 * (null / 20_000) ** 0.5)
        assert fit.dispersion.var().item() == pytest.approx(null, rel=0.12)  # its own error, from the fourth moment


@pytest.mark.parametrize(("mean", "spread", "opens"), [(0.0, 0.2, True), (0.5, 0.1, True), (0.0, 0.1, False)])
def test_normal_scores_open_it_where_their_fitted_end_lies_about_the_cap(mean: float, spread: float, opens: bool):
    """They have no end: what the documents say that the gate does not tell. Weights 0.98, 0.98 and 0.00."""
    normal = torch.randn(512, 512, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = float(weights((mean + spread * normal).clamp_max(1)).mean())
    assert found > 0.9 if opens else found < 0.05


@pytest.mark.parametrize(("width", "opens"), [(8, True), (64, False)])
def test_uniform_points_open_it_in_low_dimensions_alone(width: int, opens: bool):
    """All of them end at 1."""
    z = torch.randn(512, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    z = torch.nn.functional.normalize(z, dim=1)
    s = (z @ z.T)[~torch.eye(512, dtype=torch.bool)].reshape(512, 511)
    found = float(weights(s).mean())
    assert found > 0.9 if opens else found < 0.05


@pytest.mark.parametrize("law", EXPONENTIAL.values(), ids=EXPONENTIAL)
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("rows", [64, 512])
def test_size(rows: int, share: float, law):
    """Of 200 exponential batches (of 512 rows: 40) none is opened half, and z is no wider than N(0, 1)."""
    generator = torch.Generator().manual_seed(1)
    found = [measured(among_themselves(rows, law, share, generator)) for _ in range(200 if rows == 64 else 40)]
    ends = [end_of(fit) for fit in found]
    opened = [float(end_weight(fit, end, 10.0).mean()) > 0.5 for fit, end in zip(found, ends, strict=True)]
    assert sum(opened) == 0
    z = torch.stack([end.statistic for end in ends])
    # N(0, 1), or less, as pairs are shared only in part; three standard errors of a standard deviation.
    assert z.std().item() < 1 + 3 / (2 * (len(z) - 1)) ** 0.5
    assert abs(z.mean().item()) < 1


@pytest.mark.parametrize("slope", AT_THE_CAP)
@pytest.mark.parametrize(("rows", "least"), [(64, {"slope 1": 1.0, "slope 3": 0.97, "slope 6": 0.5}), (512, {})])
def test_power(rows: int, least: dict[str, float], slope: str):
    """A power law at the cap opens the gate."""
    generator = torch.Generator().manual_seed(2)
    repetitions = 100 if rows == 64 else 20
    batches = [weights(among_themselves(rows, AT_THE_CAP[slope], 0.3, generator)).mean() for _ in range(repetitions)]
    assert (torch.stack(batches) > 0.5).double().mean().item() >= least.get(slope, 1.0)


def test_it_is_open_at_the_cap_and_shut_without_an_end_and_far_below():
    generator = torch.Generator().manual_seed(3)

    def mean(law) -> float:
        return weights(among_themselves(512, law, 0.1, generator)).mean().item()

    assert mean(AT_THE_CAP["slope 3"]) > 0.9
    assert mean(EXPONENTIAL["scale 0.05"]) < 0.05
    # Ends at 0.3, and the threshold is at -0.4: half-way to the cap.
    assert mean(lambda q: 0.3 - 1.5 * q ** (1 / 3)) < 0.05
    # Uniform points on a sphere, and the same drawn in to half their similarity.
    x = torch.nn.functional.normalize(torch.randn(512, 8, generator=generator, dtype=torch.float64), dim=1)
    s = (x @ x.T)[~torch.eye(512, dtype=torch.bool)].reshape(512, 511)
    assert weights(s).mean() > 0.9
    assert weights(s / 2).mean() < 0.01


def test_the_place_of_the_end_is_found():
    """GPD tails of shape -0.3 that end at e: R = (1 - u) / (e - u) within a tenth."""
    generator = torch.Generator().manual_seed(4)
    for end in (0.4, 0.7, 1.0):
        q = torch.rand(512, 510, generator=generator, dtype=torch.float64)
        fit = measured(end - 0.9 * q**0.3)
        threshold = end - 0.9 * 0.1**0.3
        assert end_of(fit).place.item() == pytest.approx((1 - threshold) / (end - threshold), rel=0.1)


def test_an_anchor_moves_its_own_weight_only_where_anchors_differ_by_more_than_noise():
    generator = torch.Generator().manual_seed(5)
    q = torch.rand(600, 510, generator=generator, dtype=torch.float64)
    alike = measured(1 - 2 * q ** (1 / 3))
    assert end_of(alike).trust < 0.3
    mixed = torch.cat([1 - 2 * q[:400] ** (1 / 3), 0.2 - 0.6 * q[400:]])  # a third ends at 0.2, sharply
    fit = measured(mixed)
    end = end_of(fit)
    assert end.trust > 0.5
    weight = end_weight(fit, end, 10.0)
    assert weight[:400].mean() > weight[400:].mean() + 0.5


def test_anchors_without_a_tail_have_weight_0_and_a_batch_without_any_is_infonce():
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(6))
    output = whole(z, z.flip(0), gate=Gate(evidence="endpoint"))
    assert (output.weight == 0).all()
    same = whole(torch.ones(40, 4), torch.ones(40, 4), gate=Gate(evidence="endpoint"))
    assert (same.weight == 0).all()
    assert same.loss.isfinite()


def test_scale_and_place_of_similarities_alone_decide_nothing():
    """G has no scale: exponential tails of any scale have the same statistic."""
    generator = torch.Generator().manual_seed(7)
    q = torch.rand(64, 300, generator=generator, dtype=torch.float64)
    first, second = (end_of(measured(-0.9 - scale * q.log())).statistic for scale in (0.01, 0.1))
    torch.testing.assert_close(first, second)


def test_it_trains():
    z = torch.randn(32, 8, generator=torch.Generator().manual_seed(8)).requires_grad_()
    WEINCELoss(0.1, Gate(evidence="endpoint", slope_estimator="maximum_likelihood"))(z, z.flip(1)).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_the_cautious_gate_is_open_only_while_most_positives_are_beaten():
    """Uniform points on a sphere, whose tails end at the cap; positives of every quality."""
    generator = torch.Generator().manual_seed(9)
    a, noise = torch.nn.functional.normalize(torch.randn(2, 256, 8, generator=generator, dtype=torch.float64), dim=2)
    found = {}
    for share in (0.05, 0.5, 1.0):
        b = torch.nn.functional.normalize(a + share * noise, dim=1)
        output = whole(a, b, gate=CAUTIOUS)
        beaten = float(output.tail.beaten.mean())
        endpoint = whole(a, b, gate=Gate(evidence="endpoint", slope_max=8.0)).weight
        torch.testing.assert_close(output.weight, endpoint * beaten_weight(output.tail))
        assert float(endpoint.mean()) > 0.8
        found[beaten] = float(output.weight.mean() / endpoint.mean())
        assert output.slope.max() <= 8
    (low, shut), (_, _), (high, open_) = sorted(found.items())
    assert (low < 0.2, shut < 0.01, high > 0.8, open_ > 0.99) == (True,) * 4, found


def test_anchors_without_a_positive_have_no_say_in_whether_positives_are_beaten():
    generator = torch.Generator().manual_seed(10)
    z = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    labels = torch.cat([torch.arange(20) // 2, torch.arange(100, 140)])  # twenty with a positive, forty without
    fit = SupervisedLoss(gate=CAUTIOUS).output(z, labels).tail
    assert fit.beaten[:20].isfinite().all()
    assert fit.beaten[20:].isnan().all()
    assert beaten_weight(fit) == torch.sigmoid(20 * (fit.beaten[:20].mean() - 0.5))
    alone = SupervisedLoss(gate=CAUTIOUS).output(z, torch.arange(60))
    assert (alone.weight == 0).all()
    assert alone.loss == 0
