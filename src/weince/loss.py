"""The loss of any contest, down one road: validate, gather, fit, weigh, blend, reduce."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weince import dense
from weince.checks import check_finite_rows
from weince.contest import Contest
from weince.gate import Gate
from weince.options import Keywords, Options, Reduction
from weince.output import LossOutput, mean_of
from weince.precision import full_precision
from weince.processes.gather import Processes
from weince.processes.shared import gathered, mix_over_processes, total_over_processes
from weince.temperature import LearnableTemperature, Temperature, check_temperature, scale_of
from weince.tiles import operators, rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["contest_loss", "contest_output", "loss_of", "validated"]


def contest_output(contest: Contest, temperature: Temperature = 0.1, options: Options = Options()) -> LossOutput:
    """WEINCE of any contest (`weince.setups` makes them): InfoNCE that measures its hardest negatives.

        logit_ij = (1 - lambda_i) * s_ij / tau  +  lambda_i * (-beta_i * log(max(1 - s_ij, eps)))
        loss_i   = mean over P(i) of  -log softmax_{j in P(i) + N(i)} (logit_i.);     decoupled, the sum is over N(i)
        loss     = sum_i w_i loss_i / sum_i w_i,     over the anchors that have a positive

    Args:
        contest: who competes.
        temperature: tau, > 0.
        options: what every loss takes.

    Returns:
        The whole output, float64 for float64 input, otherwise float32. An anchor with fewer negatives than a fit needs
        has weight 0 and is plain InfoNCE; without any negative a single positive has loss 0. With
        `gather_distributed` each process has its own anchors in `per_anchor`, `weight`, `slope` and `tail`.

    Raises:
        TypeError: an option of the wrong type.
        ValueError: out of range; the message names the parameter.

    Source: arXiv:2606.00262.

    Examples:
        >>> from weince.setups import two_towers
        >>> contest_output(two_towers(torch.eye(4), torch.eye(4)), temperature=1.0).per_anchor
        tensor([0.7437, 0.7437, 0.7437, 0.7437])
    """
    gate, processes = options.gate, options.processes
    if contest.both_ways and processes.size > 1:
        # Those of other processes compete in both directions: two products.
        return mean_of([contest_output(each, temperature, options) for each in contest.directions()])
    scale = processes.together(lambda: _scale(contest, temperature, options))
    anchors = contest.anchors
    factor = anchors.new_ones(contest.choices)
    if contest.sample_weight is not None:
        factor = contest.sample_weight.detach().to(anchors.dtype)
    if options.matmul_precision == "torch":
        contest = contest._replace(full_products=False)
    gathers = processes.size > 1
    if gathers:
        contest = gathered(contest, processes)
    path = operators if _takes_tiles(contest, scale, options) else dense
    with full_precision(anchors.device.type):
        tail = mixture = None
        if gathers and gate.needs_fit:
            tail = path.measure(contest, gate, options.eps)
            mixture = mix_over_processes(tail, gate, processes)
        of_total = options.reduction != "none"
        terms = options.eps, options.label_smoothing, options.decoupled
        found = path.losses(contest, gate, mixture, scale, *terms, factor, of_total=of_total)
        # Where each anchor has its positive, how many there are is known without asking.
        known = contest.by_column and contest.sample_weight is None and not gathers
        share = None if known or options.reduction != "mean" else (factor * found.counted).sum()
        if gathers:
            found = found._replace(loss=total_over_processes(found.loss, share, processes))
        elif share is not None:
            found = found._replace(loss=found.loss / torch.where(share > 0, share, 1.0))
        elif options.reduction == "mean":
            found = found._replace(loss=found.loss / max(1, contest.choices))
    loss = found.loss if of_total else found.per_anchor
    if contest.both_ways and options.reduction != "mean":
        loss = (loss if of_total else loss[: len(anchors)] + loss[len(anchors) :]) / 2
    return found._replace(loss=loss, tail=found.tail if tail is None else tail)


def _scale(contest: Contest, temperature: Temperature, options: Options) -> Tensor:
    """1 / tau, and refusals that take the dtype."""
    temperature = check_temperature(temperature)
    scale = scale_of(temperature() if isinstance(temperature, LearnableTemperature) else temperature, contest.anchors)
    if options.decoupled and scale.requires_grad:
        raise ValueError(
            "Parameter `temperature` should be fixed with decoupled=True: once positives win, the loss falls without "
            "end as the temperature does. Found one that learns; give a number, or detach it."
        )
    tiny = torch.finfo(scale.dtype).tiny
    if options.eps < tiny:
        expected = f">= {tiny:.3g}, the least that {scale.dtype} holds"
        raise ValueError(f"Parameter `eps` should be {expected}. Found {options.eps!r}.")
    if options.implementation == "tiled" and not torch.compiler.is_compiling() and _is_transformed(contest, scale):
        raise RuntimeError(
            "The tiled loss has no forward-mode derivative and no torch.func transform. "
            'Give implementation="dense" or "auto".'
        )
    return scale


def _is_transformed(contest: Contest, scale: Tensor) -> bool:
    """Whether anything that may carry a derivative carries one that tiles have not."""
    leaves = [leaf for leaf in (contest.anchors, contest.candidates, contest.own, scale) if leaf is not None]
    if any(torch._C._functorch.is_functorch_wrapped_tensor(leaf) for leaf in leaves):  # pyright: ignore
        return True
    return any(torch.autograd.forward_ad.unpack_dual(leaf).tangent is not None for leaf in leaves)


def _takes_tiles(contest: Contest, scale: Tensor, options: Options) -> bool:
    if options.implementation != "auto":
        return options.implementation == "tiled"
    return _tiles_pay(contest) and (torch.compiler.is_compiling() or not _is_transformed(contest, scale))


def _tiles_pay(contest: Contest) -> bool:
    return contest.anchors.device.type == "cpu" or rows.usable(contest.anchors) or contest.columns > 16384


def validated(
    make: Callable[[], Sequence[Contest]], options: Options, **embeddings: Tensor | None
) -> Sequence[Contest]:
    """The contests of one call, or one refusal on every process that gathers.

    Args:
        make: makes them of what was given.
        options: of the loss.
        embeddings: what was given, by name, to be looked through for NaN and infinity where that is asked for.
    """

    def checked() -> Sequence[Contest]:
        contests = make()
        if options.check_finite:
            check_finite_rows(**{name: z for name, z in embeddings.items() if z is not None})
        return contests

    return options.processes.together(checked)


def loss_of(
    make: Callable[[], Contest],
    temperature: Temperature,
    gate: Gate,
    reduction: Reduction,
    keywords: Keywords,
    **embeddings: Tensor | None,
) -> Tensor:
    """The loss of a function: options are refused together too."""
    given: Any = keywords.get("gather_distributed", False) is True, keywords.get("group")
    options = Processes.of(*given).together(lambda: Options(gate, reduction, **keywords))
    (contest,) = validated(lambda: [make()], options, **embeddings)
    return contest_output(contest, temperature, options).loss


def contest_loss(
    contest: Contest,
    temperature: Temperature = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    **options: Unpack[Keywords],
) -> Tensor:
    """The loss of any contest; see `contest_output`, which is the whole of it.

    Args:
        contest: who competes.
        temperature: tau, > 0.
        gate: as in `Options`.
        reduction: as in `Options`.
        **options: the others of `Options`.

    Returns:
        Scalar, or (A,) with reduction "none".
    """
    return loss_of(lambda: contest, temperature, gate, reduction, options)
