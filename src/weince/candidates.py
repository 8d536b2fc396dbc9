"""Who competes: the anchors, their candidates, and which candidate is a positive or a negative of which anchor.

Every setting of `settings.py` is one function that returns `Candidates`; the tail, the gate and the formula never ask
which setting it was.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Candidates", "Roles", "Tile", "unit_rows"]


class Roles(NamedTuple):
    """Bool masks (A, M). A column in neither (the anchor itself, say) takes no part."""

    positive: Tensor
    negative: Tensor


class Candidates(NamedTuple):
    """One contest per anchor. Its M columns are the P candidates of the anchor's own, then those that all share.

    Attributes:
        anchors: (A, D), unit rows (or zero rows); carries gradient.
        candidates: (M - P, D), shared by all anchors, likewise.
        negatives: K, how many negatives an anchor has at most.
        own: (A, P, D), candidates of one anchor alone, likewise; or None.
        positive: int64 (A,), the column of each anchor's only positive; or bool (A, M), its positives; or None where
            labels tell.
        itself: int64 (A,), the column that is the anchor, never a candidate; or None where no column is.
        anchor_labels: int64 (A,), with `candidate_labels`: candidates of the anchor's label are its positives.
        candidate_labels: int64 (M,).
        ignored: bool (A, M), pairs that take no part. An only positive stays one.
        from_batch: whether the shared candidates are of this batch, so that other processes have others.
    """

    anchors: Tensor
    candidates: Tensor
    negatives: int
    own: Tensor | None = None
    positive: Tensor | None = None
    itself: Tensor | None = None
    anchor_labels: Tensor | None = None
    candidate_labels: Tensor | None = None
    ignored: Tensor | None = None
    from_batch: bool = True

    def of(self, rows: slice) -> Candidates:
        """The contest of some of the anchors, against all candidates."""
        of_anchors = ("anchors", "own", "positive", "itself", "anchor_labels", "ignored")
        parts = {name: value[rows] for name in of_anchors if (value := getattr(self, name)) is not None}
        return self._replace(**parts)

    def similarity(self) -> Tensor:
        """Cosine similarities s, (A, M), with gradient."""
        shared = self.anchors @ self.candidates.T
        if self.own is None:
            return shared
        return torch.cat([torch.einsum("ad,apd->ap", self.anchors, self.own), shared], dim=1)

    @property
    def columns(self) -> int:
        """M."""
        return len(self.candidates) + (0 if self.own is None else self.own.shape[1])

    @property
    def shared(self) -> bool:
        """Whether the anchors are the candidates, so that both have one gradient."""
        return self.candidates is self.anchors

    @property
    def by_column(self) -> bool:
        """Whether all candidates are negatives but for two known columns: no masks are needed."""
        return self.has_one_positive and self.ignored is None

    @property
    def has_one_positive(self) -> bool:
        """Whether every anchor has exactly one positive, in a known column."""
        return self.positive is not None and self.positive.ndim == 1

    def roles(self) -> Roles:
        """Which column is what to which anchor, as masks (A, M)."""
        column = torch.arange(self.columns, device=self.anchors.device)
        if self.positive is None:
            assert self.anchor_labels is not None
            positive = self.anchor_labels.unsqueeze(1) == self.candidate_labels
        elif self.positive.ndim == 2:
            positive = self.positive
        else:
            positive = column == self.positive.unsqueeze(1)
        excluded = self.ignored
        if self.itself is not None:
            itself = column == self.itself.unsqueeze(1)
            excluded = itself if excluded is None else excluded | itself
        if excluded is None:
            return Roles(positive, ~positive)
        kept = positive if self.has_one_positive else positive & ~excluded
        return Roles(kept, ~positive & ~excluded)


class Tile(NamedTuple):
    """A contest of some anchors, with its masks, which are made only where columns do not tell."""

    contest: Candidates
    roles: Roles | None

    @classmethod
    def of(cls, contest: Candidates) -> Tile:
        """With masks where they are needed."""
        return cls(contest, None if contest.by_column else contest.roles())

    def similarity_(self, out: Tensor) -> None:
        """`Candidates.similarity` into (t, M)."""
        anchors, own = self.contest.anchors, self.contest.own
        if own is not None:
            out[:, : own.shape[1]] = torch.einsum("ad,apd->ap", anchors, own)
        torch.mm(anchors, self.contest.candidates.T, out=out[:, out.shape[1] - len(self.contest.candidates) :])

    def negative_count(self) -> Tensor:
        """(t, 1)."""
        contest = self.contest
        if self.roles is not None:
            return self.roles.negative.sum(dim=1, keepdim=True)
        count = contest.columns - 1 - (contest.itself is not None)
        return torch.full((len(contest.anchors), 1), count, device=contest.anchors.device)

    def counts(self) -> Tensor | None:
        """How many negatives each anchor has, (t,), where anchors differ."""
        return None if self.roles is None else self.negative_count().squeeze(1)

    def only_negatives_(self, values: Tensor, fill: float = float("-inf")) -> Tensor:
        """Fills all but the negatives."""
        if self.roles is not None:
            return values.masked_fill_(~self.roles.negative, fill)
        for column in (self.contest.positive, self.contest.itself):
            if column is not None:
                values.scatter_(1, column.unsqueeze(1), fill)
        return values

    def positive_count(self) -> Tensor:
        """(t, 1)."""
        contest = self.contest
        if self.roles is not None and not contest.has_one_positive:
            return self.roles.positive.sum(dim=1, keepdim=True)
        return torch.ones(len(contest.anchors), 1, dtype=torch.long, device=contest.anchors.device)

    def positives(self, values: Tensor, fill: float) -> Tensor:
        """Values of the positives, (t, 1), or (t, M) with `fill` elsewhere."""
        if self.roles is not None and not self.contest.has_one_positive:
            return values.masked_fill(~self.roles.positive, fill)
        assert self.contest.positive is not None
        return values.gather(1, self.contest.positive.unsqueeze(1))

    def place_positives_(self, values: Tensor, new: Tensor) -> Tensor:
        """Writes values of the positives, as `positives` returns them."""
        if self.roles is not None and not self.contest.has_one_positive:
            return torch.where(self.roles.positive, new, values, out=values)
        assert self.contest.positive is not None
        return values.scatter_(1, self.contest.positive.unsqueeze(1), new)


def unit_rows(z: Tensor) -> Tensor:
    """Rows scaled to length 1, in float32 or better, whatever their scale.

        u = z / |z|,      0 for a zero row, whose gradient is zero too

    The row is divided by its largest entry first, so the squares neither overflow nor underflow. A row whose largest
    entry is below tiny / eps of the dtype (1e-31 in float32) counts as zero: its gradient, 1 / |z|, would overflow.

    Args:
        z: (N, D), floating point. Half precision is raised to float32.

    Returns:
        (N, D), float32 or float64. NaN in a row with NaN or infinity.

    Examples:
        >>> unit_rows(torch.tensor([[3e30, 4e30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    limits = torch.finfo(z.dtype)
    largest = z.detach().abs().amax(dim=1, keepdim=True)
    zero = largest < limits.tiny / limits.eps
    one = torch.ones_like(largest)
    scaled = torch.where(zero, torch.zeros_like(z), z) / torch.where(zero, one, largest)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(zero, one, length)
