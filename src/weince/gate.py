"""The gate: from an anchor's tail to the weight and the slope of its shortfall coordinate."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from weince.checks import check_integer, check_number, check_option
from weince.evidence import beaten_weight, end_of, end_weight
from weince.tail import TailFit, TailRule

__all__ = ["CAUTIOUS", "ENDPOINT", "INFONCE", "PAPER", "WEIBIT", "Gate", "Mixture", "mix", "nearness_reference"]

EVIDENCE = ("both", "nearness", "aic", "endpoint", "nearness*endpoint", "beaten*endpoint")


@dataclass(frozen=True)
class Gate:
    """How much of the shortfall coordinate an anchor gets, and with which slope. The defaults are the paper's.

        lambda_i = sigmoid(kappa_rho * (log rho_0 - log rho_i)) * sigmoid(kappa_aic * (aic_gap_i - margin))

    The first factor, *nearness*, compares an anchor's hardest negative with the batch: rho_0 is the `quantile` of
    the batch's own rho, so about that share of anchors gets a nearness weight above one half in every batch,
    however far it is from the cap. The second, *aic*, is the evidence of the line fits.

    Attributes:
        kappa_rho: sharpness of nearness, >= 0.
        kappa_aic: sharpness of the evidence, >= 0.
        margin: AIC difference that counts as even.
        quantile: q of rho_0, in (0, 1].
        tail_fraction: share of the negatives that makes the tail, in (0, 1].
        tail_min: at least this many of them, >= 1.
        evidence: "both" (paper), "nearness" or "aic" for one factor alone; "endpoint" in the place of both: whether the
            end fitted to the batch's tails lies about the cap (`weince.evidence` says what that does not tell),
            "nearness*endpoint" for it in the place of "aic", "beaten*endpoint" for it while most positives are beaten
            by a negative (`weince.evidence.beaten_weight`); or a number in [0, 1]: that weight for every anchor.
        slope: "anchor" (paper: the anchor's own fitted beta; an anchor without a valid fit gets weight 0), "unit"
            (released code: 1 for all) or a number >= 0: that slope for all.
        slope_max: upper bound on the slope, > 0, or None. Bounds the pull of near-duplicate negatives.
        slope_estimator: "line" (paper), or "maximum_likelihood": less spread at the same bias. Where the evidence needs
            no lines it spares sorting and fitting them.
        kappa_end: sharpness of "endpoint", >= 0.

    Source: arXiv:2606.00262, gate; "unit" from the authors' released code.

    Examples:
        >>> Gate(kappa_rho=5.0).margin
        2.0
        >>> Gate(quantile=0.0)
        Traceback (most recent call last):
        ValueError: Parameter `quantile` should be in (0, 1]. Found 0.0.
    """

    kappa_rho: float = 10.0
    kappa_aic: float = 1.0
    margin: float = 2.0
    quantile: float = 0.2
    tail_fraction: float = 0.10
    tail_min: int = 32
    evidence: Literal["both", "nearness", "aic", "endpoint", "nearness*endpoint", "beaten*endpoint"] | float = "both"
    slope: Literal["anchor", "unit"] | float = "anchor"
    slope_max: float | None = None
    slope_estimator: Literal["line", "maximum_likelihood"] = "line"
    kappa_end: float = 10.0

    text: ClassVar[str]

    def __post_init__(self) -> None:
        found: dict[str, float] = {"tail_min": check_integer("tail_min", self.tail_min, 1)}
        for name in ("kappa_rho", "kappa_aic", "kappa_end"):
            found[name] = check_number(name, getattr(self, name), "finite and >= 0", lambda v: v >= 0)
        found["margin"] = check_number("margin", self.margin, "finite", lambda v: True)
        for name in ("quantile", "tail_fraction"):
            found[name] = check_number(name, getattr(self, name), "in (0, 1]", lambda v: 0 < v <= 1)
        if not (isinstance(self.evidence, str) and self.evidence in EVIDENCE):
            expected = ", ".join(f'"{name}"' for name in EVIDENCE) + " or a number in [0, 1]"
            found["evidence"] = check_number("evidence", self.evidence, expected, lambda v: 0 <= v <= 1)
        if not (isinstance(self.slope, str) and self.slope in ("anchor", "unit")):
            expected = '"anchor", "unit" or a finite number >= 0'
            found["slope"] = check_number("slope", self.slope, expected, lambda v: v >= 0)
        if self.slope_max is not None:
            found["slope_max"] = check_number("slope_max", self.slope_max, "None or finite and > 0", lambda v: v > 0)
        check_option("slope_estimator", self.slope_estimator, ("line", "maximum_likelihood"))
        for name, number in found.items():
            object.__setattr__(self, name, number)
        object.__setattr__(self, "text", json.dumps(asdict(self)))

    @staticmethod
    @lru_cache(maxsize=64)
    def parsed(text: str) -> Gate:
        """The gate of a `text`, which every gate has as an attribute: an operator takes strings, not gates."""
        return Gate(**json.loads(text))

    @property
    def needs_fit(self) -> bool:
        """Whether the weight or the slope is measured on the batch."""
        return isinstance(self.evidence, str) or self.slope == "anchor"

    @property
    def needs_reference(self) -> bool:
        """Whether the weight of one anchor takes the nearness of all."""
        return self.evidence in ("both", "nearness", "nearness*endpoint")

    @property
    def needs_pool(self) -> bool:
        """Whether the weight of one anchor takes the tails of all."""
        return self.evidence in ("endpoint", "nearness*endpoint", "beaten*endpoint")

    @property
    def needs_positives(self) -> bool:
        """Whether the weight takes the positives."""
        return self.evidence == "beaten*endpoint"

    @property
    def rule(self) -> TailRule:
        """What is measured on a tail."""
        lines = self.slope_estimator == "line" or self.evidence in ("both", "aic")
        return TailRule(self.tail_fraction, self.tail_min, self.slope_estimator, lines, self.needs_pool)


INFONCE = Gate(evidence=0.0, slope=1.0)
"""Plain InfoNCE: weight 0, and no fit."""
PAPER = Gate()
"""WEINCE as the paper has it: weight from nearness and AIC, slope from a line."""
ENDPOINT = Gate(evidence="endpoint")
"""The weight asks whether the end fitted to the batch's tails lies about the cap, in the place of nearness and AIC."""
CAUTIOUS = Gate(evidence="beaten*endpoint", slope_max=8.0)
"""InfoNCE, but where the end fitted to the batch's tails lies about the cap *and* most positives are still beaten."""
WEIBIT = Gate(evidence=1.0, slope_estimator="maximum_likelihood")
"""No temperature: weight 1, slope by maximum likelihood. An anchor without a fit is InfoNCE, at the given one."""


class Mixture(NamedTuple):
    """What enters the formula: weight lambda and slope beta, (A,) tensors or plain numbers."""

    weight: Tensor | float
    slope: Tensor | float


def nearness_reference(nearness: Tensor, quantile: float) -> Tensor:
    """rho_0: the batch quantile of the hardest negatives' shortfall, by nearest rank.

        rho_0 = sorted(rho)[round(q * (A - 1))]      (round half to even)

    Args:
        nearness: rho, (A,), over all anchors of the batch.
        quantile: q, in (0, 1].

    Returns:
        Scalar tensor.

    Examples:
        >>> nearness_reference(torch.tensor([0.4, 0.1, 0.3, 0.2]), quantile=0.5)
        tensor(0.3000)
    """
    return torch.sort(nearness).values[round(quantile * (nearness.shape[0] - 1))]


@torch.no_grad()
def mix(tail: TailFit | None, gate: Gate, reference: Tensor | None = None, ways: int = 1) -> Mixture:
    """Weight and slope of every anchor.

    Args:
        tail: fits of the anchors, of the whole batch where the gate needs the pool; None only when it needs no fit.
        gate: the rule.
        reference: rho_0 of the batch, where the anchors are a part of it; otherwise it is taken from `tail`.
        ways: how many batches the fits are of, as large as each other, one after the other.

    Returns:
        Mixture of (A,) tensors, or of the gate's own numbers where they are fixed.
    """
    if ways > 1 and tail is not None:
        batches = zip(*(part.chunk(ways) for part in tail), strict=True)
        found = [mix(TailFit(*batch), gate) for batch in batches]
        parts = zip(*found, strict=True)
        return Mixture(*(torch.cat(part) if isinstance(part[0], Tensor) else part[0] for part in parts))
    weight = _weight(tail, gate, reference)
    slope: Tensor | float
    if gate.slope == "anchor":
        assert tail is not None
        # With a weight near 1 and slope 0 the anchor would have no gradient at all.
        weight = torch.where(tail.valid, weight, torch.zeros_like(tail.slope))
        slope = tail.slope
        if gate.slope_max is not None:
            slope = slope.clamp_max(gate.slope_max)
    else:
        slope = 1.0 if gate.slope == "unit" else float(gate.slope)
        if gate.slope_max is not None:
            slope = min(slope, gate.slope_max)
    return Mixture(weight, slope)


def _weight(tail: TailFit | None, gate: Gate, reference: Tensor | None) -> Tensor | float:
    if not isinstance(gate.evidence, str):
        return float(gate.evidence)
    assert tail is not None
    weight = torch.ones_like(tail.nearness)
    if gate.needs_reference:
        if reference is None:
            reference = nearness_reference(tail.nearness, gate.quantile)
        weight = weight * torch.sigmoid(gate.kappa_rho * (torch.log(reference) - torch.log(tail.nearness)))
    if gate.needs_pool:
        weight = weight * end_weight(tail, end_of(tail), gate.kappa_end)
    if gate.needs_positives:
        weight = weight * beaten_weight(tail)
    if gate.evidence in ("both", "aic"):
        weight = weight * torch.sigmoid(gate.kappa_aic * (tail.aic_gap - gate.margin))
    return weight
