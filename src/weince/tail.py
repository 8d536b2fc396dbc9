"""The tail fit: how an anchor's hardest negatives crowd towards the cap.

It sees only the K largest negative similarities of an anchor, never the full matrix, so every setting and
every implementation of the loss shares this one fit.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from weince.checks import is_readable
from weince.formula import shortfall

__all__ = ["TailFit", "TailRule", "fit_tail", "largest", "measure_tail", "stacked", "tail_size", "tail_sizes"]

_HAS_NUMPY = find_spec("numpy") is not None  # torch runs without it

SSE_FLOOR = 1e-12
SXX_FLOOR = 1e-12
MEANINGLESS = 1e6
"""Added to the squared error of a line whose slope has the wrong sign, so that the other model wins."""
ROUNDING = 4.0
"""Bound on the rounding error of a cosine similarity, in units of the dtype's eps."""
NOWHERE_NEAR = 2.0
"""Nearness of an anchor without negatives: the largest shortfall there is."""


class TailFit(NamedTuple):
    """Statistics of each anchor's tail; all (A,), without gradient, float32 or better.

    Attributes:
        slope: beta, fitted exponent of the shortfall's power law, >= 0. Twice it is a local intrinsic dimension.
        r2: share of the variance of log F that the power-law line explains, <= 1; NaN where no line was asked for.
        aic_gap: AIC of the Gumbel proxy minus AIC of the Weibull line; above 0 favours Weibull. NaN like r2.
        nearness: rho, the smallest shortfall, in [eps, 2].
        dispersion: G, mean square of the exceedances over their squared mean, (K / n) G = 2 in the mean under an
            exponential tail; NaN where it was not asked for.
        excess: mean exceedance, over 1 - threshold, in (0, 1); NaN like dispersion.
        points: n, how many exceedances; NaN like dispersion.
        beaten: 1 where the hardest negative is nearer than every positive by more than rounding, 0 where not; NaN
            without a positive or a negative, and where it was not asked for.
        valid: bool; at least two points (maximum likelihood: three), spread wider than rounding, and a rising line.
    """

    slope: Tensor
    r2: Tensor
    aic_gap: Tensor
    nearness: Tensor
    dispersion: Tensor
    excess: Tensor
    points: Tensor
    beaten: Tensor
    valid: Tensor

    def stacked(self) -> tuple[Tensor, Tensor]:
        """The numbers, (8, A), and `valid`."""
        return stacked(*self[:-1]), self.valid


def stacked(*parts: Tensor) -> Tensor:
    """The parts as rows of one tensor: the one that they are all the rows of already, where there is one."""
    whole = parts[0]._base
    if whole is not None and len(whole) == len(parts) and all(part._base is whole for part in parts):
        return whole
    return torch.stack(parts)


class TailRule(NamedTuple):
    """What the tail is and what is measured on it.

    Attributes:
        fraction, minimum: of the negatives, as in `tail_size`.
        estimator: of the slope.
        lines: whether the two lines and their AIC gap are wanted, which a maximum-likelihood slope can do without.
        moments: whether dispersion, excess and points are.
    """

    fraction: float
    minimum: int
    estimator: Literal["line", "maximum_likelihood"]
    lines: bool
    moments: bool = False


def tail_size(negatives: int, fraction: float, minimum: int) -> int:
    """Number of hardest negatives that make the tail.

        K_tail = min(K, max(minimum, 10, round(fraction * K)))      (round half to even)

    Args:
        negatives: K, how many negatives an anchor has.
        fraction: share of them, in (0, 1].
        minimum: at least this many, where there are so many.

    Examples:
        >>> tail_size(510, fraction=0.10, minimum=32), tail_size(20, fraction=0.10, minimum=32)
        (51, 20)
    """
    # Pairs: the compilers of older versions take max of two symbols, not of three.
    return min(negatives, max(max(minimum, 10), round(fraction * negatives)))


def tail_sizes(counts: Tensor, rule: TailRule) -> Tensor:
    """`tail_size` of anchors that differ in their number of negatives, int64 (A,)."""
    share = torch.round(rule.fraction * counts.to(_precise(counts))).to(counts.dtype)
    return torch.minimum(counts, share.clamp_min(max(rule.minimum, 10)))


