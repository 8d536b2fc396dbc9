"""The queue: keys of earlier batches, first in, first out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from weince.checks import check_integer, check_labels, check_rows, is_readable
from weince.contest import NO_ID
from weince.units import unit_rows

__all__ = ["EmbeddingQueue", "Filled"]


class Filled(NamedTuple):
    """What a queue holds.

    Attributes:
        rows: (Q, D), or (seen, D) where that could be read without waiting for a device.
        ids: int64 (Q,) or (seen,).
        empty: bool (Q,), rows that no key has filled yet; None where there is none.
    """

    rows: Tensor
    ids: Tensor
    empty: Tensor | None

    def masked(self, ignored: Tensor | None, query: Tensor) -> Tensor | None:
        """What is ignored, bool (N, Q), of the rows that are there, and rows that are empty."""
        if isinstance(ignored, Tensor) and ignored.ndim == 2:
            ignored = ignored[:, : len(self.rows)]
        if self.empty is None:
            return ignored
        return self.empty.expand(len(query), -1) if ignored is None else ignored | self.empty


class _Replaced(NamedTuple):
    """What the last keys took the place of."""

    keys: Tensor
    place: Tensor
    rows: Tensor
    ids: Tensor
    seen: Tensor


class EmbeddingQueue(nn.Module):
    """Q unit rows, of which each batch replaces the oldest, wrapping round at the end.

    It starts empty: a row that no key has filled is nobody's negative. A key with NaN or infinity is left out. The
    buffers are saved with the model, so a resumed run goes on with the same negatives.

    Args:
        size: Q, >= 1.
        width: D, >= 1.

    Attributes:
        rows: (Q, D).
        ids: int64 (Q,), of the keys that came with one, otherwise `NO_ID`.
        seen: how many keys came in all, scalar; the next takes row `seen % Q`.

    Source: arXiv:1911.05722 (MoCo), algorithm 1, which starts with random rows instead.

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
    ids: Tensor
    seen: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        size, width = check_integer("size", size, 1), check_integer("width", width, 1)
        self.register_buffer("rows", torch.zeros(size, width))
        self.register_buffer("ids", torch.full((size,), NO_ID))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self._replaced: _Replaced | None = None

    @property
    def is_full(self) -> Tensor:
        """Whether every row holds a key, scalar."""
        return self.seen >= len(self.rows)

    def filled(self, replaced_by: Tensor | None = None) -> Filled:
        """A copy of what is there, which later keys do not change.

        Args:
            replaced_by: keys that came last, for what was there before them.

        Raises:
            RuntimeError: other keys came last.
        """
        rows, ids, seen = self.rows, self.ids, self.seen
        if replaced_by is not None:
            last = self._replaced
            if last is None or not _same(last.keys, replaced_by):
                raise RuntimeError(
                    "The queue has gone on since these keys came, so the loss cannot be computed again as it was. "
                    "Leave it out of torch.utils.checkpoint, or call it once before each backward."
                )
            rows, ids = rows.index_copy(0, last.place, last.rows), ids.index_copy(0, last.place, last.ids)
            seen = last.seen
        if is_readable(seen):
            count = min(int(seen), rows.shape[0])
            return Filled(rows[:count].clone(), ids[:count].clone(), None)
        return Filled(rows.clone(), ids.clone(), torch.arange(rows.shape[0], device=rows.device) >= seen)

    @torch.no_grad()
    def append(self, keys: Tensor, ids: Tensor | None = None) -> None:
        """Puts unit rows of `keys`, (N, D), in place of the oldest. Of more than Q the last Q stay.

        Args:
            keys: embeddings.
            ids: integers (N,), what is never each other's negative.
        """
        check_rows("keys", keys, self.rows)
        if ids is not None:
            check_labels("ids", ids, keys)
        size = len(self.rows)
        units = unit_rows(keys[-size:]).to(self.rows.dtype)
        names = self.ids.new_full(units.shape[:1], NO_ID) if ids is None else ids[-size:].to(torch.int64)
        # Finite keys first, in their order, without asking the device how many there are.
        finite = units.isfinite().all(dim=1)
        order = torch.argsort(~finite, stable=True)
        units, names, finite = units[order], names[order], finite[order]
        skipped = len(keys) - len(units)
        place = (self.seen + skipped + torch.arange(len(units), device=keys.device)) % size
        rows, row_ids = self.rows[place], self.ids[place]
        self._replaced = _Replaced(keys.detach(), place, rows, row_ids, self.seen.clone())
        self.rows.index_copy_(0, place, torch.where(finite.unsqueeze(1), units, rows))
        self.ids.index_copy_(0, place, torch.where(finite, names, row_ids))
        self.seen += finite.sum() + skipped

    def fingerprint(self) -> str:
        """What tells two queues apart, in a few words. Waits for a device."""
        return f"a queue of {int(self.seen)} keys, sum {float(self.rows.sum(dtype=torch.float64)):.9g}"

    def extra_repr(self) -> str:
        return f"size={len(self.rows)}, width={self.rows.shape[1]}"


def _same(keys: Tensor, others: Tensor) -> bool:
    """Whether these are the same keys, those that are no numbers included."""
    return keys.shape == others.shape and bool(((keys == others) | (keys.isnan() & others.isnan())).all())
