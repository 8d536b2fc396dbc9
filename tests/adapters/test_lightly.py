"""The adapter against lightly itself."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

import weince as core
from batches import clusters, views, whole_of
from weince import INFONCE, LearnableTemperature, LossOutput
from weince.adapters.lightly import WEINCELoss
from weince.setups import queued, two_views


def gradients(criterion: torch.nn.Module, z: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    leaves = [part.clone().requires_grad_() for part in z]
    loss = criterion(*leaves)
    return loss.detach(), *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("bank", [0, (30, 6)])
def test_weight_zero_is_lightlys_loss_step_after_step(bank: object):
    """Thirteen rows a batch into a bank of thirty: the end is met in the middle of a batch."""
    ours, theirs = WEINCELoss(0.2, bank, gate=INFONCE), NTXentLoss(0.2, bank)
    ours.memory_bank.load_state_dict(theirs.memory_bank.state_dict())
    ours.memory_bank.bank = theirs.memory_bank.bank.clone()
    for seed in range(5):
        z = clusters(13, 6, seed=seed, dtype=torch.float32)
        for found, expected in zip(gradients(ours, z), gradients(theirs, z), strict=True):
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)
        torch.testing.assert_close(ours.memory_bank.bank, theirs.memory_bank.bank, rtol=1e-6, atol=1e-6)


def test_the_bank_grows_only_where_a_gradient_is_wanted():
    criterion = WEINCELoss(memory_bank_size=(30, 6))
    z = clusters(13, 6, dtype=torch.float32)
    before = criterion.memory_bank.bank.clone()
    criterion(*z)
    assert torch.equal(criterion.memory_bank.bank, before)
    criterion(z[0].requires_grad_(), z[1])
    assert not torch.equal(criterion.memory_bank.bank, before)


@pytest.mark.parametrize("bank", [0, (30, 6)])
def test_statistics_are_the_cores(bank: object):
    criterion, seen = WEINCELoss(0.2, bank), []
    criterion.inner.register_forward_hook(lambda module, arguments, output: seen.append(output))
    z = clusters(13, 6, dtype=torch.float32)
    rows = criterion.memory_bank.bank.clone()
    criterion(*z)
    contest = two_views(*z) if bank == 0 else queued(*z, rows)
    expected: LossOutput = whole_of(contest, 0.2)
    torch.testing.assert_close(seen[0].weight, expected.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen[0].loss, expected.loss, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("temperature", [0.1, 1, 10])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 16), (2, 2), (4, 1), (4, 64)])
def test_any_batch_that_lightly_takes(n: int, d: int, temperature: float, gather: bool):
    """A batch of one ends an epoch: its loss is 0, in both."""
    z = views(n, d, dtype=torch.float32)
    options = {"gather_distributed": gather}
    found = gradients(WEINCELoss(temperature, gate=INFONCE, **options), z)
    for ours, theirs in zip(found, gradients(NTXentLoss(temperature, **options), z), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    if n == 1:
        assert found[0].item() == 0


@pytest.mark.parametrize("n", [1, 2, 8, 16])
@pytest.mark.parametrize("rows", [1, 2, 8, 15, 17])
def test_a_memory_bank_of_any_size_and_any_batch(n: int, rows: int):
    ours, theirs = WEINCELoss(0.3, (rows, 5), gate=INFONCE), NTXentLoss(0.3, (rows, 5))
    ours.memory_bank.bank = theirs.memory_bank.bank.clone()
    for seed in range(rows // n + 2):
        z = views(n, 5, seed=seed, dtype=torch.float32)
        for found, expected in zip(gradients(ours, z), gradients(theirs, z), strict=True):
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-6)


def test_gathering_without_torch_distributed_is_refused_at_construction(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"torch\.distributed"):
        NTXentLoss(gather_distributed=True)
    for make in (WEINCELoss, core.WEINCELoss):
        with pytest.raises(ValueError, match=r"^Parameter `gather_distributed` should be False.*torch\.distributed"):
            make(gather_distributed=True)


def test_a_negative_temperature_is_refused_where_lightly_takes_it():
    NTXentLoss(-1.0)(*clusters(4, 3, dtype=torch.float32))
    with pytest.raises(ValueError, match=r"^Parameter `temperature` should be finite and > 0"):
        WEINCELoss(-1.0)


def test_what_every_loss_takes():
    a, b = clusters(13, 6, dtype=torch.float32)
    weight, ids = torch.rand(13), torch.arange(13) // 2
    options = {"sample_weight": weight, "ids": ids}
    expected = core.WEINCELoss(0.2, label_smoothing=0.1)(a, b, **options)
    torch.testing.assert_close(WEINCELoss(0.2, label_smoothing=0.1)(a, b, **options), expected)
    temperature = LearnableTemperature(0.2)
    WEINCELoss(temperature)(a, b).backward()
    assert temperature.logit_scale.grad.item() != 0
    ignored = torch.zeros(13, 30, dtype=torch.bool)
    ignored[:, 3] = True
    criterion = WEINCELoss(0.2, (30, 6))
    rows = (
        criterion.memory_bank.bank.T.clone() if criterion.memory_bank.bank.shape[0] == 6 else criterion.memory_bank.bank
    )
    expected = whole_of(queued(a, b, rows, ignored=ignored, sample_weight=weight), 0.2).loss
    torch.testing.assert_close(criterion(a, b, ignored=ignored, sample_weight=weight), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"^Parameter `ids` should be None with a memory bank"):
        criterion(a, b, ids=ids)
