"""The criteria: every loss that a recipe may name, `criterion(z_a, z_b)` -> scalar.

Beside InfoNCE and the two forms of WEINCE stand other answers to the same question: what to do about the hardest
negatives. They are for comparison, on dense matrices; only WEINCE and InfoNCE have tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from weince import INFONCE, ContestLoss, Gate, InfoNCELoss, LossOutput, WEINCELoss, contest_output
from weince.checks import check_number
from weince.contest import Contest
from weince.formula import per_anchor_loss
from weince.processes.gather import default_processes
from weince.processes.shared import gathered, total_over_processes
from weince.released import ReleasedTopMLoss
from weince.setups import two_views
from weince.temperature import Temperature

__all__ = ["Decoupled", "HardNegatives", "MatchedTemperature", "OfTwoViews", "Rivals", "make_criterion"]


@dataclass(frozen=True)
class Rivals:
    """Settings of the other answers.

    Attributes:
        concentration: of "hard-negatives" on those with a large similarity, >= 0.
        class_prior: of "hard-negatives", the share of negatives that are of the anchor's class, in [0, 1).
        least_temperature: of "matched-temperature", the lowest that an anchor may get, > 0.
    """

    concentration: float = 1.0
    class_prior: float = 0.1
    least_temperature: float = 0.03

    def __post_init__(self) -> None:
        check_number("concentration", self.concentration, "finite and >= 0", lambda v: v >= 0)
        check_number("class_prior", self.class_prior, "in [0, 1)", lambda v: 0 <= v < 1)
        check_number("least_temperature", self.least_temperature, "finite and > 0", lambda v: v > 0)


def make_criterion(loss: str, temperature: float, gate: Gate, rivals: Rivals = Rivals()) -> nn.Module:
    """The loss of that name.

    Args:
        loss: one of `weince.lab.tasks.recipe.Loss`.
        temperature: tau, > 0.
        gate: of WEINCE and of what is measured like it.
        rivals: settings of the others.
    """
    if loss == "infonce":
        return InfoNCELoss(temperature, gather_distributed=True)
    if loss == "weince":
        return WEINCELoss(temperature, gate, gather_distributed=True)
    if loss == "weince-released":
        return _Released(temperature, gate)
    if loss == "dcl":
        return OfTwoViews(Decoupled(temperature))
    if loss == "hard-negatives":
        return OfTwoViews(HardNegatives(temperature, rivals.concentration, rivals.class_prior))
    if loss == "matched-temperature":
        return OfTwoViews(MatchedTemperature(temperature, gate, rivals.least_temperature))
    raise ValueError(f"Parameter `loss` names no criterion. Found {loss!r}.")


class _Released(nn.Module):
    """The recipe of the authors' released code: slope 1, and the two extra terms."""

    def __init__(self, temperature: float, gate: Gate) -> None:
        super().__init__()
        # Every setting of the gate but the slope, which the released code fixes at 1.
        self.blend = WEINCELoss(temperature, replace(gate, slope="unit"), gather_distributed=True)
        self.extra = ReleasedTopMLoss(temperature, gather_distributed=True)

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self.blend(z_a, z_b) + self.extra(z_a, z_b)


