"""The sweep: the loss of `formula.py` and its gradient, row tile by row tile, never an (A, M) tensor.

A tile is some anchors against all candidates. Its tail is fitted, weighed and forgotten in one go, and its losses and
gradient are formed at once, so that backward is a scaling. One number of the gate belongs to the whole batch, the
reference of nearness; where there are several tiles, a sweep over row maxima finds it first. The evidence of an
endpoint takes the tails of all, which are then measured in a sweep of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weince.contest import Contest, Roles
from weince.formula import blended_logits_, logit_slope_, shortfall
from weince.gate import Gate, Mixture, mix, nearness_reference
from weince.output import LossOutput
from weince.tail import NOWHERE_NEAR, TailFit, measure_tail

__all__ = ["Gradient", "measure_all", "sweep", "tile_rows"]

TILE_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}
"""Of one tile, by kind of device: on a CPU 8 MiB in float32, so that a dozen passes stay in the last cache; on a GPU
enough to fill it."""
TILE_ROWS = 64
"""At least so many anchors a tile: products of fewer rows are slow, and a tile of 64 takes no more memory than the
embeddings do."""


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

    def add_(self, of_similarity: Tensor, contest: Contest, rows: slice) -> None:
        """From the similarities of some anchors to embeddings."""
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


def tile_rows(columns: int, device: str) -> int:
    """Anchors a tile, for so many candidates."""
    return max(TILE_ROWS, TILE_ELEMENTS.get(device, TILE_ELEMENTS["cpu"]) // max(1, columns))


@torch.no_grad()
def sweep(
    contest: Contest,
    gate: Gate,
    mixture: Mixture | None,
    scale: Tensor,
    eps: float,
    smoothing: float,
    decoupled: bool,
    factor: Tensor,
    wanted: Sequence[bool],
) -> tuple[LossOutput, Gradient]:
    """Losses, statistics and gradient of all anchors.

    Args:
        contest: who competes.
        gate: how weight and slope are measured.
        mixture: both, where they are known; no tail is measured then.
        scale: 1 / tau, a scalar tensor.
        eps: floor of the shortfall.
        smoothing: of the labels.
        decoupled: leave the positives out of the denominator.
        factor: (A,), of the losses in the sum whose gradient is wanted.
        wanted: which gradients are: of anchors, candidates, own candidates, scale.
    """
    anchors, count = contest.anchors, len(contest.anchors)
    step = min(count, tile_rows(contest.columns, anchors.device.type))
    # Room for three tiles, taken once: memory that is given back and taken again costs as much as a pass over it.
    room = anchors.new_empty(3, step, contest.columns)
    tail = reference = None
    if mixture is None and not gate.needs_fit:
        mixture = mix(None, gate)
    elif mixture is None and gate.needs_pool and step < count:
        tail = measure_all(contest, gate, eps, room[0])
        mixture = mix(tail, gate)
    elif mixture is None:
        tail = _empty_tail(anchors)
        reference = _reference(contest, gate, room, eps) if step < count else None
    # Written in place: small results kept of every tile would lie between freed ones and hold on to their memory.
    losses, counted = anchors.new_empty(count), anchors.new_empty(count, dtype=torch.bool)
    weights, slopes = anchors.new_empty(2, count)
    gradient = Gradient.zeros(contest, scale, wanted)

    for start in range(0, count, step):
        rows = slice(start, start + step)
        here = contest.of(rows)
        roles = here.roles()
        similarity, shortfalls, share = room[:, : len(here.anchors)]
        here.similarity_(similarity)
        if mixture is None:
            assert tail is not None
            fit = _fit(contest, roles, share.copy_(similarity), gate, eps)
            for whole, part in zip(tail, fit, strict=True):
                whole[rows] = part
            weight, slope = mix(fit, gate, reference)
        else:
            weight, slope = (value[rows] if isinstance(value, Tensor) else value for value in mixture)
        weights[rows], slopes[rows] = weight, slope
        blended_logits_(share, shortfalls, similarity, weight, slope, scale, eps)
        outcome = _outcome(roles, share, smoothing, decoupled)
        losses[rows], counted[rows] = outcome.loss.squeeze(1), outcome.counted.squeeze(1)
        if not any(wanted):
            continue
        of_logits = _of_logits_(roles, share, outcome, factor[rows].unsqueeze(1), smoothing)
        if gradient.scale is not None:
            gradient.scale.add_(((1 - weight) * torch.linalg.vecdot(of_logits, similarity)).sum())
        of_similarity = of_logits.mul_(logit_slope_(shortfalls, weight, slope, scale, eps))
        gradient.add_(of_similarity, contest, rows)
    # Not a dot product, which PyTorch's matmul setting rounds.
    return LossOutput((losses * factor).sum(), losses, weights, slopes, tail, counted), gradient


@torch.no_grad()
def measure_all(contest: Contest, gate: Gate, eps: float, room: Tensor | None = None) -> TailFit:
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
    tail = _empty_tail(anchors)
    for start in range(0, count, len(room)):
        rows = slice(start, start + len(room))
        here = contest.of(rows)
        roles = here.roles()
        fit = _fit(contest, roles, here.similarity_(room[: len(here.anchors)]), gate, eps)
        for whole, part in zip(tail, fit, strict=True):
            whole[rows] = part
    return tail


def _fit(contest: Contest, roles: Roles, similarity: Tensor, gate: Gate, eps: float) -> TailFit:
    """Tails of some anchors; overwrites their similarities."""
    best = roles.best_positive(similarity) if gate.needs_positives else None
    negatives = roles.only_negatives_(similarity, float("-inf"))
    return measure_tail(negatives, contest.negatives, roles.differing_counts(), gate.rule, eps, best)


def _empty_tail(anchors: Tensor) -> TailFit:
    *numbers, valid = (anchors.new_empty(len(anchors)) for _ in TailFit._fields)
    return TailFit(*numbers, valid=valid.bool())


def _reference(contest: Contest, gate: Gate, room: Tensor, eps: float) -> Tensor | None:
    """rho_0 of all anchors, from their hardest negatives, tile by tile; None where the gate does without.

    Where anchors are the candidates, s_ij serves i and j: a tile leaves out the columns before its own, and its
    columns' maxima count as well as its rows'.
    """
    if not gate.needs_reference:
        return None
    half = contest.shared and contest.by_column and contest.own is None
    nearest = contest.anchors.new_full((len(contest.anchors),), float("-inf"))
    # Fewer rows leave out more columns.
    step = min(room.shape[1], 512) if half else room.shape[1]
    for start in range(0, len(nearest), step):
        rows = slice(start, start + step)
        here = contest.of(rows)
        if not half:
            similarity = here.similarity_(room[0, : len(here.anchors)])
            nearest[rows] = here.roles().only_negatives_(similarity, float("-inf")).amax(dim=1)
            continue
        width = len(nearest) - start
        values = room[0].flatten()[: len(here.anchors) * width].view(-1, width)
        here._replace(candidates=contest.candidates[start:]).similarity_(values)
        for column in (here.positive, here.itself):
            if column is not None:
                index = (column - start).unsqueeze(1)
                kept = values.gather(1, index.clamp_min(0))
                values.scatter_(1, index.clamp_min(0), torch.where(index < 0, kept, float("-inf")))
        torch.maximum(nearest[rows], values.amax(dim=1), out=nearest[rows])
        torch.maximum(nearest[start:], values.amax(dim=0), out=nearest[start:])
    return nearness_reference(shortfall(nearest, eps).clamp_max(NOWHERE_NEAR), gate.quantile)


class _Outcome(NamedTuple):
    """Of a tile's choices, (t, 1) each but `shares`, (t, 1) or (t, M).

    Attributes:
        loss: of each anchor.
        counted: whether it has a positive.
        live: whether its loss moves with its logits.
        losing: q, the probability that the positives lose; 1 where they are left out of the denominator.
        total: of what `share` holds.
        shares: of each positive among the positives.
        positives, candidates: how many there are.
    """

    loss: Tensor
    counted: Tensor
    live: Tensor
    losing: Tensor
    total: Tensor
    shares: Tensor
    positives: Tensor
    candidates: Tensor


def _outcome(roles: Roles, logits: Tensor, smoothing: float, decoupled: bool) -> _Outcome:
    """Losses, as `per_anchor_loss` has them. Leaves exp(logit - top) in `logits`, 0 but for negatives."""
    lowest = torch.finfo(logits.dtype).min
    of_positives = roles.positives(logits, lowest)
    positives = roles.positive_count().to(logits.dtype)  # integers divide in float32
    if of_positives.shape[1] == 1:
        won = mean = of_positives
        shares = torch.ones_like(won)
    else:
        won = torch.logsumexp(of_positives, dim=1, keepdim=True)
        mean = roles.positives(logits, 0.0).sum(dim=1, keepdim=True) / positives.clamp_min(1)
        shares = torch.exp(of_positives - won)
    candidates = positives
    sum_of_logits = mean * positives
    if smoothing:
        candidates = positives + roles.negative_count()
        sum_of_logits = sum_of_logits + roles.only_negatives_(logits, 0.0).sum(dim=1, keepdim=True)
    roles.only_negatives_(logits, float("-inf"))
    # Not -inf where there is no negative.
    top = logits.amax(dim=1, keepdim=True).clamp_min_(lowest)
    total = logits.sub_(top).exp_().sum(dim=1, keepdim=True)
    log_odds = won - (top + total.log())
    lost = -log_odds if decoupled else -nn.functional.logsigmoid(log_odds)
    loss = (won - mean) + lost
    if smoothing:
        loss = (1 - smoothing) * loss + smoothing * ((won - sum_of_logits / candidates.clamp_min(1)) + lost)
    counted = positives > 0
    live = counted & (total > 0) if decoupled else counted
    loss = torch.where(live, loss, 0.0)
    losing = torch.ones_like(total) if decoupled else torch.sigmoid(-log_odds)
    return _Outcome(loss, counted, live, losing, total, shares, positives, candidates)


def _of_logits_(roles: Roles, share: Tensor, outcome: _Outcome, factor: Tensor, smoothing: float) -> Tensor:
    """Gradient in the logits, in place: with p the softmax over an anchor's candidates and t its target,

        d loss_i / d logit_ij = p_ij - t_ij

    which for a single positive is -q, q the probability that it loses. Decoupled, p is the softmax over the negatives.
    """
    factor = torch.where(outcome.live, factor, 0.0)
    share.mul_(outcome.losing * factor / outcome.total.clamp_min(torch.finfo(share.dtype).tiny))
    positives = outcome.positives.clamp_min(1)
    of_positives = -outcome.losing * outcome.shares + (outcome.shares - 1 / positives)
    if smoothing:
        everywhere = smoothing / outcome.candidates.clamp_min(1)
        roles.only_negatives_(share.sub_(everywhere * factor), 0.0)
        of_positives = of_positives + smoothing / positives - everywhere
    return roles.place_positives_(share, of_positives * factor)
