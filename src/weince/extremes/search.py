"""The search: the largest similarities of some anchors among all rows, exactly, without ever holding all of them.

Rows come in chunks and are forgotten. A similarity survives a chunk only if it may still be among an anchor's `each`
largest or among the `pooled` largest of all pairs; both bounds rise as rows go by, so that soon almost nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Excluded", "Found", "Pairs", "search"]

COLUMNS = 512
"""Candidates at a time: with 2,000 anchors a tile of 4 MiB."""
WAITING = 400_000
"""Survivors that may wait to be sorted in, beyond those that are kept."""


class Pairs(NamedTuple):
    """Some pairs: similarity float32, place of the anchor and row of the candidate, all (n,)."""

    similarity: NDArray[np.float32]
    anchor: NDArray[np.int32]
    candidate: NDArray[np.int64]

    def at(self, which: NDArray[Any]) -> Pairs:
        """Those at some places, or where a mask is true."""
        return Pairs(self.similarity[which], self.anchor[which], self.candidate[which])


class Found(NamedTuple):
    """What the search leaves.

    Attributes:
        pool: the largest similarities of all pairs, descending; one more than asked for, where there are so many.
        similarity: (A, K), each anchor's largest, descending; -inf where it has fewer negatives.
        candidate: (A, K), their rows; -1 where there are fewer.
        negatives: (A,), how many negatives each anchor has.
        duplicates: pairs left out because nothing is between them, as many as asked for at most, and in all.
        duplicates_in_all: how many there are.
    """

    pool: Pairs
    similarity: NDArray[np.float32]
    candidate: NDArray[np.int64]
    negatives: NDArray[np.int64]
    duplicates: Pairs
    duplicates_in_all: int


class Excluded(NamedTuple):
    """Pairs that are no negatives.

    Attributes:
        itself: (A,), the row that is the anchor, or None where anchors and candidates are different things.
        codes: pairs of integer arrays, of the anchors (A,) and of all candidates (M,): equal codes are no negatives.
        nearer_than: pairs with 1 - s below it are duplicates, and are counted.
    """

    itself: NDArray[np.int64] | None = None
    codes: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...] = ()
    nearer_than: float = 0.0


def search(
    anchors: NDArray[np.float32],
    chunks: Iterable[tuple[int, NDArray[np.float32]]],
    each: int,
    pooled: int,
    excluded: Excluded = Excluded(),
    progress: Callable[[int], None] = lambda rows: None,
) -> Found:
    """The hardest negatives of every anchor, and of all of them together.

    Args:
        anchors: (A, D), unit rows.
        chunks: (first row, unit rows (C, D)), of all candidates.
        each: K, for every anchor.
        pooled: of all pairs.
        excluded: what is no negative.
        progress: told how many rows have gone by.
    """
    kept, pool, same = _Kept(len(anchors), each), _Pool(pooled + 1), _Pool(1000)
    negatives = np.zeros(len(anchors), dtype=np.int64)
    transposed = np.ascontiguousarray(anchors.T)
    duplicates = 0
    for first, rows in chunks:
        for start in range(0, len(rows), COLUMNS):
            part = rows[start : start + COLUMNS]
            tile = part @ transposed  # (C, A): an anchor's row is looked up by the bound below, not walked through
            negatives += len(part) - _leave_out(tile, first + start, excluded)
            bound = np.minimum(kept.bound, pool.bound)
            flat = np.flatnonzero(tile > bound)
            if not len(flat):
                continue
            row, anchor = np.divmod(flat, len(anchors))
            found = Pairs(tile.ravel()[flat], anchor.astype(np.int32), row + (first + start))
            twice = found.similarity > 1 - excluded.nearer_than
            if excluded.nearer_than and twice.any():
                duplicates += int(twice.sum())
                negatives -= np.bincount(found.anchor[twice], minlength=len(anchors))
                same.add(found.at(twice))
                found = found.at(~twice)
            pool.add(found.at(found.similarity > pool.bound))
            kept.add(found.at(found.similarity > kept.bound[found.anchor]))
        progress(first + len(rows))
    return Found(pool.finished(), *kept.finished(), negatives, same.finished(), duplicates)


def _leave_out(tile: NDArray[np.float32], first: int, excluded: Excluded) -> NDArray[np.int64] | int:
    """-inf where a candidate is no negative; how many an anchor lost."""
    rows, count = tile.shape
    lost: NDArray[np.int64] | int = 0
    mask = None
    for of_anchors, of_candidates in excluded.codes:
        same = of_candidates[first : first + rows, None] == of_anchors[None]
        mask = same if mask is None else mask | same
    if excluded.itself is not None:
        here = np.flatnonzero((excluded.itself >= first) & (excluded.itself < first + rows))
        if mask is None:
            tile[excluded.itself[here] - first, here] = -np.inf
            lost = np.bincount(here, minlength=count)
        else:
            mask[excluded.itself[here] - first, here] = True
    if mask is not None:
        np.copyto(tile, -np.inf, where=mask)
        lost = mask.sum(axis=0)
    return lost


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _nothing() -> Pairs:
    return Pairs(np.empty(0, np.float32), np.empty(0, np.int32), np.empty(0, np.int64))


def _order(pairs: Pairs) -> NDArray[np.uint64]:
    """One integer that sorts by anchor, then from the largest similarity down: several times as fast as two keys."""
    bits = pairs.similarity.view(np.uint32)
    descending = np.where(bits >> 31, bits, ~bits & 0x7FFFFFFF)
    return (pairs.anchor.astype(np.uint64) << np.uint64(32)) | descending


class _Pool:
    """The `size` largest of all pairs seen."""

    def __init__(self, size: int) -> None:
        self.size, self.bound = size, np.float32(-np.inf)
        self.parts, self.waiting = [_nothing()], 0

    def add(self, pairs: Pairs) -> None:
        self.parts.append(pairs)
        self.waiting += len(pairs.similarity)
        if self.waiting > max(self.size, 100_000):
            self._shrink()

    def _shrink(self) -> None:
        pairs = _joined(self.parts)
        if len(pairs.similarity) > self.size:
            pairs = pairs.at(np.argpartition(-pairs.similarity, self.size - 1)[: self.size])
            self.bound = pairs.similarity.min()
        self.parts, self.waiting = [pairs], 0

    def finished(self) -> Pairs:
        self._shrink()
        return self.parts[0].at(np.lexsort((self.parts[0].candidate, self.parts[0].anchor, -self.parts[0].similarity)))


class _Kept:
    """The `size` largest of every anchor."""

    def __init__(self, anchors: int, size: int) -> None:
        self.size = size
        self.similarity = np.full((anchors, size), -np.inf, dtype=np.float32)
        self.candidate = np.full((anchors, size), -1, dtype=np.int64)
        self.bound = np.full(anchors, -np.inf, dtype=np.float32)
        self.parts, self.waiting = [], 0

    def add(self, pairs: Pairs) -> None:
        self.parts.append(pairs)
        self.waiting += len(pairs.similarity)
        if self.waiting > WAITING:
            self._shrink()

    def _shrink(self) -> None:
        if not self.waiting:
            return
        old = self.candidate >= 0
        before = Pairs(self.similarity[old], np.nonzero(old)[0].astype(np.int32), self.candidate[old])
        pairs = _joined([before, *self.parts])
        pairs = pairs.at(np.argsort(_order(pairs)))
        first = np.searchsorted(pairs.anchor, np.arange(len(self.bound)))
        rank = np.arange(len(pairs.anchor)) - first[pairs.anchor]
        inside = rank < self.size
        pairs, rank = pairs.at(inside), rank[inside]
        self.similarity[pairs.anchor, rank] = pairs.similarity
        self.candidate[pairs.anchor, rank] = pairs.candidate
        self.bound = self.similarity[:, -1].copy()
        self.parts, self.waiting = [], 0

    def finished(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        self._shrink()
        return self.similarity, self.candidate
