"""What the rivals share: a contest on dense matrices, with the candidates of all processes."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from weince import INFONCE, ContestLoss, Gate, LearnableTemperature, LossOutput
from weince.contest import Contest, Roles
from weince.formula import per_anchor_loss
from weince.lab.rivals.setups import ALL_SETUPS, Setup
from weince.precision import full_precision
from weince.processes.shared import gathered, total_over_processes
from weince.temperature import Temperature, check_temperature

__all__ = ["Rival", "Rows", "Won"]


class Won(NamedTuple):
    """Of the logits of each anchor's positives, (A,): log sum exp, the mean, and the first over the second."""

    total: Tensor
    mean: Tensor
    spread: Tensor | float
    log_count: Tensor | float


class Rows(NamedTuple):
    """This process's anchors against the candidates of all.

    Attributes:
        own: the contest of this process alone.
        contest: with the candidates of all.
        similarity: s, (A, M); carries gradient.
        roles: which column is a positive or a negative of which anchor.
        temperature: tau; may carry gradient.
    """

    own: Contest
    contest: Contest
    similarity: Tensor
    roles: Roles
    temperature: Tensor | float

    @property
    def nowhere(self) -> float:
        """The logit of what takes no part: not -inf, since the log of an empty sum would have no gradient."""
        return torch.finfo(self.similarity.dtype).min

    def softmax(self, logits: Tensor, of_negatives: Tensor | None = None) -> Tensor:
        """-log softmax of the positives, the mean over several (SupCon "out"), (A,).

        Args:
            logits: (A, M).
            of_negatives: logits of the negatives, where they differ.
        """
        negatives = logits if of_negatives is None else of_negatives
        return per_anchor_loss(
            self.roles.positives(logits, self.nowhere), self.roles.only_negatives(negatives, self.nowhere)
        )

    def won(self, logits: Tensor) -> Won:
        """Of the positives."""
        of_positives = self.roles.positives(logits, self.nowhere)
        if self.roles.only is not None:
            one = of_positives.squeeze(1)
            return Won(one, one, 0.0, 0.0)
        count = self.roles.positive_count().squeeze(1).clamp_min(1).to(logits.dtype)
        total = torch.logsumexp(of_positives, dim=1)
        mean = self.roles.positives(logits, 0.0).sum(dim=1) / count
        return Won(total, mean, torch.where(count > 1, total - mean, 0.0), count.log())

    def lost(self, logits: Tensor) -> Tensor:
        """log sum exp over each anchor's negatives, (A,)."""
        return torch.logsumexp(self.roles.only_negatives(logits, self.nowhere), dim=1)

    def with_negatives(self, loss: Tensor) -> Tensor:
        """The loss of an anchor, 0 where it has no negative."""
        return torch.where(self.roles.negative_count().squeeze(1) > 0, loss, 0.0)


class Rival(ContestLoss):
    """A loss of a contest on dense matrices; across processes it takes the candidates of all.

    A subclass says the loss of each anchor. Anchors without a positive are left out of the mean, weights of examples,
    ignored pairs and ids are respected, as in `weince.contest_output`.

    Args:
        temperature: tau, > 0: a number, an nn.Parameter, or `LearnableTemperature()`.
        gate: of what is measured as WEINCE measures it.
    """

    SETUPS: ClassVar[frozenset[Setup]] = ALL_SETUPS

    def __init__(self, temperature: Temperature = 0.1, gate: Gate = INFONCE) -> None:
        super().__init__(temperature, gate, gather_distributed=True)

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """The output of a contest; a temperature given here takes the place of the module's own."""
        with full_precision(contest.anchors.device.type):
            rows = self.rows(contest, self.temperature if temperature is None else temperature)
            return self.output(self.per_anchor(rows), rows)

    def per_anchor(self, rows: Rows) -> Tensor:
        """The loss of each anchor, (A,)."""
        raise NotImplementedError

    def rows(self, contest: Contest, temperature: Temperature) -> Rows:
        """What the loss is computed from."""
        processes = self.options.processes
        tau = processes.together(lambda: check_temperature(temperature))
        if isinstance(tau, LearnableTemperature):
            tau = tau()
        if isinstance(tau, Tensor):
            tau = tau.to(contest.anchors.dtype).reshape(())
        everyone = gathered(contest, processes) if processes.size > 1 else contest
        return Rows(contest, everyone, everyone.similarity(), everyone.roles(), tau)

    def output(self, per_anchor: Tensor, rows: Rows) -> LossOutput:
        """The mean over the anchors of all processes that have a positive, of a loss without tail."""
        processes = self.options.processes
        counted = rows.roles.positive_count().squeeze(1) > 0
        per_anchor = torch.where(counted, per_anchor, 0.0)
        weight = rows.own.sample_weight
        factor = torch.ones_like(per_anchor.detach()) if weight is None else weight.detach().to(per_anchor.dtype)
        total, share = (per_anchor * factor).sum(), (factor * counted).sum()
        if processes.size > 1:
            loss = total_over_processes(total, share, processes)
        else:
            loss = total / torch.where(share > 0, share, 1.0)
        nothing = torch.zeros_like(per_anchor.detach())
        return LossOutput(loss, per_anchor, nothing, nothing, None, counted)
