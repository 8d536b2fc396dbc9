"""Every criterion against its formula in plain loops, or another library's."""

import math

import pytest
import torch

from batches import views, whole_of
from weince import Gate, InfoNCELoss
from weince.lab.rivals import COLOURS, NAMES, Rivals, make_criterion
from weince.setups import two_views

TEMPERATURES = (0.02, 0.1, 0.5)


def contests(z_a, z_b):
    """Similarity of the positive, and those of the negatives, of every anchor."""
    z = torch.nn.functional.normalize(torch.cat([z_a, z_b]), dim=1)
    for i in range(len(z)):
        partner = (i + len(z_a)) % len(z)
        others = [j for j in range(len(z)) if j not in (i, partner)]
        yield float(z[i] @ z[partner]), [float(z[i] @ z[j]) for j in others]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_decoupled_leaves_the_positive_out_of_the_denominator(temperature):
    z_a, z_b = views(12, 6, dtype=torch.float64)
    expected = [math.log(sum(math.exp((s - p) / temperature) for s in n)) for p, n in contests(z_a, z_b)]
    found = make_criterion("dcl", temperature, Gate())(z_a, z_b)
    assert float(found) == pytest.approx(sum(expected) / len(expected), rel=1e-12)


def test_decoupled_is_that_of_lightly():
    lightly = pytest.importorskip("lightly.loss")
    z_a, z_b = views(12, 6)
    theirs = lightly.DCLLoss(temperature=0.2)(z_a, z_b)
    assert torch.allclose(make_criterion("dcl", 0.2, Gate())(z_a, z_b), theirs, rtol=1e-5)


def hard_negative_loss(p, n, temperature, concentration, prior):
    weights = [math.exp(concentration * s / temperature) for s in n]
    mean = sum(weights) / len(n)
    hard = sum(w / mean * math.exp(s / temperature) for w, s in zip(weights, n, strict=True))
    won = math.exp(p / temperature)
    rest = max((hard - prior * len(n) * won) / (1 - prior), len(n) * math.exp(-1 / temperature))
    return math.log1p(rest / won)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("concentration", "prior"), [(1.0, 0.1), (0.5, 0.0), (2.0, 0.5), (0.0, 0.0)])
def test_hard_negatives_weigh_and_debias(temperature, concentration, prior):
    z_a, z_b = views(12, 6, dtype=torch.float64)
    each = [hard_negative_loss(p, n, temperature, concentration, prior) for p, n in contests(z_a, z_b)]
    criterion = make_criterion("hard-negatives", temperature, Gate(), Rivals(concentration, prior))
    assert float(criterion(z_a, z_b)) == pytest.approx(sum(each) / len(each), rel=1e-9)
    if concentration == prior == 0:
        assert float(criterion(z_a, z_b)) == pytest.approx(float(InfoNCELoss(temperature)(z_a, z_b)), rel=1e-12)


@pytest.mark.parametrize("least", [1e-9, 0.05])
def test_matched_temperature_is_as_steep_as_the_blend_at_the_hardest_negative(least):
    z_a, z_b = views(24, 6, dtype=torch.float64)
    blend = whole_of(two_views(z_a, z_b), 0.2)
    each = []
    for i, (p, n) in enumerate(contests(z_a, z_b)):
        weight, slope = float(blend.weight[i]), float(blend.tail.slope[i])
        steepness = min((1 - weight) / 0.2 + weight * slope / (1 - max(n)), 1 / least)
        each.append(math.log1p(sum(math.exp((s - p) * steepness) for s in n)))
    found = make_criterion("matched-temperature", 0.2, Gate(), Rivals(least_temperature=least))(z_a, z_b)
    assert float(found) == pytest.approx(sum(each) / len(each), rel=1e-9)


@pytest.mark.parametrize("loss", ["dcl", "hard-negatives", "matched-temperature", "weince-released"])
@pytest.mark.parametrize("kind", ["random", "duplicates", "collapsed"])
def test_gradients_are_finite_and_those_of_differences(loss, kind):
    z_a, z_b = views(8, 4, dtype=torch.float64)
    if kind == "duplicates":
        z_b[0] = z_a[3] = z_a[0]
    if kind == "collapsed":
        z_a[:], z_b[:] = z_a[:1], z_a[:1]
    z_a.requires_grad_()
    criterion = make_criterion(loss, 0.1, Gate())
    (gradient,) = torch.autograd.grad(criterion(z_a, z_b), z_a)
    assert gradient.isfinite().all()
    if kind == "random" and loss in ("dcl", "hard-negatives"):
        step = torch.zeros_like(z_a)
        step[2, 1] = 1e-6
        with torch.no_grad():
            slope = float(criterion(z_a + step, z_b) - criterion(z_a - step, z_b)) / 2e-6
        assert float(gradient[2, 1]) == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_a_fixed_pair_leaves_nothing_to_match():
    with pytest.raises(ValueError, match="`gate`"):
        make_criterion("matched-temperature", 0.1, Gate(evidence=0.5, slope=1.0))
    with pytest.raises(ValueError, match="`loss`"):
        make_criterion("none", 0.1, Gate())
    with pytest.raises(ValueError, match="`class_prior`"):
        Rivals(class_prior=1.0)


def test_every_loss_has_a_name_and_a_colour_of_its_own():
    assert set(NAMES) == set(COLOURS)
    assert len(set(COLOURS.values())) == len(set(NAMES.values())) == len(NAMES)
