"""Room for tiles, kept between steps on a CPU, where fresh memory costs as much as a pass over it."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

__all__ = ["room"]

KEPT_ELEMENTS = 2**24
"""At most so many stay with a thread, 64 MiB in float32; what is larger is given back."""
_kept = threading.local()


def room(like: Tensor, *sizes: int) -> list[Tensor]:
    """Flat tensors of these sizes, whatever is in them. On a CPU they are good until the thread's next call.

    Args:
        like: whose dtype and device they have.
        sizes: their numbers of elements.
    """
    total = sum(sizes)
    # GPUs keep their own; a tensor without values, as of a compiler, is not to be kept.
    if like.device.type != "cpu" or type(like) not in (Tensor, torch.nn.Parameter) or total > KEPT_ELEMENTS:
        return list(like.new_empty(total).split(sizes))
    held: Tensor | None = getattr(_kept, "room", None)
    if held is None or held.dtype != like.dtype or len(held) < total:
        with torch.inference_mode(mode=False):  # a tensor of inference could not be written to in training
            _kept.room = held = torch.empty(total, dtype=like.dtype)
    return list(held[:total].split(sizes))
