"""What the rivals share: a contest on dense matrices, with the candidates of all processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weince import ContestLoss, LossOutput
from weince.contest import Contest
from weince.processes.gather import default_processes
from weince.processes.shared import gathered, total_over_processes
from weince.setups import two_views

__all__ = ["OfTwoViews", "logits_of", "output_of", "over_negatives", "wide"]


class OfTwoViews(nn.Module):
    """The loss of a contest, asked of two views."""

    def __init__(self, inner: ContestLoss) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Loss of embeddings z_a and z_b, (N, D) each."""
        with torch.autocast(z_a.device.type, enabled=False):
            return self.inner.of(lambda: [two_views(z_a, z_b)]).loss


def wide(contest: Contest) -> Contest:
    """The contest with the candidates of all processes."""
    processes = default_processes()
    return gathered(contest, processes) if processes.size > 1 else contest


def logits_of(contest: Contest, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Logits (A, M), and those of the positives (A,)."""
    logits = contest.similarity() / temperature
    return logits, contest.roles().positives(logits, 0.0).squeeze(1)


def over_negatives(logits: Tensor, contest: Contest) -> Tensor:
    """log sum exp over each anchor's negatives, (A,)."""
    return torch.logsumexp(contest.roles().only_negatives(logits, float("-inf")), dim=1)


def output_of(per_anchor: Tensor) -> LossOutput:
    """The mean over the anchors of all processes, of a loss without tail."""
    processes = default_processes()
    total, anchors = per_anchor.sum(), per_anchor.new_full((), len(per_anchor))
    loss = total_over_processes(total, anchors, processes) if processes.size > 1 else total / anchors
    nothing = torch.zeros_like(per_anchor.detach())
    return LossOutput(loss, per_anchor, nothing, nothing, None, torch.ones_like(nothing, dtype=torch.bool))
