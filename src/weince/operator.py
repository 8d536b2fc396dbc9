"""The tiles as one operator: what autograd and `torch.compile` see of them.

To a compiler the operator is opaque: no graph break, and the same tiles inside a graph as outside. Its gradient was
formed on the way, so backward is a scaling; a gradient that reaches single losses forms it anew.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from weince.candidates import Candidates
from weince.gate import Gate, Mixture
from weince.tail import TailFit
from weince.tiled import Swept, Terms, Wanted, measure_all, sweep

__all__ = ["Losses", "tiled_loss", "tiled_tails"]

FIELDS = len(TailFit._fields)
NOTHING_WANTED = [False] * 4


class Losses(NamedTuple):
    """Of all anchors.

    Attributes:
        total: sum_i factor_i loss_i, scalar; carries gradient.
        per_anchor: loss_i, (A,); carries gradient.
        counted: bool (A,), whether an anchor has a positive.
        weight: lambda, (A,), or the gate's own number.
        tail: the fits, or None where none was made.
    """

    total: Tensor
    per_anchor: Tensor
    counted: Tensor
    weight: Tensor | float
    tail: TailFit | None


@torch.no_grad()
def tiled_tails(contest: Candidates, gate: Gate, terms: Terms) -> TailFit:
    """Fits of all anchors, tile by tile, where their weights take more than these."""
    return TailFit(*torch.ops.weince.tails(*_arguments(contest, gate, terms, torch.empty_like(terms.scale))))


def tiled_loss(
    contest: Candidates,
    gate: Gate,
    terms: Terms,
    factor: Tensor,
    of_total: bool = True,
    mixture: Mixture | None = None,
) -> Losses:
    """Losses of all anchors and their weighted sum, tile by tile.

    Args:
        contest: who competes.
        gate: how weight and slope are measured.
        terms: of the formula; `scale` may carry gradient.
        factor: (A,), of the losses in the sum; no gradient.
        of_total: whether it is the sum that will be differentiated; its gradient is then formed on the way.
        mixture: weights and slopes, (A,), where they are known; no tail is measured then.

    Raises:
        RuntimeError: on a second differentiation; the dense implementation has one.
    """
    arguments = _arguments(contest, gate, terms, factor)
    form = of_total and torch.is_grad_enabled()
    wanted = [form and leaf is not None and leaf.requires_grad for leaf in arguments[:4]]
    known = (None, None) if mixture is None else mixture
    total, per_anchor, counted, weight, _, *tail = torch.ops.weince.tiles(*arguments, wanted, *known)[: 5 + FIELDS]
    if not gate.needs_fit:
        return Losses(total, per_anchor, counted, float(gate.evidence), None)
    if mixture is not None:
        return Losses(total, per_anchor, counted, mixture.weight, None)
    return Losses(total, per_anchor, counted, weight.detach(), TailFit(*(value.detach() for value in tail)))


_CONTEST = """Tensor anchors, Tensor? candidates, Tensor? own, Tensor scale, Tensor factor, Tensor? positive,
Tensor? itself, Tensor? anchor_labels, Tensor? candidate_labels, Tensor? ignored, SymInt negatives"""
_SETTINGS = "str[] words, float[] numbers, int tail_min, float? slope_max"
_KNOWN = "Tensor? weight, Tensor? slope"


def _arguments(contest: Candidates, gate: Gate, terms: Terms, factor: Tensor) -> tuple[Any, ...]:
    """A contest and its settings as operators take them: tensors with a gradient first."""
    leaves = (contest.anchors, None if contest.shared else contest.candidates, contest.own, terms.scale)
    places = (contest.positive, contest.itself, contest.anchor_labels, contest.candidate_labels, contest.ignored)
    return *leaves, factor, *places, contest.negatives, *_pack(gate, terms)


def _pack(gate: Gate, terms: Terms) -> tuple[list[str], list[float], int, float | None]:
    """Settings as an operator takes them. A number stays one: in a compiled graph it may be a symbol."""
    words, numbers = [], []
    for value in (gate.evidence, gate.slope):
        words.append(value if isinstance(value, str) else "")
        numbers.append(0.0 if isinstance(value, str) else value)
    words.append(gate.slope_estimator)
    numbers += [gate.kappa_rho, gate.kappa_aic, gate.margin, gate.quantile, gate.tail_fraction, gate.kappa_end]
    return words, [*numbers, terms.eps, terms.smoothing], gate.tail_min, gate.slope_max


def _unpack(words: list[str], numbers: list[float], tail_min: int, slope_max: float | None) -> tuple[Gate, list[float]]:
    """The gate, and what is left of the numbers."""
    evidence, slope, estimator = words
    gate = Gate(
        *numbers[2:7],
        tail_min=tail_min,
        evidence=cast(Any, evidence or numbers[0]),
        slope=cast(Any, slope or numbers[1]),
        slope_max=slope_max,
        slope_estimator=cast(Any, estimator),
        kappa_end=numbers[7],
    )
    return gate, numbers[8:]


class _Given(NamedTuple):
    """The operator's arguments, as what they stand for."""

    contest: Candidates
    gate: Gate
    terms: Terms
    factor: Tensor
    wanted: Wanted
    mixture: Mixture | None

    @classmethod
    def of(cls, arguments: tuple[Any, ...]) -> _Given:
        anchors, candidates, own, scale, factor, *places, negatives = arguments[:11]
        gate, rest = _unpack(*arguments[11:15])
        contest = Candidates(anchors, anchors if candidates is None else candidates, negatives, own, *places)
        wanted, weight, slope = arguments[15:]
        mixture = None if weight is None or slope is None else Mixture(weight, slope)
        return cls(contest, gate, Terms(scale, *rest), factor, Wanted(*wanted), mixture)


