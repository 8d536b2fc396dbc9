"""The formula: two coordinates of a similarity, their blend, and the loss of an anchor.

Everything here works on dense rows: `similarity` is (A, M), one row per anchor, one column per candidate.
Nothing here knows where a weight or a slope comes from, or which column is whose positive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["blended_logits", "blended_logits_", "logit_slope_", "per_anchor_loss", "shortfall"]


def shortfall(similarity: Tensor, eps: float) -> Tensor:
    """Distance of a cosine similarity to its cap, floored.

        delta = max(1 - s, eps)

    The *difference* is floored, not the similarity: clamping s at 1 - eps would lose three digits of an
    exact duplicate in float32.

    Args:
        similarity: cosine similarities, any shape, in [-1, 1].
        eps: smallest shortfall, > 0. Below it the gradient is zero.

    Returns:
        Shortfalls in [eps, 2], same shape.

    Source: arXiv:2606.00262, section 3.

    Examples:
        >>> shortfall(torch.tensor([0.0, 0.75, 1.0]), eps=1e-6)
        tensor([1.0000e+00, 2.5000e-01, 1.0000e-06])
    """
    return (1 - similarity).clamp_min(eps)


def blended_logits(
    similarity: Tensor, weight: Tensor | float, slope: Tensor | float, scale: Tensor | float, eps: float
) -> Tensor:
    """WEINCE logits: the softmax coordinate and the shortfall coordinate, blended anchor by anchor.

        logit_ij = (1 - lambda_i) * s_ij / tau  +  lambda_i * (-beta_i * log(max(1 - s_ij, eps)))

    With lambda = 0 this is s / tau, bit for bit, in value and in gradient.

    Args:
        similarity: s, (A, M), in [-1, 1]; carries the gradient.
        weight: lambda, (A,) or one for all, in [0, 1]; carries none.
        slope: beta, (A,) or one for all, >= 0; carries none.
        scale: 1 / tau, > 0; a scalar tensor may carry gradient.
        eps: floor of the shortfall, > 0; inside the logarithm alone.

    Returns:
        Logits (A, M), in nats.

    Source: arXiv:2606.00262, equation of the blended link.

    Examples:
        >>> s = torch.tensor([[0.5, 0.75]])
        >>> blended_logits(s, weight=0.0, slope=4.0, scale=2.0, eps=1e-6)
        tensor([[1.0000, 1.5000]])
        >>> blended_logits(s, weight=1.0, slope=4.0, scale=2.0, eps=1e-6)
        tensor([[2.7726, 5.5452]])
    """
    softmax_coordinate = similarity * scale
    if isinstance(weight, float) and weight == 0.0:
        return softmax_coordinate
    pull = _per_row(weight * slope)
    return (1 - _per_row(weight)) * softmax_coordinate - pull * torch.log(shortfall(similarity, eps))


def blended_logits_(
    out: Tensor,
    shortfalls: Tensor,
    similarity: Tensor,
    weight: Tensor | float,
    slope: Tensor | float,
    scale: Tensor,
    eps: float,
) -> None:
    """`blended_logits` without allocating: logits into `out`, and shortfalls for `logit_slope_` into `shortfalls`.

    Args:
        out, shortfalls: (A, M), overwritten.
        similarity, weight, slope, eps: as in `blended_logits`.
        scale: 1 / tau, a scalar tensor.
    """
    if not isinstance(weight, Tensor) and weight == 0.0:
        torch.mul(similarity, scale, out=out)
        return
    torch.sub(torch.ones_like(scale), similarity, out=shortfalls).clamp_min_(eps)
    torch.log(shortfalls, out=out).mul_(_per_row(-weight * slope))
    out.addcmul_(similarity, scale * _per_row(1 - weight))


def logit_slope_(
    shortfalls: Tensor, weight: Tensor | float, slope: Tensor | float, scale: Tensor, eps: float
) -> Tensor:
    """Derivative of `blended_logits`, for those who form the gradient themselves.

        d logit_ij / d s_ij = (1 - lambda_i) / tau  +  lambda_i * beta_i / (1 - s_ij),     the second 0 at the floor

    Args:
        shortfalls: (A, M), as `blended_logits_` left them; overwritten.
        weight, slope, scale, eps: as in `blended_logits_`.

    Returns:
        (A, M), or a scalar where it is the same for all.

    Examples:
        >>> shortfalls = torch.tensor([[0.5, 1e-6]])
        >>> logit_slope_(shortfalls, weight=0.5, slope=2.0, scale=torch.tensor(2.0), eps=1e-6)
        tensor([[3., 1.]])
    """
    if isinstance(weight, float) and weight == 0.0:
        return scale
    above = torch.threshold_(shortfalls, eps, float("inf"))
    return above.reciprocal_().mul_(_per_row(weight * slope)).add_(scale * _per_row(1 - weight))


def per_anchor_loss(
    of_positives: Tensor, of_negatives: Tensor, smoothing: float = 0.0, decoupled: bool = False
) -> Tensor:
    """Negative log-likelihood that an anchor's positive wins against its candidates.

        loss_i = log sum_{j in P(i) + N(i)} exp(logit_ij)  -  mean_{p in P(i)} logit_ip

    computed as -log sigmoid(lse over P(i) - lse over N(i)) + (lse over P(i) - mean over P(i)): the loss of a positive
    that wins by far keeps its relative precision, and so does its gradient, where the difference of two large
    logarithms would cancel. With one positive the second term is exactly 0. With several this is the mean of their
    negative log-probabilities (SupCon "out"). Label smoothing e takes the target (1 - e) / |P| on P plus e / |P + N| on
    all, as `cross_entropy` does.

    Decoupled (DCL, arXiv:2110.06848), the first sum is over N(i) alone: -log (p / (1 - p)) where the loss is -log p.
    Its gradient does not fade as the positive wins.

    An anchor without a positive has loss 0; one without a negative has -log of its positives' shares among themselves,
    and, decoupled, 0.

    Args:
        of_positives: logits of the positives, (A, P), finite; the dtype's lowest number where there is none.
        of_negatives: logits of the negatives, (A, M), likewise.
        smoothing: e, in [0, 1).
        decoupled: leave the positives out of the denominator.

    Returns:
        Loss of each anchor (A,), in nats; decoupled it may be negative.

    Examples:
        >>> nowhere = torch.finfo(torch.float32).min
        >>> per_anchor_loss(torch.tensor([[1.0]]), torch.tensor([[nowhere, nowhere, 1.0]]))
        tensor([0.6931])
        >>> per_anchor_loss(torch.tensor([[1.0]]), torch.tensor([[nowhere, nowhere, 1.0]]), decoupled=True)
        tensor([0.])
    """
    # Not -inf: the log of an empty sum would have no gradient.
    nowhere = torch.finfo(of_positives.dtype).min
    lost = torch.logsumexp(of_negatives, dim=1)
    there = of_positives != nowhere
    positives = there.sum(dim=1)
    if of_positives.shape[1] == 1:
        won = mean = of_positives.squeeze(1)
        spread = 0.0
    else:
        won = torch.logsumexp(of_positives, dim=1)
        mean = torch.where(there, of_positives, 0.0).sum(dim=1) / positives.clamp_min(1)
        # With one positive the two would cancel in the gradient only to rounding, which swamps a small one.
        spread = torch.where(positives > 1, won - mean, 0.0)
    behind = lost - won if decoupled else -nn.functional.logsigmoid(won - lost)
    loss = behind + spread
    if smoothing:
        others = of_negatives != nowhere
        total = mean * positives + torch.where(others, of_negatives, 0.0).sum(dim=1)
        everyone = (positives + others.sum(dim=1)).clamp_min(1)
        loss = (1 - smoothing) * loss + smoothing * (behind + (won - total / everyone))
    counts = (positives > 0) & (lost > nowhere) if decoupled else positives > 0
    return torch.where(counts, loss, 0.0)


def _per_row(value: Tensor | float) -> Tensor | float:
    return value.unsqueeze(-1) if isinstance(value, Tensor) else value
