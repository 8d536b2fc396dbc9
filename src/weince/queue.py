"""The queue: keys of earlier batches, first in, first out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weince.candidates import unit_rows
from weince.checks import check_number, check_rows

__all__ = ["EmbeddingQueue"]


class EmbeddingQueue(nn.Module):
    """Q unit rows, of which each batch replaces the oldest, wrapping round at the end.

    Both buffers are saved with the model, so a resumed run goes on with the same negatives. Starts with random unit
    rows, as MoCo's does; after Q keys none is left.

    Args:
        size: Q, >= 1.
        width: D, >= 1.

    Attributes:
        rows: (Q, D).
        seen: how many keys came in all, scalar; the next takes row `seen % Q`.

    Source: arXiv:1911.05722 (MoCo), algorithm 1.

    Examples:
        >>> queue = EmbeddingQueue(size=3, width=2)
        >>> for _ in range(2):
        ...     queue.append(torch.eye(2))
        >>> queue.rows
        tensor([[0., 1.],
                [0., 1.],
                [1., 0.]])
    """

    rows: Tensor
    seen: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        check_number("size", size, "an integer >= 1", lambda v: v >= 1 and v == int(v))
        check_number("width", width, "an integer >= 1", lambda v: v >= 1 and v == int(v))
        self.register_buffer("rows", unit_rows(torch.randn(int(size), int(width))))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def append(self, keys: Tensor) -> None:
        """Puts unit rows of `keys`, (N, D), in place of the oldest. Of more than Q the last Q stay."""
        check_rows("keys", keys, self.rows)
        size = len(self.rows)
        kept = unit_rows(keys[-size:]).to(self.rows.dtype)
        first = self.seen + (len(keys) - len(kept))
        self.rows.index_copy_(0, (first + torch.arange(len(kept), device=keys.device)) % size, kept)
        self.seen += len(keys)

    def extra_repr(self) -> str:
        return f"size={len(self.rows)}, width={self.rows.shape[1]}"
