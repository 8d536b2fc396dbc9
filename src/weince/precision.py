"""The precision that 1 - s needs: float32 or better, whatever autocast says."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["full_precision"]


def full_precision(device: str) -> AbstractContextManager[object]:
    """Autocast off on a kind of device, where there is one: 1 - s cancels in half precision."""
    if not torch.amp.is_autocast_available(device):  # of shapes alone, "meta"
        return nullcontext()
    return torch.autocast(device_type=device, enabled=False)
