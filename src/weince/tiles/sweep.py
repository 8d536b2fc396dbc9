"""The sweep: the loss of `formula.py` and its gradient, row tile by row tile, never more than a few tiles at once.

A tile is some anchors against all candidates. `passes` measure its tails and turn its similarities into the gradient in
them at once, so that backward is a scaling. All similarities are formed once and kept where they are few; otherwise a
tile is formed, used and forgotten. What a weight takes of the whole batch is measured in a sweep of its own then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from weince.contest import Contest
from weince.formula import shortfall
from weince.gate import Gate, Mixture, mix, nearness_reference
from weince.output import LossOutput, mean_of
from weince.precision import full_products
from weince.tail import NOWHERE_NEAR, TailFit
from weince.tiles import passes
from weince.tiles import rows as row_kernels
from weince.tiles.passes import Concluded, Terms
from weince.tiles.room import room

__all__ = ["Gradient", "keeps", "measure_all", "sweep", "tile_rows"]

TILE_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}
"""Of one tile, by kind of device: on a CPU 8 MiB in float32, so that a dozen passes stay in the last cache; on a GPU
enough to fill it."""
KEPT_ELEMENTS = {"cpu": 2**24, "cuda": 2**28}
"""Of all similarities, where they are kept to be gone through twice: on a CPU 64 MiB, 4,096 anchors by as many."""
TILE_ROWS = 64
"""At least so many anchors a tile: products of fewer rows are slow, and a tile of 64 takes no more memory than the
embeddings do."""
ALL = slice(None)


class Gradient(NamedTuple):
    """Of sum_i factor_i loss_i; None where it is not wanted. Anchors that are the candidates have one, the first."""

    anchors: Tensor | None
    candidates: Tensor | None
    own: Tensor | None
    scale: Tensor | None

    @classmethod
    def zeros(cls, contest: Contest, scale: Tensor, wanted: Sequence[bool]) -> Gradient:
        """Where those that are wanted, of (anchors, candidates, own, scale), are gathered."""
        anchors, candidates, own, of_scale = wanted
        leaves = (contest.anchors, contest.candidates, contest.own, scale)
        needed = (anchors or (contest.shared and candidates), candidates and not contest.shared, own, of_scale)
        return cls(
            *(torch.zeros_like(z) if z is not None and need else None for z, need in zip(leaves, needed, strict=True))
        )

    def add_(self, of_similarity: Tensor, contest: Contest, rows: slice = ALL, scratch: Tensor | None = None) -> None:
        """From the similarities of some anchors, or of all, to embeddings.

        Args:
            of_similarity: (t, M); overwritten where a contest goes both ways.
            contest: who competes.
            rows: of the anchors.
            scratch: (n, t, M), room.
        """
        if contest.both_ways:
            there, back = of_similarity.chunk(2)
            of_similarity = there.add_(back.T)
            contest = contest.directions()[0]
        elif contest.shared and scratch is not None and len(scratch) and scratch.shape[1:] == of_similarity.shape:
            assert self.anchors is not None
            # One product in the place of two.
            self.anchors.addmm_(torch.add(of_similarity, of_similarity.T, out=scratch[0]), contest.candidates)
            return
        here = contest.of(rows)
        split = contest.columns - len(contest.candidates)
        of_own, of_shared = of_similarity[:, :split], of_similarity[:, split:]
        if self.anchors is not None:
            self.anchors[rows].addmm_(of_shared, contest.candidates)
            if here.own is not None:
                self.anchors[rows] += torch.einsum("ap,apd->ad", of_own, here.own)
        if self.own is not None:
            self.own[rows] = of_own.unsqueeze(2) * here.anchors.unsqueeze(1)
        of_candidates = self.anchors if contest.shared else self.candidates
        if of_candidates is not None:
            of_candidates.addmm_(of_shared.T, here.anchors)


def tile_rows(columns: int, device: str, scratch: int = passes.SCRATCH) -> int:
    """Anchors a tile, for so many candidates; passes that take no tiles beside it have one twice as large."""
    elements = TILE_ELEMENTS.get(device, TILE_ELEMENTS["cpu"]) * (1 if scratch else 2)
    return max(TILE_ROWS, elements // max(1, columns))


def keeps(contest: Contest) -> bool:
    """Whether all similarities may be kept."""
    kept = KEPT_ELEMENTS.get(contest.anchors.device.type, KEPT_ELEMENTS["cpu"])
    return contest.choices * contest.columns <= kept


class _Tiles:
    """The tiles of a contest, and room for their similarities and for what the passes take beside them.

    Args:
        contest: who competes.
        twice: whether they are gone through twice, so that similarities are worth keeping.
    """

    def __init__(self, contest: Contest, twice: bool) -> None:
        self.contest = contest
        count, columns, like = contest.choices, contest.columns, contest.anchors
        self.passes: Any = row_kernels if row_kernels.usable(like) else passes
        scratch = self.passes.SCRATCH
        self.step = min(count, tile_rows(columns, like.device.type, scratch))
        # Otherwise products are of a tile, kept or not, so that weight 0 is InfoNCE bit for bit.
        self.whole = contest.both_ways or self.step == count
        self.kept = self.formed = self.whole
        if twice and not self.whole:
            self.kept = keeps(contest)
        formed, tile = (count if self.kept else self.step) * columns, scratch * self.step * columns
        taken = room(like, formed, tile)
        self.room, self.scratch = taken[0].view(-1, columns), taken[1].view(scratch, self.step, columns)
        if self.whole:
            contest.similarity_(self.room)

    def __len__(self) -> int:
        return -(-self.contest.choices // max(1, self.step))

    def __iter__(self) -> Iterator[tuple[slice, Contest, Tensor, Tensor]]:
        """Of every tile its rows, its contest, similarities and scratch."""
        for start in range(0, self.contest.choices, max(1, self.step)):
            rows = slice(start, min(start + self.step, self.contest.choices))
            here = self.contest.of(rows)
            size = rows.stop - start
            similarity = self.room[rows] if self.kept else self.room[:size]
            if not self.formed:
                here.similarity_(similarity)
            yield rows, here, similarity, self.scratch[:, :size]
        self.formed = self.kept

    def measures_first(self, gate: Gate) -> bool:
        """Whether what a weight takes of all is measured with the tails: kernels have no maxima of their own."""
        return gate.needs_reference and self.passes is row_kernels

    def measure(self, gate: Gate, eps: float) -> TailFit:
        """Tails of all anchors."""
        if len(self) == 1:
            ((_, here, similarity, scratch),) = self
            return self.passes.measure(here, similarity, scratch, gate, eps)
        tail = _empty_tail(self.contest)
        for rows, here, similarity, scratch in self:
            _put(tail, rows, self.passes.measure(here, similarity, scratch, gate, eps))
        return tail


class _Seen(NamedTuple):
    """What is known of all anchors: their losses, whether they count, and their weights and slopes."""

    losses: Tensor
    counted: Tensor
    weight: Tensor
    slope: Tensor

    @classmethod
    def of(cls, tiles: _Tiles, factor: Tensor, mixture: Mixture | None) -> _Seen:
        """Room for them, where there are several tiles or nothing is known."""
        if mixture is None:
            mixture = Mixture(*factor.new_empty(2, len(factor)))
        each = [value if isinstance(value, Tensor) else torch.full_like(factor, value) for value in mixture]
        if len(tiles) == 1:
            return cls(factor, factor, *each)
        return cls(factor.new_empty(len(factor)), factor.new_empty(len(factor), dtype=torch.bool), *each)

    def put(self, rows: slice, found: Concluded, own: Mixture, alone: bool) -> _Seen:
        """With what was found of a tile."""
        if alone:
            return self._replace(losses=found.loss, counted=found.counted)
        # Written in place: small results kept of every tile would lie between freed ones and hold on to their memory.
        for whole, part in zip(self, (found.loss, found.counted, *own), strict=True):
            whole[rows] = part
        return self


@torch.no_grad()
def sweep(
    contest: Contest,
    gate: Gate,
    mixture: Mixture | None,
    terms: Terms,
    factor: Tensor,
    wanted: Sequence[bool],
) -> tuple[LossOutput, Gradient]:
    """Losses, statistics and gradient of all anchors.

    Args:
        contest: who competes.
        gate: how weight and slope are measured.
        mixture: both, where they are known; no tail is measured then.
        terms: what else the loss takes.
        factor: (A,), of the losses in the sum whose gradient is wanted.
        wanted: which gradients are: of anchors, candidates, own candidates, scale.
    """
    if contest.both_ways and not keeps(contest):
        return _one_by_one(contest, gate, mixture, terms, factor, wanted)
    tiles, eps = _Tiles(contest, twice=mixture is None and gate.needs_fit), terms.eps
    tail = reference = None
    if mixture is None and not gate.needs_fit:
        mixture = mix(None, gate)
    elif mixture is None and (tiles.kept or len(tiles) == 1 or gate.needs_pool or tiles.measures_first(gate)):
        tail = tiles.measure(gate, eps)
        mixture = tiles.passes.mix(tail, gate, ways=2 if contest.both_ways else 1)
    elif mixture is None:
        tail = _empty_tail(contest)
        reference = _reference(contest, gate, tiles, eps)
    gradient = Gradient.zeros(contest, terms.scale, wanted)
    seen = _Seen.of(tiles, factor, mixture)

    for rows, here, similarity, scratch in tiles:
        if mixture is None:
            assert tail is not None
            fit = tiles.passes.measure(here, similarity, scratch, gate, eps)
            _put(tail, rows, fit)
            own = mix(fit, gate, reference) if gate.needs_reference else tiles.passes.mix(fit, gate)
        else:
            own = Mixture(*(value[rows] if isinstance(value, Tensor) else value for value in mixture))
        of_sum = factor[rows] if any(wanted) else None
        found = tiles.passes.conclude(here, similarity, scratch, own, terms, of_sum, gradient.scale is not None)
        seen = seen.put(rows, found, own, len(tiles) == 1)
        if gradient.scale is not None and found.of_scale is not None:
            gradient.scale.add_(found.of_scale.sum())
        if any(wanted[:3]) and not tiles.whole:
            gradient.add_(similarity, contest, rows)
    if any(wanted[:3]) and tiles.whole:
        gradient.add_(tiles.room, contest, ALL, tiles.scratch)
    # Not a dot product, which PyTorch's matmul setting rounds.
    total = (seen.losses * factor).sum()
    return LossOutput(total, seen.losses, seen.weight, seen.slope, tail, seen.counted), gradient


def _one_by_one(
    contest: Contest, gate: Gate, mixture: Mixture | None, terms: Terms, factor: Tensor, wanted: Sequence[bool]
) -> tuple[LossOutput, Gradient]:
    """`sweep` of both directions in turn, where their similarities are too many to keep."""
    there, back = contest.directions()
    of_anchors, of_candidates, *rest = wanted
    halves = [(part, part) if not isinstance(part, Tensor) else part.chunk(2) for part in mixture or ()]
    known = [Mixture(*half) for half in zip(*halves, strict=True)] or [None, None]
    factors = factor.chunk(2)
    first, one = sweep(there, gate, known[0], terms, factors[0], (of_anchors, of_candidates, *rest))
    second, other = sweep(back, gate, known[1], terms, factors[1], (of_candidates, of_anchors, *rest))
    pairs = zip(one, (other.candidates, other.anchors, other.own, other.scale), strict=True)
    gradient = Gradient(*(a + b if a is not None and b is not None else None for a, b in pairs))
    return mean_of([first, second])._replace(loss=first.loss + second.loss), gradient


@torch.no_grad()
def measure_all(contest: Contest, gate: Gate, eps: float) -> TailFit:
    """Tails of all anchors: where the weight of one takes the tails of all.

    Args:
        contest: who competes.
        gate: what is measured.
        eps: floor of the shortfall.
    """
    return _Tiles(contest, twice=False).measure(gate, eps)


def _empty_tail(contest: Contest) -> TailFit:
    numbers = contest.anchors.new_empty(len(TailFit._fields) - 1, contest.choices)
    return TailFit(*numbers, valid=torch.empty_like(numbers[0], dtype=torch.bool))


def _put(tail: TailFit, rows: slice, fit: TailFit) -> None:
    for whole, part in zip(tail, fit, strict=True):
        whole[rows] = part


def _reference(contest: Contest, gate: Gate, tiles: _Tiles, eps: float) -> Tensor | None:
    """rho_0 of all anchors, from their hardest negatives, tile by tile; None where the gate does without.

    Where anchors are the candidates, s_ij serves i and j: a tile leaves out the columns before its own, and its
    columns' maxima count as well as its rows'.
    """
    if not gate.needs_reference:
        return None
    half = contest.shared and contest.by_column and contest.own is None
    nearest = contest.anchors.new_full((len(contest.anchors),), float("-inf"))
    # Fewer rows leave out more columns.
    step = min(tiles.step, 512) if half else tiles.step
    for start in range(0, len(nearest), step):
        rows = slice(start, start + step)
        here = contest.of(rows)
        if not half:
            similarity = here.similarity_(tiles.room[: len(here.anchors)])
            nearest[rows] = here.roles().only_negatives_(similarity, float("-inf")).amax(dim=1)
            continue
        width = len(nearest) - start
        values = tiles.room.flatten()[: len(here.anchors) * width].view(-1, width)
        with full_products(values.device.type, contest.full_products):
            torch.mm(here.anchors, contest.candidates[start:].T, out=values)
        for column in (here.positive, here.itself):
            if column is not None:
                index = (column - start).unsqueeze(1)
                kept = values.gather(1, index.clamp_min(0))
                values.scatter_(1, index.clamp_min(0), torch.where(index < 0, kept, float("-inf")))
        torch.maximum(nearest[rows], values.amax(dim=1), out=nearest[rows])
        torch.maximum(nearest[start:], values.amax(dim=0), out=nearest[start:])
    return nearness_reference(shortfall(nearest, eps).clamp_max(NOWHERE_NEAR), gate.quantile)
