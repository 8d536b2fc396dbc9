"""Derivatives of other kinds, and tensors without values: forward mode, torch.func, fake and meta tensors, export."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.export import Dim, export

from batches import clusters
from weince import (
    INFONCE,
    Gate,
    QueueLoss,
    ReleasedTopMLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    contest_output,
    query_key_loss,
    setups,
)
from weince.options import Options

A, B = clusters(12, 5)
OWN = torch.stack(clusters(12, 5, seed=4), dim=1)
LABELS = torch.arange(12) % 4
TAU = torch.tensor(0.3, dtype=torch.float64)


def queue_loss(query: Tensor, key: Tensor, tau: Tensor) -> Tensor:
    return contest_output(setups.queued(query, key, torch.cat([A, B]).flip(0)), tau).loss


LOSSES = {
    "two views": (lambda a, b: WEINCELoss(0.3)(a, b), (A, B)),
    "two towers": (lambda a, b: TwoTowerLoss(0.3)(a, b), (A, B)),
    "logit scale": (lambda a, b, scale: TwoTowerLoss()(a, b, logit_scale=scale), (A, B, 1 / TAU)),
    "labels": (lambda z: SupervisedLoss(0.3)(z, LABELS), (A,)),
    "labels against others": (lambda z, o: SupervisedLoss(0.3)(z, LABELS, o, LABELS), (A, B)),
    "retrieval": (lambda q, p, n: RetrievalLoss(0.3)(q, p, n), (A, B, OWN)),
    "own negatives": (lambda q, p, n, tau: query_key_loss(q, p, n, tau), (A, B, OWN, TAU)),
    "shared negatives": (lambda q, p, n, tau: query_key_loss(q, p, n, tau), (A, B, OWN[:, 0], TAU)),
    "queue": (queue_loss, (A, B, TAU)),
    "infonce": (lambda a, b, tau: query_key_loss(a, b, None, tau, INFONCE), (A, B, TAU)),
}


def derivative(loss, leaves: tuple[Tensor, ...], which: int, tangent: Tensor) -> Tensor:
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(z, tangent) if place == which else z for place, z in enumerate(leaves)]
        found = forward_ad.unpack_dual(loss(*duals)).tangent
    assert found is not None, "no derivative at all"
    return found


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")  # PyTorch of itself
@pytest.mark.parametrize("name", LOSSES)
def test_forward_mode_is_reverse_mode_for_every_leaf_alone_and_together(name: str):
    loss, leaves = LOSSES[name]
    tangents = [torch.randn(z.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype) for z in leaves]
    needing = [z.clone().requires_grad_() for z in leaves]
    gradients = torch.autograd.grad(loss(*needing), needing)
    expected = [(gradient * tangent).sum() for gradient, tangent in zip(gradients, tangents, strict=True)]
    for which, tangent in enumerate(tangents):
        torch.testing.assert_close(derivative(loss, leaves, which, tangent), expected[which], rtol=1e-9, atol=1e-12)
        alone = lambda z, which=which: loss(*(z if place == which else other for place, other in enumerate(leaves)))  # noqa: E731
        _, along = torch.func.jvp(alone, (leaves[which],), (tangent,))
        torch.testing.assert_close(along, expected[which], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(torch.func.grad(alone)(leaves[which]), gradients[which])
    _, along = torch.func.jvp(loss, leaves, tuple(tangents))
    torch.testing.assert_close(along, sum(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_tiles_say_that_they_have_none():
    match = 'Give implementation="dense" or "auto"'
    criterion = TwoTowerLoss(implementation="tiled")
    for place in range(2):
        with pytest.raises(RuntimeError, match=match):
            derivative(criterion, (A, B), place, torch.ones_like(A))
        with pytest.raises(RuntimeError, match=match):
            torch.func.grad(lambda z, place=place: criterion(*((z, B) if place == 0 else (A, z))))(A)
    with pytest.raises(RuntimeError, match=match):
        derivative(lambda tau: query_key_loss(A, B, None, tau, implementation="tiled"), (TAU,), 0, torch.ones_like(TAU))


CRITERIA = {
    "two views": (WEINCELoss(), lambda a, b: (a, b)),
    "infonce": (WEINCELoss(gate=INFONCE), lambda a, b: (a, b)),
    "endpoint": (WEINCELoss(gate=Gate(evidence="endpoint")), lambda a, b: (a, b)),
    "two towers": (TwoTowerLoss(), lambda a, b: (a, b)),
    "labels": (SupervisedLoss(), lambda a, b: (a, torch.zeros(len(a), dtype=torch.long, device=a.device))),
    "retrieval": (RetrievalLoss(), lambda a, b: (a, b)),
    "released": (ReleasedTopMLoss(), lambda a, b: (a, b)),
}


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.usefixtures("tiles_pay")
def test_meta_tensors_have_shapes(name: str):
    criterion, inputs = CRITERIA[name]
    criterion = criterion if name != "released" else ReleasedTopMLoss().to("meta")
    a, b = (torch.empty(12, 5, device="meta", requires_grad=True) for _ in range(2))
    loss = criterion(*inputs(a, b))
    assert (loss.device.type, loss.shape) == ("meta", ())
    loss.backward()
    assert a.grad.shape == (12, 5)


@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.usefixtures("tiles_pay")
def test_fake_tensors_have_shapes(name: str):
    from torch._subclasses import FakeTensorMode

    criterion, inputs = CRITERIA[name]
    with FakeTensorMode(allow_non_fake_inputs=True):
        a, b = (torch.empty(12, 5, requires_grad=True) for _ in range(2))
        loss = criterion(*inputs(a, b))
        assert loss.shape == ()
        loss.backward()
        assert a.grad.shape == (12, 5)


def test_a_queue_takes_fake_tensors():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        criterion = QueueLoss(16, 5)
        loss = criterion(torch.empty(12, 5, requires_grad=True), torch.empty(12, 5))
        assert loss.shape == ()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["two views", "infonce", "two towers", "retrieval"])
def test_it_exports_with_a_batch_of_any_size(name: str):
    criterion, _ = CRITERIA[name]
    n = Dim("n", min=2, max=4096)
    exported = export(criterion, (A, B), dynamic_shapes=({0: n}, {0: n}), strict=False)
    for size in (12, 7, 31):
        a, b = clusters(size, 5)
        torch.testing.assert_close(exported.module()(a, b), criterion(a, b))


def test_options_are_checked_once_and_travel_as_one():
    options = Options(eps=1e-3, gather_distributed=False)
    assert options == Options(eps=1e-3)
    assert "eps=0.001" in repr(WEINCELoss(eps=1e-3))
