"""The adapter against lightly itself."""

from __future__ import annotations

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from batches import clusters, whole_of
from weince import INFONCE, LossOutput
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
