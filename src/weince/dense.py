"""The dense path: the whole (A, M) matrix, as one reads the formula. It can be differentiated twice and transformed."""

from __future__ import annotations

import torch
from torch import Tensor

from weince.contest import Contest, Roles
from weince.formula import blended_logits, per_anchor_loss
from weince.gate import Gate, Mixture, mix
from weince.output import LossOutput
from weince.tail import TailFit, measure_tail

__all__ = ["losses", "measure"]


@torch.no_grad()
def measure(contest: Contest, gate: Gate, eps: float) -> TailFit:
    """Tail fits of all anchors."""
    return _fits(contest, contest.roles(), contest.similarity(), gate, eps)


def losses(
    contest: Contest,
    gate: Gate,
    mixture: Mixture | None,
    scale: Tensor,
    eps: float,
    smoothing: float,
    decoupled: bool,
    factor: Tensor,
    of_total: bool = True,
) -> LossOutput:
    """Losses of all anchors and their weighted sum. Arguments as in `weince.tiles.operators.losses`."""
    similarity, roles = contest.similarity(), contest.roles()
    tail = None
    if mixture is None:
        tail = _fits(contest, roles, similarity.detach(), gate, eps) if gate.needs_fit else None
        mixture = mix(tail, gate, ways=2 if contest.both_ways else 1)
    weight, slope = mixture
    logits = blended_logits(similarity, weight, slope, scale, eps)
    nowhere = torch.finfo(logits.dtype).min
    of_negatives = roles.only_negatives(logits, nowhere)
    per_anchor = per_anchor_loss(roles.positives(logits, nowhere), of_negatives, smoothing, decoupled)
    weight, slope = (_each(value, per_anchor) for value in mixture)
    counted = roles.positive_count().squeeze(1) > 0
    return LossOutput((per_anchor * factor).sum(), per_anchor, weight, slope, tail, counted)


def _fits(contest: Contest, roles: Roles, similarity: Tensor, gate: Gate, eps: float) -> TailFit:
    negatives = roles.only_negatives(similarity, float("-inf"))
    best = roles.best_positive(similarity) if gate.needs_positives else None
    return measure_tail(negatives, contest.negatives, roles.differing_counts(), gate.rule, eps, best)


def _each(value: Tensor | float, losses: Tensor) -> Tensor:
    """One number for every anchor."""
    return value if isinstance(value, Tensor) else torch.full_like(losses.detach(), value)