def _tiles(*arguments: Any) -> tuple[Tensor, ...]:
    given = _Given.of(arguments)
    swept = sweep(given.contest, given.mixture or given.gate, given.terms, given.factor, given.wanted)
    if given.mixture is not None:  # an operator does not return what it was given
        swept = swept._replace(mixture=Mixture(*(part.clone() for part in arguments[16:])))
    return torch.dot(swept.losses, given.factor), *_flat(swept)


def _tails(*arguments: Any) -> tuple[Tensor, ...]:
    given = _Given.of((*arguments, NOTHING_WANTED, None, None))
    return tuple(measure_all(given.contest, given.gate, given.terms.eps))


def _flat(swept: Swept) -> tuple[Tensor, ...]:
    """An operator returns tensors alone: an empty one stands for what there is not."""
    parts = (swept.losses, swept.counted, *swept.mixture, *(swept.tail or (None,) * FIELDS), *swept.gradient)
    return tuple(part if isinstance(part, Tensor) else swept.losses.new_empty(0) for part in parts)


def _shapes(*arguments: Any) -> tuple[Tensor, ...]:
    """What `_tiles` would return, without values."""
    given = _Given.of(arguments)
    anchors, wanted, shared = given.contest.anchors, given.wanted, given.contest.shared

    def made(shape: Any, there: bool = True, dtype: torch.dtype = anchors.dtype) -> Tensor:
        return anchors.new_empty(shape if there else 0, dtype=dtype)

    weighed = given.gate.needs_fit
    fits = weighed and given.mixture is None
    each = anchors.shape[0]
    own = given.contest.own
    return (
        made(()),
        made(each),
        made(each, dtype=torch.bool),
        *(made(each, weighed) for _ in range(2)),
        *(made(each, fits) for _ in range(FIELDS - 1)),
        made(each, fits, torch.bool if fits else anchors.dtype),
        made(anchors.shape, wanted.anchors or (shared and wanted.candidates)),
        made(given.contest.candidates.shape, wanted.candidates and not shared),
        made(0 if own is None else own.shape, wanted.own),
        made((), wanted.scale),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    tensors = (value if isinstance(value, Tensor) else None for value in inputs[:10])
    ctx.save_for_backward(*tensors, output[3], output[4], *output[5 + FIELDS :])
    ctx.rest = inputs[10:15]
    ctx.formed = any(inputs[15])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, of_total: Tensor | None, of_each: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            'The tiled loss cannot be differentiated twice (create_graph=True). Give implementation="dense", which can.'
        )
    if of_total is None and of_each is None:
        return (None,) * len(ctx.needs_input_grad)
    *arguments, weight, slope, of_anchors, of_candidates, of_own, of_scale = ctx.saved_tensors
    gradient = (of_anchors, of_candidates, of_own, of_scale)
    if of_each is not None or not ctx.formed:
        factor = arguments[4] * (0.0 if of_total is None else of_total)
        factor = factor if of_each is None else factor + of_each
        wanted = list(ctx.needs_input_grad[:4])
        gradient = torch.ops.weince.tiles_gradient(
            *arguments[:4], factor, *arguments[5:], *ctx.rest, wanted, weight, slope
        )
        of_total = None
    found = [
        None if not wanted else part if of_total is None else part * of_total
        for part, wanted in zip(gradient, ctx.needs_input_grad[:4], strict=True)
    ]
    return *found, *(None,) * (len(ctx.needs_input_grad) - 4)


def _tiles_gradient(*arguments: Any) -> tuple[Tensor, ...]:
    """The gradient anew, with the weights and slopes of the first time."""
    given = _Given.of(arguments)
    mixture = given.mixture if given.gate.needs_fit and given.mixture is not None else given.gate
    return _flat(sweep(given.contest, mixture, given.terms, given.factor, given.wanted))[-4:]


_TAIL = ", ".join(["Tensor"] * FIELDS)
_TENSORS = ", ".join(["Tensor"] * (5 + FIELDS + 4))
_tiles_op = torch.library.custom_op(
    "weince::tiles",
    _tiles,
    mutates_args=(),
    schema=f"({_CONTEST}, {_SETTINGS}, bool[] wanted, {_KNOWN}) -> ({_TENSORS})",
)
_tiles_op.register_fake(_shapes)
_tiles_op.register_autograd(_backward, setup_context=_remember)
torch.library.custom_op(
    "weince::tiles_gradient",
    _tiles_gradient,
    mutates_args=(),
    schema=f"({_CONTEST}, {_SETTINGS}, bool[] wanted, {_KNOWN}) -> (Tensor, Tensor, Tensor, Tensor)",
).register_fake(lambda *arguments: _shapes(*arguments)[-4:])
torch.library.custom_op(
    "weince::tails", _tails, mutates_args=(), schema=f"({_CONTEST}, {_SETTINGS}) -> ({_TAIL})"
).register_fake(lambda *arguments: _shapes(*arguments, NOTHING_WANTED, None, None)[5 : 5 + FIELDS])