@torch.no_grad()
def measure_tail(
    negatives: Tensor, most: int, counts: Tensor | None, rule: TailRule, eps: float, best: Tensor | None = None
) -> TailFit:
    """Tail fits of some anchors from all their similarities: select, then fit.

    Args:
        negatives: (A, M), similarities, -inf where a candidate is no negative. Its rows may come back in another order.
        most: the largest number of negatives that an anchor has.
        counts: int64 (A,), each anchor's own number, where they differ.
        rule: what to measure.
        eps: floor of the shortfall.
        best: (A,), the largest similarity of a positive, -inf where there is none; None where nobody asks.
    """
    # Anchors that differ in the number of negatives have the tail's end at different places of the order.
    ordered = rule.lines or counts is not None
    hardest = largest(negatives, tail_size(most, rule.fraction, rule.minimum), ordered)
    sizes = None if counts is None else tail_sizes(counts, rule)
    fit = fit_tail(hardest, eps, sizes, rule.estimator, rule.lines, rule.moments)
    if best is None:
        return fit
    # An equal one, as an own old key in a queue, is no nearer: not by rounding either.
    beaten = (shortfall(best, eps) - fit.nearness > ROUNDING * torch.finfo(best.dtype).eps).to(best.dtype)
    alone = (best == float("-inf")) | (fit.nearness == NOWHERE_NEAR)
    return fit._replace(beaten=torch.where(alone, float("nan"), beaten))


@torch.no_grad()
def largest(similarity: Tensor, size: int, ordered: bool = True) -> Tensor:
    """The `size` largest of every row, in descending order where it matters. What the fit needs of a row.

    On a CPU this is NumPy's vectorised selection where NumPy is at hand: several times as fast as `torch.topk`, which
    would cost more than all matrix products of the loss. The values are the same. The selection is done in place.

    Args:
        similarity: (A, M). Its rows may come back in another order.
        size: K, at most M.
        ordered: whether the result is sorted.

    Returns:
        (A, K).

    Examples:
        >>> largest(torch.tensor([[0.1, 0.9, 0.5]]), 2)
        tensor([[0.9000, 0.5000]])
    """
    if not (_HAS_NUMPY and is_readable(similarity)) or not 0 < size < similarity.shape[1]:
        return similarity.topk(size, dim=1, sorted=ordered).values
    rows = similarity.numpy()
    cut = rows.shape[1] - size
    # As integers positive floats have their own order, and are selected in two thirds of the time.
    bits = similarity.view(torch.int32 if similarity.dtype == torch.float32 else torch.int64).numpy()
    bits.partition(cut, axis=1)
    if bits[:, cut:].min() < 0:
        rows.partition(cut, axis=1)
    top = rows[:, cut:].copy()
    if ordered:
        top.sort(axis=1)
    return torch.from_numpy(top).flip(1) if ordered else torch.from_numpy(top)


