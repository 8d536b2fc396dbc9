"""The loss of any contest, as a pure function and as the module that every loss holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from weince.candidates import Candidates
from weince.checks import check_finite_rows, check_number, check_option, check_temperature, check_weights
from weince.distributed import gathered, mix_over_processes, total_over_processes
from weince.formula import blended_logits, per_anchor_loss
from weince.gate import Gate, Mixture, mix
from weince.gather import world_size
from weince.operator import Losses, tiled_loss, tiled_tails
from weince.settings import explicit_negatives, two_views
from weince.tail import TailFit, is_transformed, measure_tail
from weince.tiled import Terms

__all__ = [
    "ContestLoss",
    "Implementation",
    "Reduction",
    "WEINCEOutput",
    "contest_loss",
    "query_key_loss",
    "weince_loss",
]

Reduction = Literal["mean", "sum", "none"]
Implementation = Literal["auto", "dense", "tiled"]


class WEINCEOutput(NamedTuple):
    """What the loss is made of.

    Attributes:
        loss: scalar, or (A,) with reduction "none"; carries gradient.
        per_anchor: (A,), in the order of the setting's anchors, in nats; carries gradient.
        weight: lambda, (A,); no gradient.
        tail: the fits, or None where weight and slope are fixed numbers and no fit is made.
        counted: bool (A,), whether the anchor has a positive. One without has loss 0 and is left out of the mean.
    """

    loss: Tensor
    per_anchor: Tensor
    weight: Tensor
    tail: TailFit | None
    counted: Tensor

    @property
    def skipped(self) -> Tensor:
        """How many anchors have no positive, scalar."""
        return (~self.counted).sum()


def contest_loss(
    contest: Candidates,
    temperature: Tensor | float = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    eps: float = 1e-6,
    *,
    sample_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    implementation: Implementation = "auto",
    gather_distributed: bool = False,
) -> WEINCEOutput:
    """WEINCE of any contest (`weince.settings` makes them): InfoNCE that measures its hardest negatives.

        logit_ij = (1 - lambda_i) * s_ij / tau  +  lambda_i * (-beta_i * log(max(1 - s_ij, eps)))
        loss_i   = mean over P(i) of  -log softmax_{j in P(i) + N(i)} (logit_i.)
        loss     = sum_i w_i loss_i / sum_i w_i,     over the anchors that have a positive

    Args:
        contest: who competes.
        temperature: tau, > 0: a number, or a tensor with one element that may carry gradient.
        gate: how weight and slope are measured.
        reduction: "mean", "sum" (of w_i loss_i) or "none" (loss_i, without weights) over the anchors.
        eps: floor of the shortfall, in (0, 1).
        sample_weight: w, (A,), >= 0, without gradient; 1 for all where it is None.
        label_smoothing: share of the target that is spread over all candidates, in [0, 1), as in
            `torch.nn.functional.cross_entropy`.
        implementation: "dense" holds (A, M) matrices, can be differentiated twice and transformed by `torch.func`, for
            which "auto" takes it; "tiled" forms loss and gradient
            row tile by row tile in O(A + M) memory; "auto" takes tiles on a CPU, where they are faster at every size
            measured, and on a GPU beyond M = 16,384 (a guess: not measured).
        gather_distributed: take the candidates and the statistics of all processes of the default group. The value is
            that of one process with the concatenated batch, and so is the gradient, once gradients are averaged over
            processes as DistributedDataParallel does (`weince.distributed`). Each process has its own anchors in
            `per_anchor`, `weight` and `tail`.

    Returns:
        WEINCEOutput, float64 for float64 input, otherwise float32. An anchor with fewer negatives than a fit needs has
        weight 0 and is plain InfoNCE; without any negative a single positive has loss 0.

    Raises:
        TypeError: an option of the wrong type.
        ValueError: out of range; the message names the parameter.

    Source: arXiv:2606.00262.

    Examples:
        >>> from weince.settings import two_towers
        >>> contest_loss(two_towers(torch.eye(4), torch.eye(4)), temperature=1.0).per_anchor
        tensor([0.7437, 0.7437, 0.7437, 0.7437])
    """
    _check_options(temperature, gate, reduction, eps, label_smoothing, implementation)
    check_weights("sample_weight", sample_weight, contest.anchors)
    gather_distributed = gather_distributed and world_size() > 1
    if gather_distributed:
        contest = gathered(contest)
    with torch.autocast(device_type=contest.anchors.device.type, enabled=False):
        anchors = contest.anchors
        factor = anchors.new_ones(len(anchors)) if sample_weight is None else sample_weight.detach().to(anchors.dtype)
        if isinstance(temperature, Tensor):
            temperature = temperature.to(anchors.dtype).reshape(())
        transformed = not torch.compiler.is_compiling() and is_transformed(anchors)
        if implementation == "tiled" and transformed:
            raise RuntimeError(
                "The tiled loss has no forward-mode derivative and no torch.func transform. "
                'Give implementation="dense" or "auto".'
            )
        if implementation == "tiled" or (implementation == "auto" and _tiles_pay(contest) and not transformed):
            scale = 1 / temperature
            scale = scale if isinstance(scale, Tensor) else anchors.new_full((), scale)
            terms = Terms(scale, eps, label_smoothing)
            mixture = tail = None
            if gather_distributed and gate.needs_fit:
                tail = tiled_tails(contest, gate, terms)
                mixture = mix_over_processes(tail, gate)
                mixture = Mixture(*(_each(part, anchors) for part in mixture))
            found = tiled_loss(contest, gate, terms, factor, reduction != "none", mixture)
            found = found if tail is None else found._replace(tail=tail)
        else:
            weigh = mix_over_processes if gather_distributed else mix
            found = _dense(contest, temperature, gate, eps, label_smoothing, factor, weigh)
        total, per_anchor, counted, weight, tail = found
        weight = _each(weight, per_anchor.detach())
        share = (factor * counted).sum() if reduction == "mean" else None
        if gather_distributed:
            total = total_over_processes(total, share)
        elif share is not None:
            total = total / torch.where(share > 0, share, 1.0)
        return WEINCEOutput(per_anchor if reduction == "none" else total, per_anchor, weight, tail, counted)


def _each(value: Tensor | float, anchors: Tensor) -> Tensor:
    """One number for every anchor."""
    return value if isinstance(value, Tensor) else anchors.new_full(anchors.shape[:1], value)


def _tiles_pay(contest: Candidates) -> bool:
    return contest.anchors.device.type == "cpu" or contest.columns > 16384


def _dense(
    contest: Candidates,
    temperature: Tensor | float,
    gate: Gate,
    eps: float,
    smoothing: float,
    factor: Tensor,
    weigh: Callable[[TailFit | None, Gate], Mixture],
) -> Losses:
    similarity = contest.similarity()
    positive, negative = contest.roles()
    tail = None
    if gate.needs_fit:
        others = similarity.detach().masked_fill(~negative, float("-inf"))
        counts = None if contest.by_column else negative.sum(dim=1)
        tail = measure_tail(others, contest.negatives, counts, gate.rule, eps)
    weight, slope = weigh(tail, gate)
    logits = blended_logits(similarity, weight, slope, temperature, eps)
    per_anchor = per_anchor_loss(logits, positive, negative, smoothing)
    return Losses((per_anchor * factor).sum(), per_anchor, positive.any(dim=1), weight, tail)


def weince_loss(
    z_a: Tensor,
    z_b: Tensor,
    temperature: Tensor | float = 0.5,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    eps: float = 1e-6,
    *,
    check_finite: bool = False,
    implementation: Implementation = "auto",
    gather_distributed: bool = False,
) -> WEINCEOutput:
    """WEINCE of two views, the SimCLR setting; `contest_loss` is the same of any other.

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
        gate, reduction, eps, implementation, gather_distributed: as in `contest_loss`, over the 2N anchors.
        check_finite: look for NaN and infinity first. Synchronises a GPU and breaks a compiled graph.

    Returns:
        WEINCEOutput over 2N anchors, all of view a, then all of view b.

    Raises:
        TypeError: not tensors, not floating point, or an option of the wrong type.
        ValueError: wrong shape, device or range; the message names the parameter.

    Source: arXiv:2606.00262.

    Examples:
        >>> z_a, z_b = torch.eye(4), torch.eye(4)
        >>> weince_loss(z_a, z_b, temperature=1.0, gate=Gate(evidence=0.0, slope=1.0)).loss
        tensor(1.1654)
    """
    contest = two_views(z_a, z_b)
    if check_finite:
        check_finite_rows(z_a=z_a, z_b=z_b)
    return contest_loss(
        contest,
        temperature,
        gate,
        reduction,
        eps,
        implementation=implementation,
        gather_distributed=gather_distributed,
    )


def query_key_loss(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: Tensor | float = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    *,
    implementation: Implementation = "auto",
) -> Tensor:
    """For your own loop: queries, their positive keys and negative keys -> loss.

    Args:
        query: embeddings, (N, D).
        positive_key: (N, D).
        negative_keys: (M, D), the same for all queries; (N, H, D), each query's own; or None: the other rows' positive
            keys.
        temperature, gate, reduction, implementation: as in `contest_loss`.

    Returns:
        Scalar, or (N,) with reduction "none".

    Examples:
        >>> query_key_loss(torch.randn(4, 8), torch.randn(4, 8), torch.randn(16, 8)).ndim
        0
    """
    contest = explicit_negatives(query, positive_key, negative_keys, in_batch=negative_keys is None)
    return contest_loss(contest, temperature, gate, reduction, implementation=implementation).loss


def _check_options(
    temperature: object,
    gate: object,
    reduction: object,
    eps: object,
    label_smoothing: object,
    implementation: object,
) -> None:
    check_temperature(temperature)
    check_number("eps", eps, "in (0, 1)", lambda v: 0 < v < 1)
    check_number("label_smoothing", label_smoothing, "in [0, 1)", lambda v: 0 <= v < 1)
    check_option("reduction", reduction, ("mean", "sum", "none"))
    check_option("implementation", implementation, ("auto", "dense", "tiled"))
    if not isinstance(gate, Gate):
        raise TypeError(f"Parameter `gate` should be a Gate. Found {type(gate).__name__}.")


class ContestLoss(nn.Module):
    """`contest_loss` as a module. Every loss holds one as `.inner`: a forward hook on it sees contest and output.

    Args:
        temperature, gate, reduction, eps, label_smoothing, implementation, gather_distributed: as in `contest_loss`.
    """

    temperature: Tensor | float

    def __init__(
        self,
        temperature: Tensor | float = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        eps: float = 1e-6,
        label_smoothing: float = 0.0,
        implementation: Implementation = "auto",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        _check_options(temperature, gate, reduction, eps, label_smoothing, implementation)
        if isinstance(temperature, Tensor) and not isinstance(temperature, nn.Parameter):
            self.register_buffer("temperature", temperature)  # moves and is saved with the module
        else:
            self.temperature = temperature
        self.gate = gate
        self.reduction: Reduction = reduction
        self.eps = eps
        self.label_smoothing = label_smoothing
        self.implementation: Implementation = implementation
        self.gather_distributed = gather_distributed

    def forward(
        self, contest: Candidates, temperature: Tensor | None = None, sample_weight: Tensor | None = None
    ) -> WEINCEOutput:
        """The output of a contest; a temperature given here takes the place of the module's own."""
        return contest_loss(
            contest,
            self.temperature if temperature is None else temperature,
            self.gate,
            self.reduction,
            self.eps,
            sample_weight=sample_weight,
            label_smoothing=self.label_smoothing,
            implementation=self.implementation,
            gather_distributed=self.gather_distributed,
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, gate={self.gate}, reduction={self.reduction!r}"
