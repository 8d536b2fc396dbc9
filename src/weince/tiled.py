"""The tiles: the loss of `formula.py` and its gradient, row tile by row tile, never an (A, M) tensor.

A tile is some anchors against all candidates. Its tail is fitted, weighed and forgotten in one go, and its losses and
gradient are formed at once, so that backward is a scaling. One number of the gate belongs to the whole batch, the
reference of nearness; where there are several tiles, a sweep over row maxima finds it first. The evidence of an
endpoint takes the tails of all, which are then measured in a sweep of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from weince.candidates import Candidates, Tile
from weince.formula import blended_logits_, logit_slope_, shortfall
from weince.gate import Gate, Mixture, mix, nearness_reference
from weince.tail import NOWHERE_NEAR, TailFit, measure_tail

__all__ = ["Gradient", "Swept", "Terms", "Wanted", "measure_all", "sweep", "tile_rows"]

TILE_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}
"""Of one tile, by kind of device: on a CPU 8 MiB in float32, so that a dozen passes stay in the last cache; on a GPU
enough to fill it."""
TILE_ROWS = 64
"""At least so many anchors a tile: products of fewer rows are slow, and a tile of 64 takes no more memory than the
embeddings do."""


class Terms(NamedTuple):
    """What the formula takes beside similarities, weights and slopes.

    Attributes:
        scale: 1 / tau, a scalar tensor.
        eps: floor of the shortfall.
        smoothing: of the labels.
    """

    scale: Tensor
    eps: float
    smoothing: float = 0.0


class Gradient(NamedTuple):
    """Of sum_i factor_i loss_i; None where it is not wanted. Anchors that are the candidates have one, the first."""

    anchors: Tensor | None = None
    candidates: Tensor | None = None
    own: Tensor | None = None
    scale: Tensor | None = None


class Wanted(NamedTuple):
    """Which gradients are."""

    anchors: bool
    candidates: bool
    own: bool
    scale: bool


class Swept(NamedTuple):
    """Losses (A,), the gradient, and what was measured on the way."""

    losses: Tensor
    counted: Tensor
    mixture: Mixture
    tail: TailFit | None
    gradient: Gradient


def tile_rows(columns: int, device: str) -> int:
    """Anchors a tile, for so many candidates."""
    return max(TILE_ROWS, TILE_ELEMENTS.get(device, TILE_ELEMENTS["cpu"]) // max(1, columns))


@torch.no_grad()
def sweep(contest: Candidates, gate: Gate | Mixture, terms: Terms, factor: Tensor, wanted: Wanted) -> Swept:
    """Losses, statistics and gradient of all anchors.

    Args:
        contest: who competes.
        gate: how weight and slope are measured, or both as they were.
        terms: of the formula.
        factor: (A,), of the losses in the sum whose gradient is wanted.
        wanted: which gradients are.
    """
    anchors, count = contest.anchors, len(contest.anchors)
    step = min(count, tile_rows(contest.columns, anchors.device.type))
    # Room for three tiles, taken once: memory that is given back and taken again costs as much as a pass over it.
    room = anchors.new_empty(3, step, contest.columns)
    # Written in place: small results kept of every tile would lie between freed ones and hold on to their memory.
    losses, counted = anchors.new_empty(count), anchors.new_empty(count, dtype=torch.bool)
    gradient = _zeros(contest, terms, wanted)
    tail, reference = None, None
    weights, slopes = gate if isinstance(gate, Mixture) else (anchors.new_empty(count), anchors.new_empty(count))
    if isinstance(gate, Gate) and not gate.needs_fit:
        weights, slopes = gate = mix(None, gate)
    elif isinstance(gate, Gate) and gate.needs_pool and step < count:
        tail = measure_all(contest, gate, terms.eps, room[0])
        for whole, part in zip((weights, slopes), mix(tail, gate), strict=True):
            assert isinstance(whole, Tensor)
            whole[:] = part
        gate = Mixture(weights, slopes)
    elif isinstance(gate, Gate):
        tail = TailFit(*(torch.empty_like(losses) for _ in TailFit._fields[:-1]), valid=torch.empty_like(counted))
        if gate.needs_reference and step < count:
            reference = nearness_reference(_nearness(contest, room, terms.eps), gate.quantile)

    for start in range(0, count, step):
        rows = slice(start, start + step)
        tile = Tile.of(contest.of(rows))
        similarity, shortfalls, share = room[:, : len(losses[rows])]
        tile.similarity_(similarity)
        if tail is not None and isinstance(gate, Gate):
            negatives = tile.only_negatives_(share.copy_(similarity))
            fit = measure_tail(negatives, contest.negatives, tile.counts(), gate.rule, terms.eps)
            for whole, part in zip((*tail, weights, slopes), (*fit, *mix(fit, gate, reference)), strict=True):
                assert isinstance(whole, Tensor)
                whole[rows] = part
        weight, slope = (value[rows] if isinstance(value, Tensor) else value for value in (weights, slopes))
        blended_logits_(share, shortfalls, similarity, weight, slope, terms.scale, terms.eps)
        outcome = _outcome(tile, share, terms.smoothing)
        losses[rows], counted[rows] = outcome.loss.squeeze(1), outcome.counted
        if not any(wanted):
            continue
        of_logits = _of_logits_(tile, share, outcome, factor[rows].unsqueeze(1), terms.smoothing)
        if gradient.scale is not None:
            gradient.scale.add_(((1 - weight) * torch.linalg.vecdot(of_logits, similarity)).sum())
        of_similarity = of_logits.mul_(logit_slope_(shortfalls, weight, slope, terms.scale, terms.eps))
        _add(of_similarity, contest, rows, gradient)
    return Swept(losses, counted, Mixture(weights, slopes), tail, gradient)


@torch.no_grad()
def measure_all(contest: Candidates, gate: Gate, eps: float, room: Tensor | None = None) -> TailFit:
    """Tails of all anchors: where the weight of one takes the tails of all.

    Args:
        contest: who competes.
        gate: what is measured.
        eps: floor of the shortfall.
        room: (t, M), where there is some.
    """
    anchors, count = contest.anchors, len(contest.anchors)
    if room is None:
        room = anchors.new_empty(min(count, tile_rows(contest.columns, anchors.device.type)), contest.columns)
    # Written in place, as in `sweep`.
    tail = TailFit(
        *(anchors.new_empty(count) for _ in TailFit._fields[:-1]), valid=anchors.new_empty(count, dtype=torch.bool)
    )
    for start in range(0, count, len(room)):
        rows = slice(start, start + len(room))
        tile = Tile.of(contest.of(rows))
        negatives = room[: len(anchors[rows])]
        tile.similarity_(negatives)
        fit = measure_tail(tile.only_negatives_(negatives), contest.negatives, tile.counts(), gate.rule, eps)
        for whole, part in zip(tail, fit, strict=True):
            whole[rows] = part
    return tail


def _zeros(contest: Candidates, terms: Terms, wanted: Wanted) -> Gradient:
    """Where gradients are gathered."""
    shared = contest.shared
    return Gradient(
        torch.zeros_like(contest.anchors) if wanted.anchors or (shared and wanted.candidates) else None,
        torch.zeros_like(contest.candidates) if wanted.candidates and not shared else None,
        torch.zeros_like(contest.own) if wanted.own and contest.own is not None else None,
        torch.zeros_like(terms.scale) if wanted.scale else None,
    )


def _add(of_similarity: Tensor, contest: Candidates, rows: slice, gradient: Gradient) -> None:
    """From similarities to embeddings."""
    anchors = contest.anchors[rows]
    split = contest.columns - len(contest.candidates)
    of_own, of_shared = of_similarity[:, :split], of_similarity[:, split:]
    if gradient.anchors is not None:
        gradient.anchors[rows].addmm_(of_shared, contest.candidates)
        if contest.own is not None:
            gradient.anchors[rows] += torch.einsum("ap,apd->ad", of_own, contest.own[rows])
    if gradient.own is not None:
        gradient.own[rows] = of_own.unsqueeze(2) * anchors.unsqueeze(1)
    of_candidates = gradient.anchors if contest.shared else gradient.candidates
    if of_candidates is not None:
        of_candidates.addmm_(of_shared.T, anchors)


def _nearness(contest: Candidates, room: Tensor, eps: float) -> Tensor:
    """Shortfall of every anchor's hardest negative, (A,), tile by tile.

    Where anchors are the candidates, s_ij serves i and j: a tile leaves out the columns before its own, and its
    columns' maxima count as well as its rows'.
    """
    half = contest.shared and contest.by_column and contest.own is None
    nearest = contest.anchors.new_full((len(contest.anchors),), float("-inf"))
    # Fewer rows leave out more columns.
    step = min(room.shape[1], 512) if half else room.shape[1]
    for start in range(0, len(nearest), step):
        rows = slice(start, start + step)
        here = contest.of(rows)
        if not half:
            tile = Tile.of(here)
            similarity = room[0, : len(here.anchors)]
            tile.similarity_(similarity)
            nearest[rows] = tile.only_negatives_(similarity).amax(dim=1)
            continue
        width = len(nearest) - start
        values = room[0].flatten()[: len(here.anchors) * width].view(-1, width)
        torch.mm(here.anchors, contest.candidates[start:].T, out=values)
        for column in (here.positive, here.itself):
            if column is not None:
                index = (column - start).unsqueeze(1)
                kept = values.gather(1, index.clamp_min(0))
                values.scatter_(1, index.clamp_min(0), torch.where(index < 0, kept, float("-inf")))
        torch.maximum(nearest[rows], values.amax(dim=1), out=nearest[rows])
        torch.maximum(nearest[start:], values.amax(dim=0), out=nearest[start:])
    return shortfall(nearest, eps).clamp_max(NOWHERE_NEAR)


class _Outcome(NamedTuple):
    """Of a tile's contests, (t, 1) each but `shares`, (t, 1) or (t, M).

    Attributes:
        loss: of each anchor.
        counted: bool (t,), whether it has a positive.
        beaten: q, the probability that the positives lose.
        total: of what `share` holds.
        shares: of each positive among the positives.
        positives, candidates: how many there are.
    """

    loss: Tensor
    counted: Tensor
    beaten: Tensor
    total: Tensor
    shares: Tensor
    positives: Tensor
    candidates: Tensor


def _outcome(tile: Tile, logits: Tensor, smoothing: float) -> _Outcome:
    """Losses, as `per_anchor_loss` has them. Leaves exp(logit - top) in `logits`, 0 but for negatives."""
    lowest = torch.finfo(logits.dtype).min
    of_positives = tile.positives(logits, lowest)
    positives = tile.positive_count().to(logits.dtype)  # integers divide in float32
    if of_positives.shape[1] == 1:
        won = mean = of_positives
        shares = torch.ones_like(won)
    else:
        won = torch.logsumexp(of_positives, dim=1, keepdim=True)
        mean = tile.positives(logits, 0.0).sum(dim=1, keepdim=True) / positives.clamp_min(1)
        shares = torch.exp(of_positives - won)
    candidates = positives
    sum_of_logits = mean * positives
    if smoothing:
        candidates = positives + tile.negative_count()
        sum_of_logits = sum_of_logits + tile.only_negatives_(logits, 0.0).sum(dim=1, keepdim=True)
    tile.only_negatives_(logits)
    # Not -inf where there is no negative.
    top = logits.amax(dim=1, keepdim=True).clamp_min_(lowest)
    total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
    log_odds = won - (top + total.log())
    lost = -nn.functional.logsigmoid(log_odds)
    loss = (won - mean) + lost
    if smoothing:
        loss = (1 - smoothing) * loss + smoothing * ((won - sum_of_logits / candidates.clamp_min(1)) + lost)
    counted = positives > 0
    loss = torch.where(counted, loss, 0.0)
    return _Outcome(loss, counted.squeeze(1), torch.sigmoid(-log_odds), total, shares, positives, candidates)


def _of_logits_(tile: Tile, share: Tensor, outcome: _Outcome, factor: Tensor, smoothing: float) -> Tensor:
    """Gradient in the logits, in place: with p the softmax over an anchor's candidates and t its target,

        d loss_i / d logit_ij = p_ij - t_ij

    which for a single positive is -q, q the probability that it loses.
    """
    factor = torch.where(outcome.counted.unsqueeze(1), factor, 0.0)
    share.mul_(outcome.beaten * factor / outcome.total.clamp_min(torch.finfo(share.dtype).tiny))
    positives = outcome.positives.clamp_min(1)
    of_positives = -outcome.beaten * outcome.shares + (outcome.shares - 1 / positives)
    if smoothing:
        everywhere = smoothing / outcome.candidates.clamp_min(1)
        tile.only_negatives_(share.sub_(everywhere * factor), 0.0)
        of_positives = of_positives + smoothing / positives - everywhere
    return tile.place_positives_(share, of_positives * factor)
