"""The contest across processes: a process's own anchors against everyone's candidates, weighed by the whole batch.

W processes with (N, D) each are one process with (W N, D). Every process computes the rows of its own anchors, A / W of
them, so work and memory of the tiles are split; embeddings are gathered once, with gradient.

    value:     the loss of the concatenated batch, on every process
    gradient:  W times that of this process's anchors

DistributedDataParallel averages gradients over processes: what comes out is the gradient of the loss of the
concatenated batch, to rounding. Without it, average them; there is no other factor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weince.candidates import Candidates
from weince.gate import Gate, Mixture, mix
from weince.gather import agree, gather_rows, gather_values, rank, sum_over_processes, world_size
from weince.tail import TailFit

__all__ = ["gathered", "mix_over_processes", "total_over_processes"]


def gathered(contest: Candidates) -> Candidates:
    """This process's anchors against the candidates of all.

    Candidates that are no part of the batch (a queue, negatives that are the same for all) stay what they are: they are
    the same on every process. Pairs with another process's candidates are ignored nowhere: masks speak of own ones.

    Raises:
        ValueError: on every process, where processes disagree on shapes.
    """
    own = 0 if contest.own is None else contest.own.shape[1]
    anchors, shared = contest.anchors, contest.candidates
    dtype = str(anchors.dtype).removeprefix("torch.")
    agree(f"{tuple(anchors.shape)} anchors, {tuple(shared.shape)} candidates, {dtype}", "the batch")
    if not contest.from_batch or world_size() == 1:
        return contest
    before, beyond = rank() * len(shared), (world_size() - 1) * len(shared)
    positive, ignored = contest.positive, contest.ignored
    if positive is not None:
        positive = _moved(positive, own, before) if positive.ndim == 1 else _widened(positive, own, len(shared))
    return contest._replace(
        candidates=gather_rows(shared),
        negatives=contest.negatives + beyond,
        positive=positive,
        itself=None if contest.itself is None else _moved(contest.itself, own, before),
        candidate_labels=None if contest.candidate_labels is None else gather_values(contest.candidate_labels),
        ignored=None if ignored is None else _widened(ignored, own, len(shared)),
    )


def _moved(column: Tensor, own: int, before: int) -> Tensor:
    """Columns of shared candidates, after those of the processes before this one."""
    return torch.where(column < own, column, column + before)


def _widened(mask: Tensor, own: int, shared: int) -> Tensor:
    """A mask of own pairs, False for those with candidates of others."""
    wide = mask.new_zeros(len(mask), own + world_size() * shared)
    wide[:, :own] = mask[:, :own]
    start = own + rank() * shared
    wide[:, start : start + shared] = mask[:, own:]
    return wide


@torch.no_grad()
def mix_over_processes(tail: TailFit | None, gate: Gate) -> Mixture:
    """Weights and slopes of this process's anchors, from the tails of all.

    Args:
        tail: of this process's anchors; None only when the gate needs no fit.
        gate: the rule.
    """
    if tail is None or world_size() == 1:
        return mix(tail, gate)
    numbers = torch.stack([part.to(tail.slope.dtype) for part in tail], dim=1)
    everyone = gather_values(numbers).unbind(dim=1)
    weight, slope = mix(TailFit(*everyone[:-1], valid=everyone[-1].bool()), gate)
    mine = slice(rank() * len(numbers), (rank() + 1) * len(numbers))
    return Mixture(*(part[mine] if isinstance(part, Tensor) else part for part in (weight, slope)))


def total_over_processes(total: Tensor, share: Tensor | None) -> Tensor:
    """The loss of the whole batch; its gradient is W times that of the own part.

    Args:
        total: of this process's anchors; carries gradient.
        share: what it is divided by, of this process, for a mean.
    """
    divisor = torch.ones_like(total)
    if share is not None:
        whole = sum_over_processes(share)
        divisor = torch.where(whole > 0, whole, 1.0)
    own = total / divisor * world_size()
    return own + (sum_over_processes(total) / divisor - own).detach()
