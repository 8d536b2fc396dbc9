"""The contest: anchors, their candidates, and which candidate is a positive or a negative of which anchor.

Every function of `setups.py` returns a `Contest`; the tail, the gate and the formula never ask which setup it was.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weince.precision import full_products, product

__all__ = ["NO_ID", "Contest", "Roles"]

NO_ID = torch.iinfo(torch.int64).min
"""An id that equals none, not even itself."""


class Contest(NamedTuple):
    """One choice per anchor. Its M columns are the P candidates of the anchor's own, then those that all share.

    Attributes:
        anchors: (A, D), unit rows (or zero rows); carries gradient.
        candidates: (M - P, D), shared by all anchors, likewise.
        negatives: K, how many negatives an anchor has at most.
        own: (A, P, D), candidates of one anchor alone, likewise; or None.
        positive: int64 (A,), the column of each anchor's only positive; or bool (A, M), its positives; or None where
            labels tell.
        itself: int64 (A,), the column that is the anchor, never a candidate; or None where no column is.
        anchor_labels: int64 (A,), with `candidate_labels`: candidates of the anchor's label are its positives.
        candidate_labels: int64 (M - P,).
        anchor_ids: int64 (A, C), with `candidate_ids`: a shared candidate with the same id in any of the C columns is
            no negative of the anchor. `NO_ID` equals none.
        candidate_ids: int64 (M - P, C).
        ignored: bool (A, M), pairs that take no part. An only positive stays one.
        sample_weight: w, (A,), >= 0, without gradient; 1 for all where it is None.
        from_batch: whether the shared candidates are of this batch, so that other processes have others.
        both_ways: whether each candidate makes a choice among the anchors as well. There are A + M choices then, those
            of the anchors first, and what is said of anchors (positive, ignored, sample_weight) is of all of them.
            Without ids, labels and own candidates; as many anchors as candidates.
        full_products: whether similarities are products in full float32, whatever PyTorch's matmul setting.
    """

    anchors: Tensor
    candidates: Tensor
    negatives: int
    own: Tensor | None = None
    positive: Tensor | None = None
    itself: Tensor | None = None
    anchor_labels: Tensor | None = None
    candidate_labels: Tensor | None = None
    anchor_ids: Tensor | None = None
    candidate_ids: Tensor | None = None
    ignored: Tensor | None = None
    sample_weight: Tensor | None = None
    from_batch: bool = True
    both_ways: bool = False
    full_products: bool = True

    def of(self, rows: slice) -> Contest:
        """The contest of some anchors, against all candidates. Both ways: of some choices, with all embeddings."""
        of_anchors = ["own", "positive", "itself", "anchor_labels", "anchor_ids", "ignored", "sample_weight"]
        if not self.both_ways:
            of_anchors.append("anchors")
        parts = {name: value[rows] for name in of_anchors if (value := getattr(self, name)) is not None}
        return self._replace(**parts, both_ways=False)

    def directions(self) -> list[Contest]:
        """This one; or of one that goes both ways, the two."""
        if not self.both_ways:
            return [self]
        there, back = self.of(slice(len(self.anchors))), self.of(slice(len(self.anchors), None))
        return [there, back._replace(anchors=self.candidates, candidates=self.anchors)]

    def similarity(self) -> Tensor:
        """Cosine similarities s, (A, M), with gradient."""
        shared = product(self.anchors, self.candidates.T, self.full_products)
        if self.both_ways:
            return torch.cat([shared, shared.T])
        if self.own is None:
            return shared
        own = product(self.anchors.unsqueeze(1), self.own.mT, self.full_products).squeeze(1)
        return torch.cat([own, shared], dim=1)

    def similarity_(self, out: Tensor) -> Tensor:
        """`similarity` into (A, M), without gradient."""
        with full_products(out.device.type, self.full_products):
            if self.both_ways:
                there, back = out.chunk(2)
                torch.mm(self.anchors, self.candidates.T, out=there)
                back.copy_(there.T)
                return out
            if self.own is not None:
                out[:, : self.own.shape[1]] = torch.einsum("ad,apd->ap", self.anchors, self.own)
            torch.mm(self.anchors, self.candidates.T, out=out[:, out.shape[1] - self.candidates.shape[0] :])
        return out

    @property
    def choices(self) -> int:
        """A, or A + M both ways."""
        return self.anchors.shape[0] + (self.candidates.shape[0] if self.both_ways else 0)

    @property
    def columns(self) -> int:
        """M."""
        return self.candidates.shape[0] + (0 if self.own is None else self.own.shape[1])

    @property
    def shared(self) -> bool:
        """Whether the anchors are the candidates, so that both have one gradient."""
        return self.candidates is self.anchors

    @property
    def by_column(self) -> bool:
        """Whether all candidates are negatives but for known columns, so that no masks are needed."""
        one_positive = self.positive is not None and self.positive.ndim == 1
        return one_positive and self.ignored is None and self.anchor_ids is None

    def roles(self) -> Roles:
        """Which column is what to which anchor."""
        only = self.positive.unsqueeze(1) if self.positive is not None and self.positive.ndim == 1 else None
        itself = None if self.itself is None else self.itself.unsqueeze(1)
        if self.by_column:
            assert only is not None
            return Roles(self.columns, only, only if itself is None else torch.cat([only, itself], dim=1), None, None)
        column = torch.arange(self.columns, device=self.anchors.device)
        if only is not None:
            positive = column == only
        elif self.positive is not None:
            positive = self.positive
        else:
            assert self.anchor_labels is not None
            positive = self.anchor_labels.unsqueeze(1) == self.candidate_labels
        out = torch.zeros_like(positive) if self.ignored is None else self.ignored
        if itself is not None:
            out = out | (column == itself)
        positive = positive & ~out
        out = out | positive
        if self.anchor_ids is not None:
            out = self._same_ids(out)
        return Roles(self.columns, only, None, positive, out)

    def _same_ids(self, out: Tensor) -> Tensor:
        assert self.anchor_ids is not None
        assert self.candidate_ids is not None
        before = self.columns - self.candidates.shape[0]
        same = out[:, before:]
        for ours, theirs in zip(self.anchor_ids.unbind(1), self.candidate_ids.unbind(1), strict=True):
            same = same | ((ours.unsqueeze(1) == theirs) & (ours != NO_ID).unsqueeze(1))
        return torch.cat([out[:, :before], same], dim=1) if before else same


class Roles(NamedTuple):
    """What each column is to some anchors: by known columns where all others are negatives, by masks otherwise.

    Attributes:
        columns: M.
        only: int64 (t, 1), the column of the only positive, where each anchor has one.
        hidden: int64 (t, 1) or (t, 2), the columns that are no negatives; None with masks.
        positive: bool (t, M), or None without masks.
        out: bool (t, M), the columns that are no negatives; or None without masks.
    """

    columns: int
    only: Tensor | None
    hidden: Tensor | None
    positive: Tensor | None
    out: Tensor | None

    def only_negatives_(self, values: Tensor, fill: float) -> Tensor:
        """Fills all but the negatives of (t, M)."""
        if self.out is not None:
            return values.masked_fill_(self.out, fill)
        assert self.hidden is not None
        return values.scatter_(1, self.hidden, fill)

    def only_negatives(self, values: Tensor, fill: float) -> Tensor:
        """`only_negatives_` of a copy, with gradient."""
        if self.out is not None:
            return values.masked_fill(self.out, fill)
        assert self.hidden is not None
        return values.scatter(1, self.hidden, fill)

    def negative_count(self) -> Tensor:
        """(t, 1)."""
        if self.out is not None:
            return self.columns - self.out.sum(dim=1, keepdim=True)
        assert self.hidden is not None
        return torch.full_like(self.hidden[:, :1], self.columns - self.hidden.shape[1])

    def differing_counts(self) -> Tensor | None:
        """How many negatives each anchor has, (t,), where anchors may differ."""
        return None if self.out is None else self.negative_count().squeeze(1)

    def positives(self, values: Tensor, fill: float) -> Tensor:
        """Values of the positives, (t, 1), or (t, M) with `fill` elsewhere; with gradient."""
        if self.only is not None:
            return values.gather(1, self.only)
        assert self.positive is not None
        return values.masked_fill(~self.positive, fill)

    def best_positive(self, similarity: Tensor) -> Tensor:
        """The largest similarity of a positive, (t,); -inf without one."""
        return self.positives(similarity, float("-inf")).amax(dim=1)

    def positive_count(self) -> Tensor:
        """(t, 1)."""
        if self.only is not None:
            return torch.ones_like(self.only)
        assert self.positive is not None
        return self.positive.sum(dim=1, keepdim=True)

    def place_positives_(self, values: Tensor, new: Tensor) -> Tensor:
        """Writes values of the positives, as `positives` returns them."""
        if self.only is not None:
            return values.scatter_(1, self.only, new)
        assert self.positive is not None
        return torch.where(self.positive, new, values, out=values)