class OfTwoViews(nn.Module):
    """The loss of a contest, asked of two views."""

    def __init__(self, inner: ContestLoss) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Loss of embeddings z_a and z_b, (N, D) each."""
        with torch.autocast(z_a.device.type, enabled=False):
            return self.inner.of(lambda: [two_views(z_a, z_b)]).loss


class Decoupled(ContestLoss):
    """InfoNCE whose denominator leaves the positive out, mean over anchors (DCL, without its weights).

        loss_i = -s_i+ / tau  +  log sum_{j in N(i)} exp(s_ij / tau)

    Args:
        temperature: tau, > 0.

    Source: arXiv:2110.06848.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__(temperature, INFONCE, gather_distributed=True)

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest of two views."""
        logits, won = _logits(wide := _wide(contest), self.temperature)
        return _output(_over_negatives(logits, wide) - won)


class HardNegatives(ContestLoss):
    """InfoNCE whose negatives weigh more the harder they are, debiased for those that are of the anchor's class.

        w_ij   = exp(b s_ij / tau) / mean_{k in N(i)} exp(b s_ik / tau)
        Ng_i   = max( (sum_{j in N(i)} w_ij exp(s_ij / tau) - c K exp(s_i+ / tau)) / (1 - c),  K exp(-1 / tau) )
        loss_i = log(1 + Ng_i / exp(s_i+ / tau))

    with K negatives, concentration b and class prior c. b = c = 0 is InfoNCE. The gradient passes through w.

    Args:
        temperature: tau, > 0.
        concentration: b, >= 0.
        class_prior: c, in [0, 1).

    Source: arXiv:2010.04592, equation 4 and section 3; the floor is that of arXiv:2007.00224.
    """

    def __init__(self, temperature: float = 0.5, concentration: float = 1.0, class_prior: float = 0.1) -> None:
        super().__init__(temperature, INFONCE, gather_distributed=True)
        self.concentration, self.class_prior = concentration, class_prior

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest of two views."""
        logits, won = _logits(wide := _wide(contest), self.temperature)
        many = wide.negatives
        # Over exp(s_i+ / tau), and in logarithms: exp(2 / tau) would overflow at low temperatures.
        ratio = _over_negatives((1 + self.concentration) * logits, wide) + math.log(many) - won
        ratio = ratio - _over_negatives(self.concentration * logits, wide)
        floor = math.log(many) - 1 / self.temperature - won
        if self.class_prior:
            false = torch.exp(math.log(self.class_prior * many) - ratio)
            left = torch.log1p(-false.clamp_max(0.999999)) - math.log1p(-self.class_prior)
            ratio = torch.where(false < 0.999999, ratio + left, floor)
        return _output(nn.functional.softplus(torch.maximum(ratio, floor)))


class MatchedTemperature(ContestLoss):
    """InfoNCE with a temperature for each anchor, as steep at its hardest negative as WEINCE would be.

        1 / tau_i = min( (1 - lambda_i) / tau + lambda_i * beta_i / rho_i,  1 / least_temperature )
        logit_ij  = s_ij / tau_i

    A control: is it the shortfall coordinate that helps, or an adaptive temperature? Without the bound it collapses,
    since an untrained encoder's hardest negatives lie at the cap.

    Args:
        temperature: tau of the blend that is matched, > 0.
        gate: of the blend.
        least_temperature: bound, > 0.
    """

    def __init__(self, temperature: float = 0.5, gate: Gate = Gate(), least_temperature: float = 0.03) -> None:
        super().__init__(temperature, gate, gather_distributed=True)
        if not gate.needs_fit:
            raise ValueError("Parameter `gate` should measure weight or slope: a fixed pair leaves nothing to match.")
        self.steepest = 1 / least_temperature

    def forward(self, contest: Contest, temperature: Temperature | None = None) -> LossOutput:
        """Output of a contest of two views, with the weights and fits of the blend."""
        with torch.no_grad():
            blend = contest_output(contest, self.temperature, self.options)
            assert blend.tail is not None
            pull = blend.weight * blend.tail.slope / blend.tail.nearness
            steepness = ((1 - blend.weight) / self.temperature + pull).clamp_max(self.steepest)
        wide = _wide(contest)
        logits, roles = wide.similarity() * steepness.unsqueeze(1), wide.roles()
        nowhere = torch.finfo(logits.dtype).min
        per_anchor = per_anchor_loss(roles.positives(logits, nowhere), roles.only_negatives(logits, nowhere))
        return _output(per_anchor)._replace(weight=blend.weight, slope=blend.slope, tail=blend.tail)


def _wide(contest: Contest) -> Contest:
    processes = default_processes()
    return gathered(contest, processes) if processes.size > 1 else contest


def _logits(contest: Contest, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Logits (A, M), and those of the positives (A,)."""
    logits = contest.similarity() / temperature
    return logits, contest.roles().positives(logits, 0.0).squeeze(1)


def _over_negatives(logits: Tensor, contest: Contest) -> Tensor:
    return torch.logsumexp(contest.roles().only_negatives(logits, float("-inf")), dim=1)


def _output(per_anchor: Tensor) -> LossOutput:
    processes = default_processes()
    total, anchors = per_anchor.sum(), per_anchor.new_full((), len(per_anchor))
    loss = total_over_processes(total, anchors, processes) if processes.size > 1 else total / anchors
    nothing = torch.zeros_like(per_anchor.detach())
    return LossOutput(loss, per_anchor, nothing, nothing, None, torch.ones_like(nothing, dtype=torch.bool))
