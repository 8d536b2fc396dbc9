"""The two extra terms of the authors' released reproduction, apart from the blend.

Its published runs minimised

    WEINCELoss(gate=Gate(slope="unit"))  +  0.5 * Weibit top-50  +  0.5 * softmax top-50

A gain measured with these terms on is not a gain of the blend, so they are a loss of their own to add.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from weince.checks import check_integer, check_number
from weince.contest import Contest
from weince.formula import blended_logits, per_anchor_loss
from weince.precision import full_precision
from weince.processes.gather import Processes
from weince.processes.shared import gathered, total_over_processes
from weince.setups import two_views
from weince.tail import fit_tail

__all__ = ["PooledSlope", "ReleasedTopMLoss", "pooled_slope", "top_m_loss"]


class PooledSlope(NamedTuple):
    """One line through all negatives of a batch: slope beta and r2, scalar tensors without gradient."""

    slope: Tensor
    r2: Tensor


def top_m_loss(
    contest: Contest, top: int, *, weight: float, slope: Tensor | float, temperature: float, eps: float
) -> Tensor:
    """Cross-entropy over the positive and the M hardest negatives, of each anchor.

    Args:
        contest: who competes.
        top: M; all negatives where there are fewer.
        weight: 0 for softmax logits s / tau, 1 for Weibit logits -beta log(1 - s).
        slope: beta of the Weibit logits.
        temperature: tau of the softmax logits.
        eps: floor of the shortfall.

    Returns:
        (A,), in nats; carries gradient to the embeddings, not to the slope.
    """
    similarity, roles = contest.similarity(), contest.roles()
    hardest = roles.only_negatives(similarity, float("-inf")).topk(min(top, contest.negatives), dim=1).values
    candidates = torch.cat([roles.positives(similarity, 0.0), hardest], dim=1)
    logits = blended_logits(candidates, weight, slope, 1 / temperature, eps)
    return per_anchor_loss(logits[:, :1], logits[:, 1:])


@torch.no_grad()
def pooled_slope(contest: Contest, eps: float, processes: Processes = Processes(False)) -> PooledSlope:
    """The Weibull line of `fit_tail` on the negatives of all anchors pooled.

    Of the K pooled negatives it takes the int(0.05 K) hardest, at least 1,024 and at most all. Fewer than ten give
    slope 0 and r2 0.

    Args:
        contest: who competes.
        eps: floor of the shortfall.
        processes: that hold other anchors of the same batch.
    """
    similarity = contest.similarity()
    pooled = contest.roles().only_negatives(similarity, float("-inf")).flatten()
    count = processes.size * similarity.shape[0] * contest.negatives
    if count < 10:
        return PooledSlope(pooled.new_zeros(()), pooled.new_zeros(()))
    taken = min(count, max(1024, int(0.05 * count)))
    hardest = pooled.topk(min(taken, len(pooled))).values
    if processes.size > 1:  # the hardest of all are among the hardest of each
        hardest = processes.values(hardest).topk(taken).values
    fit = fit_tail(hardest.unsqueeze(0), eps)
    return PooledSlope(fit.slope[0], fit.r2[0])


class ReleasedTopMLoss(nn.Module):
    """The released recipe's extra terms: `criterion(z_a, z_b)` -> scalar, to be added to the blend.

        loss = weibit_share * CE[positive | top M](-beta_t log(1 - s))  +  softmax_share * CE[positive | top M](s / tau)
        beta_t = momentum * beta_(t-1) + (1 - momentum) * clamp(pooled slope, 0.5, 16),  moved before it is used

    beta_t moves only in train(), and only by a pooled line with r2 >= 0.85 and slope > 0. It is a buffer, so it is
    saved with the model.

    Args:
        temperature: tau of the softmax term, > 0.
        top: M, >= 1.
        weibit_share: factor of the Weibit term, >= 0.
        softmax_share: factor of the softmax term, >= 0.
        momentum: of the running slope, in [0, 1].
        initial_slope: beta_0, > 0.
        eps: floor of the shortfall, in (0, 1).
        gather_distributed: take candidates and the pool of all processes, see `contest_loss`.

    Source: released reproduction of arXiv:2606.00262 (hsme98/weince @ 49485f3), as specified, not as coded.

    Examples:
        >>> extra = ReleasedTopMLoss()
        >>> loss = extra(torch.randn(16, 8), torch.randn(16, 8))
        >>> loss.ndim, list(extra.state_dict())
        (0, ['slope'])
    """

    slope: Tensor

    def __init__(
        self,
        temperature: float = 0.5,
        top: int = 50,
        weibit_share: float = 0.5,
        softmax_share: float = 0.5,
        momentum: float = 0.9,
        initial_slope: float = 4.0,
        eps: float = 1e-6,
        *,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        self.temperature = check_number("temperature", temperature, "finite and > 0", lambda v: v > 0)
        self.top = check_integer("top", top, 1)
        self.weibit_share = check_number("weibit_share", weibit_share, "finite and >= 0", lambda v: v >= 0)
        self.softmax_share = check_number("softmax_share", softmax_share, "finite and >= 0", lambda v: v >= 0)
        self.momentum = check_number("momentum", momentum, "in [0, 1]", lambda v: 0 <= v <= 1)
        self.eps = check_number("eps", eps, "in (0, 1)", lambda v: 0 < v < 1)
        self.processes = Processes.of(gather_distributed)
        slope = check_number("initial_slope", initial_slope, "finite and > 0", lambda v: v > 0)
        self.register_buffer("slope", torch.tensor(float(slope)))

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Loss of embeddings z_a and z_b, (N, D) each."""
        contest = self.processes.together(lambda: two_views(z_a, z_b))
        with full_precision(z_a.device.type):
            several = self.processes.size > 1
            if several:
                contest = gathered(contest, self.processes)
            if self.training:
                self._move(pooled_slope(contest, self.eps, self.processes))
            weibit, softmax = (
                top_m_loss(
                    contest, self.top, weight=weight, slope=self.slope, temperature=self.temperature, eps=self.eps
                )
                for weight in (1.0, 0.0)
            )
            each = self.weibit_share * weibit + self.softmax_share * softmax
            if several:
                return total_over_processes(each.sum(), each.new_full((), len(each)), self.processes)
        return each.mean()

    @torch.no_grad()
    def _move(self, pooled: PooledSlope) -> None:
        target = pooled.slope.clamp(0.5, 16.0).to(self.slope.dtype)
        moved = self.momentum * self.slope + (1 - self.momentum) * target
        accepted = (pooled.r2 >= 0.85) & (pooled.slope > 0)
        self.slope.copy_(torch.where(accepted, moved, self.slope))

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, top={self.top}, momentum={self.momentum}"
