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

from weince.contest import Contest
from weince.gate import Gate, Mixture, mix
from weince.processes.gather import Processes
from weince.tail import TailFit

__all__ = ["gathered", "mix_over_processes", "total_over_processes"]


def gathered(contest: Contest, processes: Processes) -> Contest:
    """This process's anchors against the candidates of all.

    Candidates that are no part of the batch (a queue, negatives that are the same for all) stay what they are: they are
    the same on every process. Pairs with another process's candidates are ignored nowhere: masks speak of own ones, and
    ids of all.

    Raises:
        DisagreementError: on every process, where processes disagree on shapes or on what they give.
    """
    own = 0 if contest.own is None else contest.own.shape[1]
    anchors, shared = contest.anchors, contest.candidates
    given = [name for name in ("candidate_labels", "candidate_ids") if getattr(contest, name) is not None]
    dtype = str(anchors.dtype).removeprefix("torch.")
    described = [f"{tuple(anchors.shape)} anchors", f"{tuple(shared.shape)} candidates", dtype, *given]
    processes.agree(", ".join(described), "the batch")
    if not contest.from_batch or processes.size == 1:
        return contest
    before, beyond = processes.rank * shared.shape[0], (processes.size - 1) * shared.shape[0]
    positive, ignored = contest.positive, contest.ignored
    if positive is not None:
        moves = positive.ndim == 1
        positive = _moved(positive, own, before) if moves else _widened(positive, own, shared.shape[0], processes)
    return contest._replace(
        candidates=processes.rows(shared),
        negatives=contest.negatives + beyond,
        positive=positive,
        itself=None if contest.itself is None else _moved(contest.itself, own, before),
        ignored=None if ignored is None else _widened(ignored, own, shared.shape[0], processes),
        **{name: processes.values(getattr(contest, name)) for name in given},
    )


def _moved(column: Tensor, own: int, before: int) -> Tensor:
    """Columns of shared candidates, after those of the processes before this one."""
    return torch.where(column < own, column, column + before)


def _widened(mask: Tensor, own: int, shared: int, processes: Processes) -> Tensor:
    """A mask of own pairs, False for those with candidates of others."""
    wide = mask.new_zeros(mask.shape[0], own + processes.size * shared)
    wide[:, :own] = mask[:, :own]
    start = own + processes.rank * shared
    wide[:, start : start + shared] = mask[:, own:]
    return wide


@torch.no_grad()
def mix_over_processes(tail: TailFit, gate: Gate, processes: Processes) -> Mixture:
    """Weights and slopes of this process's anchors, from the tails of all."""
    numbers = torch.stack([part.to(tail.slope.dtype) for part in tail], dim=1)
    everyone = processes.values(numbers).unbind(dim=1)
    weight, slope = mix(TailFit(*everyone[:-1], valid=everyone[-1].bool()), gate)
    mine = slice(processes.rank * numbers.shape[0], (processes.rank + 1) * numbers.shape[0])
    return Mixture(*(part[mine] if isinstance(part, Tensor) else part for part in (weight, slope)))


def total_over_processes(total: Tensor, share: Tensor | None, processes: Processes) -> Tensor:
    """The loss of the whole batch; its gradient is W times that of the own part.

    Args:
        total: of this process's anchors; carries gradient.
        share: what it is divided by, of this process, for a mean.
        processes: all of them.
    """
    divisor = torch.ones_like(total)
    if share is not None:
        whole = processes.sum(share)
        divisor = torch.where(whole > 0, whole, 1.0)
    own = total / divisor * processes.size
    return own + (processes.sum(total) / divisor - own).detach()
