"""lightly: `from weince.adapters.lightly import WEINCELoss` in place of `from lightly.loss import NTXentLoss`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from weince.adapters import needs
from weince.candidates import unit_rows
from weince.gate import Gate
from weince.loss import ContestLoss
from weince.settings import queued, two_views

with needs("lightly", tested="1.6"):
    from lightly.models.modules.memory_bank import MemoryBankModule

__all__ = ["WEINCELoss"]


class WEINCELoss(nn.Module):
    """WEINCE with the signature of lightly's `NTXentLoss`.

    Without a memory bank the two views of a batch (SimCLR); with one, the own key against the bank (MoCo). The bank is
    lightly's, and grows only where `out0` requires gradient, as there.

    Args:
        temperature: tau, > 0.
        memory_bank_size: (rows, D), or 0 for none.
        gather_distributed: whether candidates (the bank's keys, where there is one) and statistics are those of all
            processes. The value is then that of the whole batch; lightly's is of the own anchors. Gradients agree.
        gate: how weight and slope are measured; `weince.INFONCE` is lightly's own loss.

    Examples:
        >>> import torch
        >>> WEINCELoss(memory_bank_size=(64, 8))(torch.randn(4, 8), torch.randn(4, 8)).ndim
        0
    """

    def __init__(
        self,
        temperature: float = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        gate: Gate = Gate(),
    ) -> None:
        super().__init__()
        self.memory_bank = MemoryBankModule(size=memory_bank_size, gather_distributed=gather_distributed)
        self.inner = ContestLoss(temperature, gate, gather_distributed=gather_distributed)

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Loss of two views, (N, D) each, any scale."""
        if self.memory_bank.size[0] == 0:
            return self.inner(two_views(out0, out1)).loss
        # The rows as they were before this batch's keys.
        keys, bank = self.memory_bank(unit_rows(out1), update=out0.requires_grad)
        return self.inner(queued(out0, keys, bank.T.to(out0.device))).loss
