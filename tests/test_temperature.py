"""The temperature: numbers, parameters, CLIP's scale, and one that learns within bounds."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from batches import clusters
from weince import (
    INFONCE,
    InfoNCELoss,
    LearnableTemperature,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    contest_output,
    query_key_loss,
    weince_loss,
)
from weince.setups import two_views

A, B = clusters(12, 5)
pytestmark = pytest.mark.usefixtures("tiles_pay")


@pytest.mark.parametrize("gate", [INFONCE, WEINCELoss().inner.options.gate], ids=["infonce", "weince"])
def test_a_scale_has_clips_gradient(gate):
    """By differences with the weights held fixed, which at weight 0 they are."""
    log_scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    criterion = TwoTowerLoss(gate=gate)
    loss = criterion(A, B, logit_scale=log_scale.exp())
    (found,) = torch.autograd.grad(loss, log_scale)
    own = TwoTowerLoss(math.exp(-2.0), gate)(A, B)
    torch.testing.assert_close(loss, own)
    assert found.item() != 0
    if gate is INFONCE:
        step = 1e-6
        near = [criterion(A, B, logit_scale=(log_scale.detach() + sign * step).exp()) for sign in (1, -1)]
        assert found.item() == pytest.approx(float(near[0] - near[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("start", [0.07, 0.5])
def test_a_learnt_temperature_has_the_gradient_of_its_logarithm(start: float):
    temperature = LearnableTemperature(start).double()
    loss = InfoNCELoss(temperature)(A, B)
    loss.backward()
    step = 1e-6
    taus = [start * math.exp(-sign * step) for sign in (1, -1)]
    near = [InfoNCELoss(tau)(A, B).item() for tau in taus]
    assert temperature.logit_scale.grad.item() == pytest.approx((near[0] - near[1]) / (2 * step), rel=1e-5)
    torch.testing.assert_close(loss, InfoNCELoss(start)(A, B), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("direction", "bound"), [(1.0, 0.01), (-1.0, 1.0)])
def test_a_learnt_temperature_stays_within_bounds_and_comes_back_at_once(direction: float, bound: float):
    """A hundred steps towards a bound, then one away: without drift the one is felt."""
    temperature = LearnableTemperature(0.07)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=0.5)
    for _ in range(100):
        (-direction * torch.log(1 / temperature())).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert temperature().item() == pytest.approx(bound, rel=1e-6)
    temperature.eval()
    assert temperature().item() == pytest.approx(bound, rel=1e-6)
    temperature.train()
    (direction * torch.log(1 / temperature())).backward()
    optimizer.step()
    assert abs(math.log(temperature().item() / bound)) == pytest.approx(0.5, rel=1e-5)


def test_two_losses_may_share_one_before_backward():
    """Taking a step back in place must not disturb a graph that is still there."""
    temperature = LearnableTemperature(0.02)
    with torch.no_grad():
        temperature.logit_scale.fill_(9.0)
    losses = [InfoNCELoss(temperature)(A.float(), B.float()) for _ in range(2)]
    sum(losses).backward()
    assert temperature.logit_scale.grad.isfinite()


@pytest.mark.parametrize(
    "call",
    [
        lambda tau: WEINCELoss(tau)(A, B),
        lambda tau: TwoTowerLoss(tau)(A, B),
        lambda tau: SupervisedLoss(tau)(A, torch.arange(12) % 4),
        lambda tau: RetrievalLoss(tau)(A, B),
        lambda tau: [criterion := QueueLoss(24, 5, tau).double(), criterion(A, B), criterion(B, A)][-1],
        lambda tau: weince_loss(A, B, tau),
        lambda tau: query_key_loss(A, B, None, tau),
        lambda tau: contest_output(two_views(A, B), tau).loss,
    ],
)
def test_every_loss_takes_one_that_learns(call):
    temperature = LearnableTemperature(0.2)
    loss = call(temperature)
    loss.backward()
    assert temperature.logit_scale.grad.item() != 0
    torch.testing.assert_close(loss.detach(), call(0.2), rtol=1e-6, atol=1e-7)
    parameter = nn.Parameter(torch.tensor(0.2))
    call(parameter).backward()
    assert parameter.grad.item() != 0


def test_it_is_a_part_of_the_module():
    criterion = TwoTowerLoss(LearnableTemperature())
    assert [name for name, _ in criterion.named_parameters()] == ["inner.temperature.logit_scale"]
    other = copy.deepcopy(criterion)
    other.load_state_dict(criterion.state_dict())
    assert "bounds=(0.01, 1)" in repr(criterion)
    assert "logit_scale" in dict(LearnableTemperature().named_parameters())


def test_a_tensor_temperature_moves_and_is_saved_with_the_module():
    criterion = WEINCELoss(torch.tensor(0.2)).double()
    assert criterion.inner.temperature.dtype == torch.float64
    assert list(criterion.state_dict()) == ["inner.temperature"]
    torch.testing.assert_close(criterion(A, B), WEINCELoss(0.2)(A, B), rtol=1e-7, atol=0)


def test_a_parameter_that_has_turned_negative_is_refused_at_once():
    """Adam takes it there: the loss would go on reversed."""
    temperature = nn.Parameter(torch.tensor(0.05))
    criterion = InfoNCELoss(temperature)
    optimizer = torch.optim.Adam([temperature], lr=0.1)
    optimizer.zero_grad()
    criterion(A.float(), -A.float()).backward()
    temperature.grad.fill_(1.0)
    optimizer.step()
    assert temperature.item() < 0
    with pytest.raises(ValueError, match=r"^Parameter `temperature` should be finite and > 0\. Found -0\.0"):
        criterion(A.float(), B.float())
    for value in (math.nan, math.inf, 0.0):
        with pytest.raises(ValueError, match=r"^Parameter `temperature` should be finite and > 0"):
            weince_loss(A, B, torch.tensor(value))


def test_a_graph_that_lasts_one_step_is_not_kept():
    log_t = torch.tensor(-2.0, requires_grad=True)
    for given in (log_t.exp(), torch.tensor(0.1, requires_grad=True)):
        with pytest.raises(ValueError, match=r"^Parameter `temperature` should be .*LearnableTemperature.*one step\.$"):
            WEINCELoss(given)
    weince_loss(A, B, log_t.exp()).backward()  # a function keeps none
    assert log_t.grad is not None


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("initial", {"initial": 2.0}, ValueError),
        ("initial", {"initial": "low"}, TypeError),
        ("bounds", {"bounds": (0.1, 0.01)}, ValueError),
        ("bounds", {"bounds": (0.0, 1.0)}, ValueError),
        ("bounds", {"bounds": 0.01}, TypeError),
    ],
)
def test_bad_bounds_are_refused(name: str, options: dict, kind: type[Exception]):
    with pytest.raises(kind, match=rf"^Parameter `{name}` should .*Found .*\.$"):
        LearnableTemperature(**options)


def test_numbers_that_the_dtype_cannot_hold_are_refused():
    for dtype, tiny in ((torch.float32, 1e-40), (torch.float16, 1e-40), (torch.float64, 1e-310)):
        a, b = A.to(dtype), B.to(dtype)
        for name, options in (("temperature", {"temperature": tiny}), ("eps", {"eps": tiny})):
            with pytest.raises(ValueError, match=rf"^Parameter `{name}` should be >= .*Found 1e-"):
                weince_loss(a, b, **options)
        least = torch.finfo(torch.promote_types(dtype, torch.float32)).tiny
        for options in ({"temperature": least}, {"eps": least}):
            z = a.to(torch.promote_types(dtype, torch.float32)).detach().requires_grad_()
            loss = weince_loss(z, b, **options)
            loss.backward()
            assert loss.isfinite()
            assert z.grad.isfinite().all()


def test_another_device_is_refused_by_name():
    elsewhere = torch.tensor(0.1, device="meta")
    with pytest.raises(ValueError, match=r"^Parameter `temperature` should be on cpu\. Found meta\.$"):
        weince_loss(A, B, elsewhere)


@pytest.mark.parametrize("temperature", [LearnableTemperature(0.1), nn.Parameter(torch.tensor(0.1))])
def test_a_temperature_that_learns_is_refused_where_the_positive_is_left_out(temperature):
    """Once positives win, the loss falls without end as the temperature does."""
    a, b = (torch.randn(6, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    with pytest.raises(ValueError, match="fixed with decoupled=True"):
        TwoTowerLoss(temperature, decoupled=True)(a, b)
    scale = torch.tensor(10.0, requires_grad=True).exp().log()
    with pytest.raises(ValueError, match="fixed with decoupled=True"):
        TwoTowerLoss(decoupled=True)(a, b, logit_scale=scale)
    fixed = TwoTowerLoss(decoupled=True)(a, b, logit_scale=scale.detach())
    torch.testing.assert_close(fixed, TwoTowerLoss(0.1, decoupled=True)(a, b))
