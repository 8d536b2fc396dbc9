"""lightly: `from weince.adapters.lightly import WEINCELoss` in place of `from lightly.loss import NTXentLoss`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from weince.adapters import needs
from weince.contest import Contest
from weince.gate import Gate
from weince.options import OwnKeywords
from weince.setups import ContestLoss, queued, two_views
from weince.temperature import Temperature
from weince.units import unit_rows

with needs("lightly", tested="1.6"):
    from lightly.models.modules.memory_bank import MemoryBankModule

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["WEINCELoss"]


class WEINCELoss(nn.Module):
    """WEINCE with the signature of lightly's `NTXentLoss`.

    Without a memory bank the two views of a batch (SimCLR); with one, the own key against the bank (MoCo). The bank is
    lightly's, random rows at first, and grows only where `out0` requires gradient, as there. Unlike lightly's, a
    temperature <= 0 is refused.

    Args:
        temperature: tau, > 0.
        memory_bank_size: (rows, D), or 0 for none.
        gather_distributed: whether candidates (the bank's keys, where there is one) and statistics are those of all
            processes. The value is then that of the whole batch; lightly's is of the own anchors. Gradients agree.
        gate: how weight and slope are measured; `weince.INFONCE` is lightly's own loss.
        **options: further ones of `weince.Options`, as `label_smoothing`.

    Examples:
        >>> import torch
        >>> WEINCELoss(memory_bank_size=(64, 8))(torch.randn(4, 8), torch.randn(4, 8)).ndim
        0
    """

    def __init__(
        self,
        temperature: Temperature = 0.5,
        memory_bank_size: int | Sequence[int] = 0,
        gather_distributed: bool = False,
        gate: Gate = Gate(),
        **options: Unpack[OwnKeywords],
    ) -> None:
        super().__init__()
        self.inner = ContestLoss(temperature, gate, gather_distributed=gather_distributed, **options)
        self.memory_bank = MemoryBankModule(size=memory_bank_size, gather_distributed=gather_distributed)

    def forward(
        self,
        out0: Tensor,
        out1: Tensor,
        *,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Loss of two views, (N, D) each, any scale.

        Args:
            out0: the first view.
            out1: the second view; row i of both is one example.
            sample_weight: of each example, (N,).
            ignored: bool (2N, 2N), or (N, rows of the bank): pairs that take no part.
            ids: integers (N,); equal ids are never each other's negatives. Not with a bank, which keeps none: there
                `weince.QueueLoss` does.
        """

        def make() -> list[Contest]:
            if self.memory_bank.size[0] == 0:
                return [two_views(out0, out1, sample_weight=sample_weight, ignored=ignored, ids=ids)]
            if ids is not None:
                raise ValueError("Parameter `ids` should be None with a memory bank, which keeps none. Found a tensor.")
            # The rows as they were before this batch's keys.
            keys, bank = self.memory_bank(unit_rows(out1), update=out0.requires_grad)
            rows = bank.T.to(out0.device)
            return [queued(out0, keys, rows, sample_weight=sample_weight, ignored=ignored)]

        return self.inner.of(make, out0=out0, out1=out1).loss
