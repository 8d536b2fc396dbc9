"""The loss of each row, and its similarities replaced by the gradient in them."""

# Names of pointers and sizes are capitals, as in the formulas; a kernel takes what it writes and where.
# pyright: basic, reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from weince.tiles.kernels.roles import roles_at

LOWEST = tl.constexpr(-3.4028234663852886e38)
TINY = tl.constexpr(1.1754943508222875e-38)


@triton.jit
def _logits(S, stride, roles, row, column, M, weight, slope, scale, eps, ZERO: tl.constexpr):
    """Similarities, logits, their derivative, and which columns are positives and negatives."""
    inside = column < M
    s = tl.load(S + row * stride + column, mask=inside, other=0.0)
    positive, negative = roles_at(roles, row, column, inside)
    logit = s * scale
    derivative = tl.zeros_like(s) + scale
    if not ZERO:
        raw = 1.0 - s
        delta = tl.maximum(raw, eps)
        logit = s * (scale * (1.0 - weight)) - (weight * slope) * tl.log(delta)
        derivative = scale * (1.0 - weight) + tl.where(raw > eps, weight * slope / delta, 0.0)
    return s, logit, derivative, positive, negative


@triton.jit
def _log1p_exp(x):
    """log(1 + exp(x)), with the relative precision of small ones: log(1 + u) is 2 atanh(u / (2 + u))."""
    u = tl.exp(-tl.abs(x))
    r = u / (2.0 + u)
    q = r * r
    series = 1.0 + q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * (1 / 9 + q * (1 / 11 + q * (1 / 13 + q / 15))))))
    return tl.maximum(x, 0.0) + 2.0 * r * series


@triton.jit
def conclude(
    S, stride, roles, M, mixed_weight, mixed_slope, scale_at, eps, smoothing, factor, losses, counted, of_scale,
    ZERO: tl.constexpr, SMOOTH: tl.constexpr, DECOUPLED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The loss of a row, and its similarities replaced by the gradient in them.

    Args:
        S: (t, M), rows `stride` apart; overwritten where `factor` is given.
        mixed_weight, mixed_slope: (t,). ZERO: every weight is 0.
        scale_at: 1 / tau, one number.
        factor: (t,), or None where no gradient is wanted.
        losses, counted: (t,), written. of_scale: (t,) or None, likewise.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    scale = tl.load(scale_at)
    weight = tl.full([], 0.0, tl.float32)
    slope = weight
    if not ZERO:
        weight = tl.load(mixed_weight + row)
        slope = tl.load(mixed_slope + row)
    top = tl.full([], LOWEST, tl.float32)
    total = tl.full([], 0.0, tl.float32)
    top_won = tl.full([], LOWEST, tl.float32)
    total_won = tl.full([], 0.0, tl.float32)
    positives_v = tl.zeros([BLOCK], tl.float32)
    negatives_v = tl.zeros([BLOCK], tl.float32)
    sum_won_v = tl.zeros([BLOCK], tl.float32)
    sum_lost_v = tl.zeros([BLOCK], tl.float32)
    for start in range(0, M, BLOCK):
        _, logit, _, positive, negative = _logits(
            S, stride, roles, row, start + lane, M, weight, slope, scale, eps, ZERO
        )
        new = tl.maximum(top, tl.max(tl.where(negative, logit, LOWEST)))
        total = total * tl.exp(top - new) + tl.sum(tl.where(negative, tl.exp(logit - new), 0.0))
        top = new
        new = tl.maximum(top_won, tl.max(tl.where(positive, logit, LOWEST)))
        total_won = total_won * tl.exp(top_won - new) + tl.sum(tl.where(positive, tl.exp(logit - new), 0.0))
        top_won = new
        positives_v += positive.to(tl.float32)
        sum_won_v += tl.where(positive, logit, 0.0)
        if SMOOTH:
            negatives_v += negative.to(tl.float32)
            sum_lost_v += tl.where(negative, logit, 0.0)
    positives = tl.sum(positives_v)
    some = tl.maximum(positives, 1.0)
    sum_won = tl.sum(sum_won_v)
    # One positive: exactly its own logit.
    won = tl.where(positives > 1.0, top_won + tl.log(total_won), sum_won)
    mean = sum_won / some
    log_odds = won - (top + tl.log(total))
    lost = -log_odds if DECOUPLED else _log1p_exp(-log_odds)
    loss = (won - mean) + lost
    candidates = some
    if SMOOTH:
        candidates = tl.maximum(positives + tl.sum(negatives_v), 1.0)
        everyone = (sum_won + tl.sum(sum_lost_v)) / candidates
        loss = (1.0 - smoothing) * loss + smoothing * ((won - everyone) + lost)
    live = positives > 0.0
    if DECOUPLED:
        live = live & (total > 0.0)
    tl.store(losses + row, tl.where(live, loss, 0.0))
    tl.store(counted + row, (positives > 0.0).to(tl.int8))
    if factor is not None:
        share = tl.where(live, tl.load(factor + row), 0.0)
        losing = tl.full([], 1.0, tl.float32)
        if not DECOUPLED:
            losing = 1.0 / (1.0 + tl.exp(log_odds))
        of_negatives = losing * share / tl.maximum(total, TINY)
        everywhere = smoothing / candidates if SMOOTH else 0.0
        along_v = tl.zeros([BLOCK], tl.float32)
        for start in range(0, M, BLOCK):
            s, logit, derivative, positive, negative = _logits(
                S, stride, roles, row, start + lane, M, weight, slope, scale, eps, ZERO
            )
            lost_share = tl.exp(tl.where(negative, logit - top, 0.0)) * of_negatives
            # Of one positive exactly 1: a fused product and difference would not be.
            won_share = tl.where(positives > 1.0, tl.exp(tl.where(positive, logit - won, 0.0)), 1.0)
            of_positives = -losing * won_share + (won_share - 1.0 / some)
            if SMOOTH:
                lost_share = lost_share - everywhere * share
                of_positives = of_positives + smoothing / some - everywhere
            gradient = tl.where(positive, of_positives * share, tl.where(negative, lost_share, 0.0))
            along_v += gradient * s
            tl.store(S + row * stride + start + lane, gradient * derivative, mask=start + lane < M)
        if of_scale is not None:
            tl.store(of_scale + row, (1.0 - weight) * tl.sum(along_v))
