"""The tail fit: how an anchor's hardest negatives crowd towards the cap.

It sees only the K largest negative similarities of an anchor, never the full matrix, so every setting and
every implementation of the loss shares this one fit.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from weince.formula import shortfall

__all__ = ["TailFit", "fit_tail", "largest", "tail_size"]

_HAS_NUMPY = find_spec("numpy") is not None  # torch runs without it

SSE_FLOOR = 1e-12
SXX_FLOOR = 1e-12
MEANINGLESS = 1e6
"""Added to the squared error of a line whose slope has the wrong sign, so that the other model wins."""
ROUNDING = 4.0
"""Bound on the rounding error of a cosine similarity, in units of the dtype's eps."""


class TailFit(NamedTuple):
    """Statistics of each anchor's tail; all (A,), without gradient, float32 or better.

    Attributes:
        slope: beta, fitted exponent of the shortfall's power law, >= 0. Twice it is a local intrinsic dimension.
        r2: share of the variance of log F that the power-law line explains, <= 1.
        aic_gap: AIC of the Gumbel proxy minus AIC of the Weibull line; above 0 favours Weibull.
        nearness: rho, the smallest shortfall, in [eps, 2].
        valid: bool; at least two points, spread wider than rounding, and a rising line.
    """

    slope: Tensor
    r2: Tensor
    aic_gap: Tensor
    nearness: Tensor
    valid: Tensor


def tail_size(negatives: int, fraction: float, minimum: int) -> int:
    """Number of hardest negatives that make the tail.

        K_tail = min(K, max(minimum, 10, round(fraction * K)))      (round half to even)

    Args:
        negatives: K, how many negatives an anchor has.
        fraction: share of them, in (0, 1].
        minimum: at least this many, where there are so many.

    >>> tail_size(510, fraction=0.10, minimum=32), tail_size(20, fraction=0.10, minimum=32)
    (51, 20)
    """
    # Pairs: the compilers of older versions take max of two symbols, not of three.
    return min(negatives, max(max(minimum, 10), round(fraction * negatives)))


@torch.no_grad()
def largest(similarity: Tensor, size: int) -> Tensor:
    """The `size` largest of every row, in descending order. What the fit needs of a row.

    On a CPU this is NumPy's vectorised selection where NumPy is at hand: ten times as fast as `torch.topk`, which would
    cost more than all matrix products of the loss. The values are the same.

    Args:
        similarity: (A, M).
        size: K, at most M.

    Returns:
        (A, K).

    >>> largest(torch.tensor([[0.1, 0.9, 0.5]]), 2)
    tensor([[0.9000, 0.5000]])
    """
    on_host = similarity.device.type == "cpu" and _HAS_NUMPY and not torch.compiler.is_compiling()
    if not on_host or not 0 < size < similarity.shape[1]:
        return similarity.topk(size, dim=1).values
    import numpy

    cut = similarity.shape[1] - size
    top = numpy.partition(similarity.numpy(), cut, axis=1)[:, cut:]
    return torch.from_numpy(numpy.sort(top, axis=1)).flip(1)


@torch.no_grad()
def fit_tail(hardest: Tensor, eps: float) -> TailFit:
    """Fit a power law to the smallest shortfalls and weigh it against a fast-decaying proxy.

        delta_(1) <= ... <= delta_(K)     shortfalls of the hardest negatives
        F_k = k / (K + 1)                 their plotting positions
        log F_k        = a + beta  log delta_(k)     Weibull domain: a power law at the cap
        log(-log F_k)  = c + gamma log delta_(k)     Gumbel proxy

    Both by least squares over the points that are left when the first b = max(1, K // 20) are dropped (the very
    top is discretisation noise). With n points and the residual sums of squares,

        aic_gap = n * (log SSE_Gumbel - log SSE_Weibull)

    and a line of the wrong sign loses. Shortfalls that differ by no more than rounding (equidistant negatives, a
    collapsed batch) get slope 0: in float32 their noise, once sorted, would fit a line with a slope of 1e5.

    The two models answer for different responses, so `aic_gap` is far above zero for smooth tails of *any* domain: it
    ranks anchors, it does not prove a domain.

    Args:
        hardest: (A, K), the K largest similarities of negatives, in descending order. Float32 or better: 1 - s
            cancels in half precision.
        eps: floor of the shortfall, > 0.

    Returns:
        TailFit of (A,) tensors. Fewer than two points give slope 0, aic_gap 0 and valid False.

    Source: arXiv:2606.00262, tail fit and AIC gate.

    >>> u = torch.arange(1, 101, dtype=torch.float64) / 101
    >>> fit = fit_tail((1 - u ** (1 / 3)).unsqueeze(0), eps=1e-6)  # F = delta ** 3
    >>> round(float(fit.slope), 6), bool(fit.valid)
    (3.0, True)
    """
    size = hardest.shape[1]
    delta = shortfall(hardest, eps)
    burn = max(1, size // 20)
    points = size - burn
    # A copy: a view would keep the shortfalls of every tile alive, (A, K) in all.
    nearness = delta[:, 0].clone() if size else delta.new_full((len(delta),), 2.0)
    if points < 2:
        nothing = torch.zeros_like(nearness)
        return TailFit(nothing, nothing, nothing, nearness, nothing.bool())

    x = torch.log(delta[:, burn:])
    # Sums of uncentred float32 logarithms cancel: they cost a factor of 40 in the weight.
    x = x - x.mean(dim=1, keepdim=True)
    noise = (ROUNDING * torch.finfo(x.dtype).eps / delta[:, burn:]).square().sum(dim=1)
    resolved = x.square().sum(dim=1) > noise
    precise = torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    rank = torch.arange(burn + 1, size + 1, dtype=precise, device=x.device)
    log_f = torch.log(rank / (size + 1))
    weibull_slope, weibull_sse, weibull_variance = _line(x, log_f, resolved)
    gumbel_slope, gumbel_sse, _ = _line(x, torch.log(-log_f), resolved)

    r2 = 1 - weibull_sse / weibull_variance
    rising = weibull_slope > 0
    weibull_sse = weibull_sse + MEANINGLESS * ~rising
    gumbel_sse = gumbel_sse + MEANINGLESS * (gumbel_slope >= 0)
    return TailFit(
        slope=weibull_slope.clamp_min(0),
        r2=r2,
        aic_gap=points * (torch.log(gumbel_sse) - torch.log(weibull_sse)),
        nearness=nearness,
        valid=rising,
    )


def _line(x: Tensor, response: Tensor, resolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares of one response (n,) on centred x (A, n): slope, residual and total sum of squares."""
    y = (response - response.mean()).to(x.dtype)
    slope = resolved * (x @ y) / x.square().sum(dim=1).clamp_min(SXX_FLOOR)
    residual = y - slope.unsqueeze(1) * x
    return slope, residual.square().sum(dim=1).clamp_min(SSE_FLOOR), y.square().sum()