@torch.no_grad()
def fit_tail(
    hardest: Tensor,
    eps: float,
    sizes: Tensor | None = None,
    estimator: Literal["line", "maximum_likelihood"] = "line",
    lines: bool = True,
    moments: bool = False,
) -> TailFit:
    """Fit a power law to the smallest shortfalls and weigh it against a fast-decaying proxy.

        delta_(1) <= ... <= delta_(K)     shortfalls of the hardest negatives
        F_k = k / (K + 1)                 their plotting positions
        log F_k        = a + beta  log delta_(k)     Weibull domain: a power law at the cap
        log(-log F_k)  = c + gamma log delta_(k)     Gumbel proxy

    Both by least squares over the points that are left when the first b = max(1, K // 20) are dropped (the very
    top is discretisation noise). With n points and the residual sums of squares,

        aic_gap = n * (log SSE_Gumbel - log SSE_Weibull)

    and a line of the wrong sign loses. The maximum-likelihood slope takes all points and no order:

        beta = (K - 2) / sum_{k < K} log(delta_(K) / delta_(k))

    Shortfalls that differ by no more than rounding (equidistant negatives, a collapsed batch) get slope 0: in float32
    their noise, once sorted, would fit a line with a slope of 1e5.

    The two models answer for different responses, so `aic_gap` is far above zero for smooth tails of *any* domain: it
    ranks anchors, it does not prove a domain.

    Args:
        hardest: (A, K), the K largest similarities of negatives, in descending order (in any, without `lines` and
            `sizes`). Float32 or better: 1 - s cancels in half precision.
        eps: floor of the shortfall, > 0.
        sizes: int64 (A,), how many of an anchor's K are its tail, where anchors differ.
        estimator: of the slope: the Weibull "line", or "maximum_likelihood".
        lines: whether to fit the lines; the maximum-likelihood slope can do without.
        moments: whether to take the exceedances' moments over the smallest similarity of the tail.

    Returns:
        TailFit of (A,) tensors. Fewer than two points give slope 0, aic_gap 0 and valid False.

    Source: arXiv:2606.00262, tail fit and AIC gate; maximum likelihood: Hill 1975, doi:10.1214/aos/1176343247, in its
    unbiased form.

    Examples:
        >>> u = torch.arange(1, 101, dtype=torch.float64) / 101
        >>> tail = (1 - u ** (1 / 3)).unsqueeze(0)  # F = delta ** 3
        >>> fit = fit_tail(tail, eps=1e-6)
        >>> round(float(fit.slope), 6), bool(fit.valid)
        (3.0, True)
        >>> round(float(fit_tail(tail, eps=1e-6, estimator="maximum_likelihood").slope), 1)
        3.0
    """
    delta = shortfall(hardest, eps)
    # A copy: a view would keep the shortfalls of every tile alive, (A, K) in all.
    nearness = (
        (delta[:, 0].clone() if lines else delta.amin(dim=1))
        if delta.shape[1]
        else delta.new_full((delta.shape[0],), NOWHERE_NEAR)
    )
    if sizes is not None:
        nearness = torch.where(sizes > 0, nearness, NOWHERE_NEAR)
    unknown = torch.full_like(nearness, float("nan"))
    slope, r2, gap, valid = unknown, unknown, unknown, unknown
    dispersion, excess, points = _moments(delta, sizes) if moments else (unknown, unknown, unknown)
    if lines:
        slope, r2, gap, valid = _fit_lines(delta, sizes)
    if estimator == "maximum_likelihood":
        slope, valid = _fit_likelihood(delta, sizes)
    return TailFit(slope, r2, gap, nearness, dispersion, excess, points, unknown, valid)


class _Points(NamedTuple):
    """The points of a fit: log delta, which of them count, and whether their spread is wider than rounding."""

    x: Tensor
    inside: Tensor | None
    number: Tensor | int
    noise: Tensor


