"""The losses people call: a pure function, and thin modules around it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from weince.candidates import Candidates
from weince.checks import check_embeddings, check_finite_rows, check_number, check_option
from weince.formula import blended_logits, per_anchor_loss
from weince.gate import Gate, mix
from weince.operator import Losses, tiled_loss
from weince.settings import two_views
from weince.tail import TailFit, measure_tail
from weince.tiled import Terms

__all__ = ["WEINCE", "Implementation", "InfoNCELoss", "Reduction", "WEINCELoss", "WEINCEOutput", "weince_loss"]

Reduction = Literal["mean", "sum", "none"]
Implementation = Literal["auto", "dense", "tiled"]


class WEINCEOutput(NamedTuple):
    """What the loss is made of.

    Attributes:
        loss: scalar, or (A,) with reduction "none"; carries gradient.
        per_anchor: (A,), all of view a, then all of view b, in nats; carries gradient.
        weight: lambda, (A,); no gradient.
        tail: the fits, or None where weight and slope are fixed numbers and no fit is made.
    """

    loss: Tensor
    per_anchor: Tensor
    weight: Tensor
    tail: TailFit | None


def weince_loss(
    z_a: Tensor,
    z_b: Tensor,
    temperature: float = 0.5,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    eps: float = 1e-6,
    *,
    check_finite: bool = False,
    implementation: Implementation = "auto",
) -> WEINCEOutput:
    """WEINCE of two views: InfoNCE whose hardest negatives are measured by their distance to the cap.

        logit_ij = (1 - lambda_i) * s_ij / tau  +  lambda_i * (-beta_i * log(max(1 - s_ij, eps)))
        loss     = mean over anchors of  -log softmax_{j in C(i)} (logit_i.) [i+]

    s is the cosine similarity; lambda and beta are measured on the batch (`fit_tail`, `Gate`) and carry no gradient.
    lambda = 0 is InfoNCE, bit for bit.

    Computed in float32 or better, with autocast off: 1 - s cancels in half precision. On CUDA, TF32 products
    (`torch.set_float32_matmul_precision("high")`) round s to three digits and blur shortfalls below 1e-3.

    The loss and its gradient are finite for every finite input. A negative at shortfall delta pulls along the sphere
    with about lambda * beta * sqrt(2 / delta), at most lambda * beta * sqrt(2 / eps): near-duplicates in a batch
    spike. A larger `eps` or `Gate(slope_max=...)` bounds them.

    NaN or infinity in any row makes the loss NaN; with `check_finite` it is an error that names the rows.

    Args:
        z_a: embeddings of the first view, (N, D), N >= 2, any scale, any floating-point dtype.
        z_b: embeddings of the second view, (N, D); row i is the example of row i of z_a.
        temperature: tau, > 0. Tune it: the published 0.5 was not best in our runs (runs/LOG.md).
        gate: how weight and slope are measured.
        reduction: "mean", "sum" or "none" over the 2N anchors.
        eps: floor of the shortfall, in (0, 1).
        check_finite: look for NaN and infinity first. Synchronises a GPU and breaks a compiled graph.
        implementation: "dense" holds (2N, 2N) matrices and can be differentiated twice; "tiled" forms loss and
            gradient row tile by row tile in O(N) memory; "auto" takes tiles on a CPU, where they are faster at every
            size measured, and on a GPU beyond 2N = 16,384 (a guess: not measured).

    Returns:
        WEINCEOutput, float64 for float64 input, otherwise float32.

    Raises:
        TypeError: not tensors, not floating point, or an option of the wrong type.
        ValueError: wrong shape, device or range; the message names the parameter.

    Source: arXiv:2606.00262.

    >>> z_a, z_b = torch.eye(4), torch.eye(4)
    >>> weince_loss(z_a, z_b, temperature=1.0, gate=Gate(evidence=0.0, slope=1.0)).loss
    tensor(1.1654)
    """
    check_embeddings(z_a, z_b)
    _check_settings(temperature, gate, reduction, eps, implementation)
    if check_finite:
        check_finite_rows(z_a, z_b)
    with torch.autocast(device_type=z_a.device.type, enabled=False):
        contest = two_views(z_a, z_b)
        return contest_loss(contest, temperature, gate, reduction, eps, implementation)


def contest_loss(
    contest: Candidates,
    temperature: Tensor | float,
    gate: Gate,
    reduction: Reduction,
    eps: float,
    implementation: Implementation,
    smoothing: float = 0.0,
    sample_weight: Tensor | None = None,
) -> WEINCEOutput:
    """The loss of any contest."""
    factor = contest.anchors.new_ones(len(contest.anchors)) if sample_weight is None else sample_weight
    if implementation == "tiled" or (implementation == "auto" and _tiles_pay(contest)):
        terms = Terms(_inverse(temperature, contest.anchors), eps, smoothing)
        found = tiled_loss(contest, gate, terms, factor, of_total=reduction != "none")
    else:
        found = _dense(contest, temperature, gate, eps, smoothing, factor)
    total, per_anchor, counted, weight, tail = found
    if not isinstance(weight, Tensor):
        weight = torch.full_like(per_anchor, weight, requires_grad=False)
    if reduction == "mean":
        share = (factor * counted).sum()
        total = total / torch.where(share > 0, share, 1.0)
    return WEINCEOutput(per_anchor if reduction == "none" else total, per_anchor, weight, tail)


def _tiles_pay(contest: Candidates) -> bool:
    return contest.anchors.device.type == "cpu" or contest.anchors.shape[0] > 16384


def _inverse(temperature: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(temperature, Tensor):
        return temperature.to(like.dtype).reciprocal()
    return like.new_full((), 1 / temperature)


def _dense(
    contest: Candidates, temperature: Tensor | float, gate: Gate, eps: float, smoothing: float, factor: Tensor
) -> Losses:
    similarity = contest.similarity()
    positive, negative = contest.roles()
    tail = None
    if gate.needs_fit:
        others = similarity.detach().masked_fill(~negative, float("-inf"))
        counts = None if contest.by_column else negative.sum(dim=1)
        tail = measure_tail(others, contest.negatives, counts, gate.rule, eps)
    weight, slope = mix(tail, gate)
    logits = blended_logits(similarity, weight, slope, temperature, eps)
    per_anchor = per_anchor_loss(logits, positive, negative, smoothing)
    return Losses((per_anchor * factor).sum(), per_anchor, positive.any(dim=1), weight, tail)


def _check_settings(
    temperature: float, gate: Gate, reduction: Reduction, eps: float, implementation: Implementation
) -> None:
    check_number("temperature", temperature, "finite and > 0", lambda v: v > 0)
    check_number("eps", eps, "in (0, 1)", lambda v: 0 < v < 1)
    check_option("reduction", reduction, ("mean", "sum", "none"))
    check_option("implementation", implementation, ("auto", "dense", "tiled"))
    if not isinstance(gate, Gate):
        raise TypeError(f"Parameter `gate` should be a Gate. Found {type(gate).__name__}.")


class WEINCE(nn.Module):
    """`weince_loss` as a module that returns the whole WEINCEOutput.

    The losses below hold one as `.inner`: a forward hook on it reads weights and fits as they are computed.

    Args:
        temperature, gate, reduction, eps, check_finite, implementation: as in `weince_loss`.
    """

    def __init__(
        self,
        temperature: float = 0.5,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        eps: float = 1e-6,
        check_finite: bool = False,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        _check_settings(temperature, gate, reduction, eps, implementation)
        self.temperature = temperature
        self.gate = gate
        self.reduction: Reduction = reduction
        self.eps = eps
        self.check_finite = check_finite
        self.implementation: Implementation = implementation

    def forward(self, z_a: Tensor, z_b: Tensor) -> WEINCEOutput:
        return weince_loss(
            z_a,
            z_b,
            self.temperature,
            self.gate,
            self.reduction,
            self.eps,
            check_finite=self.check_finite,
            implementation=self.implementation,
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gate={self.gate}, reduction={self.reduction!r}"


class WEINCELoss(nn.Module):
    """WEINCE of two views: `criterion(z_a, z_b)` -> scalar. See `weince_loss` for the equation and the errors.

    Args:
        temperature: tau, > 0.
        gate: how weight and slope are measured on the batch.
        reduction: "mean", "sum" or "none".
        eps: floor of the shortfall, in (0, 1).
        check_finite: refuse NaN and infinity by name; synchronises a GPU.
        implementation: "auto", "dense" or "tiled".

    Attributes:
        inner: the WEINCE module that computes the whole output; hook it to read the statistics.

    >>> criterion = WEINCELoss(temperature=0.2)
    >>> seen = []
    >>> handle = criterion.inner.register_forward_hook(lambda module, args, output: seen.append(output))
    >>> loss = criterion(torch.randn(16, 8), torch.randn(16, 8))
    >>> loss.ndim, seen[0].weight.shape
    (0, torch.Size([32]))
    """

    def __init__(
        self,
        temperature: float = 0.5,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        eps: float = 1e-6,
        check_finite: bool = False,
        implementation: Implementation = "auto",
    ) -> None:
        super().__init__()
        self.inner = WEINCE(
            temperature, gate, reduction, eps=eps, check_finite=check_finite, implementation=implementation
        )

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """Loss of embeddings z_a and z_b, (N, D) each."""
        return self.inner(z_a, z_b).loss


class InfoNCELoss(WEINCELoss):
    """InfoNCE of two views (NT-Xent): WEINCE with weight 0, by the same code.

        loss = mean over anchors of  -log softmax_{j in C(i)} (s_i. / tau) [i+]

    Args:
        temperature: tau, > 0.
        reduction: "mean", "sum" or "none".
        check_finite: refuse NaN and infinity by name; synchronises a GPU.
        implementation: "auto", "dense" or "tiled".

    Source: arXiv:1807.03748 (InfoNCE), arXiv:2002.05709 (two views).

    >>> InfoNCELoss(temperature=1.0)(torch.eye(4), torch.eye(4))
    tensor(1.1654)
    """

    def __init__(
        self,
        temperature: float = 0.5,
        reduction: Reduction = "mean",
        *,
        check_finite: bool = False,
        implementation: Implementation = "auto",
    ) -> None:
        fixed = Gate(evidence=0.0, slope=1.0)
        super().__init__(temperature, fixed, reduction, check_finite=check_finite, implementation=implementation)
