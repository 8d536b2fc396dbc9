"""Which settings make a rival InfoNCE, or another loss that is known; and what it does at extreme similarities."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from batches import clusters, views
from weince import CAUTIOUS, INFONCE, PAPER, WEIBIT, ContestLoss, Gate
from weince.contest import Contest
from weince.lab.rivals import (
    DCL,
    DHEL,
    ENTRIES,
    MACL,
    Atanh,
    HardNegatives,
    HardnessWeighted,
    LDReg,
    LearntTemperature,
    MatchedTemperature,
    MeasuredTemperature,
    OneSlope,
    Rivals,
    SigLIP,
    StudentT,
    in_setup,
    make_criterion,
)
from weince.setups import labelled, two_towers, two_views

LABELS = torch.arange(24) % 5


def contests() -> list[Contest]:
    a, b = clusters(24, 6)
    return [two_views(a, b), two_towers(a, b), labelled(a, LABELS)]


def same(found: torch.nn.Module, expected: torch.nn.Module, tolerance: float = 1e-10) -> None:
    """In value and in gradient, for three setups."""
    a, b = clusters(24, 6)
    for make in (lambda x: two_views(x, b), lambda x: two_towers(x, b), lambda x: labelled(x, LABELS)):
        results = []
        for loss in (found, expected):
            x = a.clone().requires_grad_()
            value = loss(make(x)).loss
            results.append((value.detach(), *torch.autograd.grad(value, x)))
        for one, other in zip(*results, strict=True):
            assert torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max())), make


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_settings_that_are_infonce(tau: float):
    infonce = ContestLoss(tau, INFONCE)
    same(HardNegatives(tau, 0.0, 0.0), infonce)
    same(HardnessWeighted(tau, 0.0), infonce)
    same(LDReg(tau, 0.0), infonce)
    same(LearntTemperature(tau), infonce, 1e-6)  # its parameter is float32
    same(StudentT(1e8, 1e8 / tau), infonce, 1e-5)
    same(MatchedTemperature(10.0, least_temperature=tau + 1e3), ContestLoss(tau + 1e3, INFONCE))
    same(MeasuredTemperature(tau, least_temperature=1e3), ContestLoss(1e3, INFONCE))


def test_measured_temperature_is_infonce_where_there_is_no_tail():
    a, b = views(2, 5)
    assert torch.allclose(
        MeasuredTemperature(0.3)(two_towers(a, b)).loss, ContestLoss(0.3, INFONCE)(two_towers(a, b)).loss
    )


def test_settings_that_are_weince():
    same(OneSlope(3.0), ContestLoss(0.1, Gate(evidence=1.0, slope=3.0)))
    same(StudentT(0.0, 3.0), OneSlope(3.0))
    forms = {
        "weince": PAPER,
        "endpoint": Gate(evidence="endpoint"),
        "cautious": CAUTIOUS,
        "weibit": WEIBIT,
        "weibit-line": Gate(evidence=1.0),
        "one-slope": Gate(evidence=1.0, slope=8.0),
        "infonce": INFONCE,
    }
    for name, gate in forms.items():
        made = ENTRIES[name].make(0.2, PAPER, Rivals())
        same(made, ContestLoss(0.2, gate))
    for name, gate in {"cautious-dcl": CAUTIOUS, "dcl": INFONCE}.items():
        same(ENTRIES[name].make(0.2, PAPER, Rivals()), ContestLoss(0.2, gate, decoupled=True))


def test_student_t_of_one_half_is_the_cauchy_kernel():
    a, b = views(10, 4)
    u, v = (torch.nn.functional.normalize(z, dim=1) for z in (a, b))
    kernel = 1 / (1 + torch.cdist(u, v).square())
    expected = -(kernel.diagonal() / kernel.sum(dim=1)).log().mean()
    assert torch.allclose(StudentT(0.5, 1.0)(two_towers(a, b)).loss, expected)


def test_atanh_is_infonce_at_one_half_far_from_the_cap():
    a, b = views(10, 4)
    contest = two_towers(a, b)
    short = contest._replace(anchors=1e-4 * contest.anchors)  # similarities of 1e-4, as no unit rows have
    difference = Atanh()(short).per_anchor - ContestLoss(0.5, INFONCE)(short).per_anchor
    assert float(difference.abs().max()) < 1e-11  # of third order
    assert float((ContestLoss(0.5, INFONCE)(short).per_anchor - torch.log(torch.tensor(10.0))).abs().max()) > 1e-6


def test_dhel_is_dcl_where_both_towers_are_one_and_less_log_two_where_both_views_are():
    a, _ = views(12, 5)
    towers, both = two_towers(a, a.clone()), two_views(a, a.clone())
    assert torch.allclose(DHEL(0.2)(towers).per_anchor, DCL(0.2)(towers).per_anchor)
    assert torch.allclose(DHEL(0.2)(both).per_anchor, DCL(0.2)(both).per_anchor - torch.log(torch.tensor(2.0)))


def test_macl_without_alpha_has_the_gradient_of_dcl():
    a, b = clusters(24, 6)
    found = []
    for loss in (MACL(0.2, 0.0), DCL(0.2)):
        x = a.clone().requires_grad_()
        found.append(torch.autograd.grad(loss(two_views(x, b)).loss, x)[0])
    assert torch.allclose(*found, rtol=1e-6, atol=1e-9)


def test_the_gradient_of_dcl_is_that_of_infonce_over_what_is_lost():
    a, b = clusters(24, 6)
    x = a.clone().requires_grad_()
    anchor = [loss(two_towers(x, b)).per_anchor[3] for loss in (ContestLoss(0.2, INFONCE), DCL(0.2))]
    plain, decoupled = (torch.autograd.grad(one, x)[0] for one in anchor)
    assert torch.allclose(plain / -torch.expm1(-anchor[0].detach()), decoupled)


def test_measured_temperature_moves_where_the_tail_does():
    """A control that scales with the similarities: the loss of logits does not."""
    contest = two_towers(*views(40, 6))
    half = contest._replace(anchors=0.5 * contest.anchors)
    loss = MeasuredTemperature(0.1, least_temperature=1e-6)
    assert torch.allclose(loss(contest).loss, loss(half).loss)
    assert not torch.allclose(ContestLoss(0.1, INFONCE)(contest).loss, ContestLoss(0.1, INFONCE)(half).loss)


def test_ldreg_knows_the_dimension_of_a_ball():
    """Uniform in a small ball of 1, 2 and 5 dimensions: 200 anchors near its middle, whose neighbours overlap."""
    for dimension in (1, 2, 5):
        g = torch.Generator().manual_seed(dimension)
        direction = torch.nn.functional.normalize(torch.randn(4000, dimension, generator=g).double(), dim=1)
        ball = 0.05 * direction * torch.rand(4000, 1, generator=g).double() ** (1 / dimension)
        flat = torch.zeros(4000, 9, dtype=torch.float64)
        flat[:, 0], flat[:, 1 : 1 + dimension] = 1.0, ball
        loss = LDReg(0.1, 1.0, 64)
        middle = ball.norm(dim=1).argsort()[:200]
        contest = two_towers(flat, flat).of(slice(None))
        contest = Contest(contest.anchors[middle], contest.candidates, 3999, positive=middle)
        found = loss.log_dimension(loss.rows(contest, 0.1)).mean().exp()
        assert float(found) == pytest.approx(dimension, rel=0.1)


def test_dimension_moves_the_anchors_alone():
    a, b = views(30, 5)
    found = []
    for weight in (0.0, 0.5):
        y = b.clone().requires_grad_()
        found.append(torch.autograd.grad(LDReg(0.2, weight, 6)(two_towers(a, y)).loss, y)[0])
    assert torch.equal(*found)
    x = a.clone().requires_grad_()
    one, other = (torch.autograd.grad(LDReg(0.2, weight, 6)(two_towers(x, b)).loss, x)[0] for weight in (0.0, 0.5))
    assert not torch.allclose(one, other)


DIFFERENTIABLE: dict[str, Callable[[], torch.nn.Module]] = {
    "dcl": lambda: DCL(0.2),
    "dhel": lambda: DHEL(0.2),
    "hard": lambda: HardNegatives(0.2, 1.0, 0.1),
    "atanh": Atanh,
    "student-t": lambda: StudentT(0.5, 4.0),
    "siglip": SigLIP,
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_differences(name: str):
    a, b = views(6, 4)
    loss = DIFFERENTIABLE[name]().double()

    def of(x: Tensor, y: Tensor) -> Tensor:
        return loss(two_towers(x, y)).loss

    assert torch.autograd.gradcheck(of, (a.requires_grad_(), b.requires_grad_()))


def extreme(kind: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    a, b = views(12, 6, dtype=dtype)
    if kind == "all equal":
        a[:], b[:] = a[:1], a[:1]
    elif kind == "opposite":
        a[:], b[:] = a[:1], -a[:1]
    elif kind == "two points":
        a[::2], b[::2], a[1::2], b[1::2] = a[:1], -a[:1], -a[:1], a[:1]
    elif kind == "zero":
        a[3] = b[5] = 0
    elif kind == "one row":
        a, b = a[:1], b[:1]
    return a, b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["all equal", "opposite", "two points", "zero", "one row"])
@pytest.mark.parametrize("name", ENTRIES)
def test_losses_and_gradients_are_finite_at_extreme_similarities(name: str, kind: str, dtype: torch.dtype):
    for setup in sorted(ENTRIES[name].setups):
        if name == "weince-released" and kind == "one row":
            continue
        for tau in (0.01, 1.0):
            a, b = extreme(kind, dtype)
            a.requires_grad_()
            criterion = make_criterion(name, tau, PAPER, setup=setup, queue=(8, 6)).to(dtype)
            if setup == "labels":
                value = criterion(a, torch.arange(len(a)) % 3)
            else:
                if setup == "queue":
                    criterion(b, a.detach())
                value = criterion(a, b)
            gradients = torch.autograd.grad(value, [a, *criterion.parameters()], allow_unused=True)
            assert bool(value.isfinite()), setup
            assert all(bool(one.isfinite().all()) for one in gradients if one is not None), setup


def test_a_loss_is_refused_where_it_is_not_defined():
    with pytest.raises(ValueError, match="DHEL is defined for"):
        in_setup(DHEL(), "labels")
    with pytest.raises(ValueError, match=r"`loss`.*two-views.*'siglip'"):
        make_criterion("siglip", 0.1, PAPER)
    with pytest.raises(ValueError, match="`queue`"):
        make_criterion("dcl", 0.1, PAPER, setup="queue")
    with pytest.raises(ValueError, match="`setup`"):
        in_setup(DCL(), "pairs")  # pyright: ignore
