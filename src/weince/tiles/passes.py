"""The passes over a tile as one reads them: its tails, and its losses with their gradient.

A tile is (t, M) similarities of some anchors. `weince.tiles.rows` has the same two functions as kernels of a GPU.
"""

from __future__ import annotations

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weince.contest import Contest, Roles
from weince.formula import blended_logits_, logit_slope_
from weince.gate import Gate, Mixture, mix
from weince.tail import TailFit, measure_tail

__all__ = ["SCRATCH", "Concluded", "Terms", "conclude", "measure", "mix"]

LOG2_E = 1 / log(2)
SCRATCH = 2
"""Tiles of room that the passes take beside the similarities."""


class Terms(NamedTuple):
    """What the loss of an anchor takes beside its logits.

    Attributes:
        scale: 1 / tau, a scalar tensor.
        eps: floor of the shortfall.
        smoothing: of the labels.
        decoupled: leave the positives out of the denominator.
    """

    scale: Tensor
    eps: float
    smoothing: float
    decoupled: bool


class Concluded(NamedTuple):
    """Of a tile's anchors, (t,) each.

    Attributes:
        loss: in nats.
        counted: whether there is a positive.
        of_scale: derivative of factor * loss with respect to the scale; None where nobody asks.
    """

    loss: Tensor
    counted: Tensor
    of_scale: Tensor | None


def measure(here: Contest, similarity: Tensor, scratch: Tensor, gate: Gate, eps: float) -> TailFit:
    """Tails of some anchors.

    Args:
        here: their contest.
        similarity: (t, M).
        scratch: (SCRATCH, t, M), overwritten.
        gate: what is measured.
        eps: floor of the shortfall.
    """
    roles, values = here.roles(), scratch[0].copy_(similarity)
    best = roles.best_positive(values) if gate.needs_positives else None
    negatives = roles.only_negatives_(values, float("-inf"))
    return measure_tail(negatives, here.negatives, roles.differing_counts(), gate.rule, eps, best)


def conclude(
    here: Contest,
    similarity: Tensor,
    scratch: Tensor,
    mixture: Mixture,
    terms: Terms,
    factor: Tensor | None,
    of_scale: bool,
) -> Concluded:
    """Losses of some anchors; their similarities become the gradient of sum_i factor_i loss_i in them.

    Args:
        here: their contest.
        similarity: (t, M), overwritten.
        scratch: (SCRATCH, t, M), likewise.
        mixture: weight and slope, (t,) or one for all.
        terms: what else the loss takes.
        factor: (t,); None where no gradient is wanted.
        of_scale: whether the derivative in the scale is.
    """
    roles, (share, shortfalls) = here.roles(), scratch
    scale, eps, smoothing, decoupled = terms
    blended_logits_(share, shortfalls, similarity, *mixture, scale, eps)
    outcome = _outcome(roles, share, smoothing, decoupled)
    loss, counted = outcome.loss.squeeze(1), outcome.counted.squeeze(1)
    if factor is None:
        return Concluded(loss, counted, None)
    of_logits = _of_logits_(roles, share, outcome, factor.unsqueeze(1), smoothing)
    derivative = (1 - mixture.weight) * torch.linalg.vecdot(of_logits, similarity) if of_scale else None
    torch.mul(of_logits, logit_slope_(shortfalls, *mixture, scale, eps), out=similarity)
    return Concluded(loss, counted, derivative)


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
    # exp2 is several times as fast as exp on some processors.
    total = logits.sub_(top).mul_(LOG2_E).exp2_().sum(dim=1, keepdim=True)
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