def _points(delta: Tensor, sizes: Tensor | None, burned: bool) -> _Points:
    """Log shortfalls in double precision: in float32 the sums that the fits are made of would cancel."""
    largest_rank = delta.shape[1]
    rounding = ROUNDING * torch.finfo(delta.dtype).eps
    if sizes is None:
        start = max(1, largest_rank // 20) if burned else 0
        kept = delta[:, start:]
        return _Points(kept.log().to(_precise(delta)), None, largest_rank - start, rounding / kept)
    rank = torch.arange(1, largest_rank + 1, device=delta.device)
    start = (sizes // 20).clamp_min(1) if burned else torch.zeros_like(sizes)
    inside = (rank > start.unsqueeze(1)) & (rank <= sizes.unsqueeze(1))
    # An anchor with fewer negatives has -inf, and so an infinite shortfall, at its end.
    x = torch.where(inside, delta, 1.0).log().to(_precise(delta))
    return _Points(x, inside, (sizes - start).clamp_min(0), torch.where(inside, rounding / delta, 0.0))


def _fit_lines(delta: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slope of the Weibull line, its r2, the AIC gap to the Gumbel proxy, and whether the line means anything."""
    x, inside, number, noise = _points(delta, sizes, burned=True)
    if x.shape[1] < 2:
        nothing = torch.zeros_like(delta[:, :1].sum(dim=1))
        return nothing, nothing, nothing, nothing.bool()
    if inside is None or sizes is None:
        rank = torch.arange(delta.shape[1] - x.shape[1] + 1, delta.shape[1] + 1, dtype=x.dtype, device=x.device)
        log_f = torch.log(rank / (delta.shape[1] + 1))
        responses = torch.stack([log_f, torch.log(-log_f)], dim=1)
        responses = responses - responses.mean(dim=0)
        # Centred: sums of uncentred logarithms cancel.
        x = x - x.mean(dim=1, keepdim=True)
        moments = x @ responses
        variances = responses.square().sum(dim=0).expand_as(moments)
    else:
        rank = torch.arange(1, delta.shape[1] + 1, dtype=x.dtype, device=x.device)
        log_f = torch.log(rank / (sizes.unsqueeze(1) + 1)).where(inside, -1.0)
        responses = torch.stack([log_f, torch.log(-log_f)], dim=2)
        many = inside.sum(dim=1, keepdim=True).clamp_min(1)
        mean = (responses * inside.unsqueeze(2)).sum(dim=1, keepdim=True) / many.unsqueeze(2)
        responses = (responses - mean) * inside.unsqueeze(2)
        x = (x - (x * inside).sum(dim=1, keepdim=True) / many) * inside
        moments = torch.einsum("ak,akr->ar", x, responses)
        variances = responses.square().sum(dim=1)
    square = x.square().sum(dim=1)
    resolved = square > noise.square().sum(dim=1)
    slopes = (moments / square.clamp_min(SXX_FLOOR).unsqueeze(1)) * resolved.unsqueeze(1)
    # sum (y - b x)^2, from sums alone.
    errors = variances - slopes * (2 * moments - slopes * square.unsqueeze(1))
    weibull_sse, gumbel_sse = errors.clamp_min(SSE_FLOOR).unbind(dim=1)
    r2 = 1 - weibull_sse / variances[:, 0].clamp_min(SSE_FLOOR)
    rising = slopes[:, 0] > 0
    weibull_sse = weibull_sse + MEANINGLESS * ~rising
    gumbel_sse = gumbel_sse + MEANINGLESS * (slopes[:, 1] >= 0)
    gap = number * (torch.log(gumbel_sse) - torch.log(weibull_sse))
    slope = slopes[:, 0].clamp_min(0)
    if isinstance(number, Tensor):
        enough = number >= 2
        slope, r2, gap, rising = slope * enough, r2 * enough, gap * enough, rising & enough
    return slope.to(delta.dtype), r2.to(delta.dtype), gap.to(delta.dtype), rising


def _fit_likelihood(delta: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Maximum-likelihood slope, and whether it means anything."""
    x, inside, number, noise = _points(delta, sizes, burned=False)
    if x.shape[1] < 3:
        nothing = torch.zeros_like(delta[:, :1].sum(dim=1))
        return nothing, nothing.bool()
    x = x if inside is None else torch.where(inside, x, float("-inf"))
    last = x.amax(dim=1, keepdim=True)
    distance = (last - x if inside is None else torch.where(inside, last - x, 0.0)).sum(dim=1)
    valid = distance > noise.sum(dim=1)
    slope = (number - 2) / distance.clamp_min(SXX_FLOOR)
    if isinstance(number, Tensor):
        valid = valid & (number >= 3)
    return torch.where(valid, slope, 0.0).to(delta.dtype), valid


def _moments(delta: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Dispersion and mean of the exceedances y_k = s_(k) - s_(K), k < K, and their number; 0 where there are none.

    G = (K / n) mean(y^2) / mean(y)^2,    a = mean(y) / (1 - s_(K))
    """
    finite = delta.isfinite() if sizes is None else torch.arange(delta.shape[1], device=delta.device) < sizes[:, None]
    known = torch.where(finite, delta, 0.0).to(_precise(delta))
    last = known.amax(dim=1, keepdim=True) if delta.shape[1] else known.sum(dim=1, keepdim=True)
    y = torch.where(finite, last - known, 0.0)
    points = (finite.sum(dim=1) - 1).clamp_min(0).to(y.dtype)
    total, squares = y.sum(dim=1), y.square().sum(dim=1)
    rounding = ROUNDING * torch.finfo(delta.dtype).eps
    spread = (points >= 2) & (total > rounding * points)
    n = points.clamp_min(1)
    dispersion = (n + 1) * squares / total.square().clamp_min(torch.finfo(y.dtype).tiny)
    excess = total / (n * last.squeeze(1).clamp_min(SXX_FLOOR))
    found = (dispersion, excess, points)
    dispersion, excess, points = (torch.where(spread, value, 0.0).to(delta.dtype) for value in found)
    return dispersion, excess, points


def _precise(of: Tensor) -> torch.dtype:
    return torch.float32 if of.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
