"""The sweep as one operator: what autograd and `torch.compile` see of the tiles.

To a compiler the operator is opaque: no graph break, and the same tiles inside a graph as outside. Its gradient was
formed on the way, so backward is a scaling; a gradient that reaches single losses forms it anew.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from weince.contest import Contest
from weince.gate import Gate, Mixture
from weince.output import LossOutput
from weince.tail import TailFit, stacked
from weince.tiles.passes import Terms
from weince.tiles.sweep import Gradient, measure_all, sweep

__all__ = ["losses", "measure"]

FITS, LEAVES = 2, len(Gradient._fields)
"""Tensors that hold the fits, and gradients."""
_PLACES = ("positive", "itself", "anchor_labels", "candidate_labels", "anchor_ids", "candidate_ids", "ignored")
_CONTEST = f"""Tensor anchors, Tensor? candidates, Tensor? own, Tensor scale, Tensor factor,
{", ".join(f"Tensor? {place}" for place in _PLACES)}, SymInt negatives, bool both_ways, bool full_products,
str gate, float eps, float smoothing, bool decoupled"""
_KEPT = 5 + len(_PLACES)
_REST = _KEPT + 7


@torch.no_grad()
def measure(contest: Contest, gate: Gate, eps: float) -> TailFit:
    """Fits of all anchors, where their weights take more than these."""
    anchors = contest.anchors
    arguments = _arguments(contest, gate, anchors.new_empty(()), eps, 0.0, False, anchors.new_empty(anchors.shape[0]))
    return _fits(*_tails_operator(*arguments))


def losses(
    contest: Contest,
    gate: Gate,
    mixture: Mixture | None,
    scale: Tensor,
    eps: float,
    smoothing: float,
    decoupled: bool,
    factor: Tensor,
    of_total: bool = True,
) -> LossOutput:
    """Losses of all anchors and their weighted sum, tile by tile.

    Args:
        contest: who competes.
        gate: how weight and slope are measured.
        mixture: weights and slopes, where they are known; no tail is measured then.
        scale: 1 / tau, a scalar tensor; may carry gradient.
        eps: floor of the shortfall.
        smoothing: of the labels.
        decoupled: leave the positives out of the denominator.
        factor: (A,), of the losses in the sum; no gradient.
        of_total: whether it is the sum that will be differentiated; its gradient is then formed on the way.

    Returns:
        The output, its loss the weighted sum.

    Raises:
        RuntimeError: on a second differentiation; the dense path has one.
    """
    arguments = _arguments(contest, gate, scale, eps, smoothing, decoupled, factor)
    formed = of_total and torch.is_grad_enabled()
    wanted = [formed and leaf is not None and leaf.requires_grad for leaf in arguments[:LEAVES]]
    # In eager mode the operator's own machinery would take longer than a small batch does.
    form = _tiles_operator if torch.compiler.is_compiling() else _Eager.apply
    found = form(*arguments, wanted, _stacked(mixture, factor))
    total, per_anchor, counted, mixed, numbers, valid = found[:-LEAVES]
    fits = _fits(numbers, valid) if gate.needs_fit and mixture is None else None
    weight, slope = mixed.detach().unbind()
    return LossOutput(total, per_anchor, weight, slope, fits, counted)


def _fits(numbers: Tensor, valid: Tensor) -> TailFit:
    return TailFit(*numbers.detach().unbind(), valid=valid)


def _stacked(mixture: Mixture | None, like: Tensor) -> Tensor | None:
    if mixture is None:
        return None
    return torch.stack([part if isinstance(part, Tensor) else torch.full_like(like, part) for part in mixture])


def _arguments(
    contest: Contest, gate: Gate, scale: Tensor, eps: float, smoothing: float, decoupled: bool, factor: Tensor
) -> tuple[Any, ...]:
    """What the operators take: tensors with a gradient first."""
    leaves = (contest.anchors, None if contest.shared else contest.candidates, contest.own, scale)
    places = (getattr(contest, place) for place in _PLACES)
    of_contest = (*leaves, factor, *places, contest.negatives, contest.both_ways, contest.full_products, gate.text)
    return *of_contest, eps, smoothing, decoupled


def _given(arguments: tuple[Any, ...]) -> tuple[Contest, Gate]:
    """What they stand for."""
    anchors, candidates, own = arguments[:3]
    places = dict(zip(_PLACES, arguments[5:_KEPT], strict=True))
    negatives, both_ways, full, gate = arguments[_KEPT : _KEPT + 4]
    shared = anchors if candidates is None else candidates
    contest = Contest(anchors, shared, negatives, own, **places, both_ways=both_ways, full_products=full)
    return contest, Gate.parsed(gate)


def _tiles(*arguments: Any) -> tuple[Tensor, ...]:
    contest, gate = _given(arguments)
    scale, factor = arguments[3:5]
    eps, smoothing, decoupled, wanted, mixed = arguments[_REST - 3 :]
    mixture = None if mixed is None else Mixture(*mixed)
    output, gradient = sweep(contest, gate, mixture, Terms(scale, eps, smoothing, decoupled), factor, wanted)
    # An operator does not return what it was given.
    mixed = stacked(output.weight, output.slope) if mixed is None else mixed.clone()
    found = (output.per_anchor, output.counted, mixed)
    fits = (None, None) if output.tail is None else output.tail.stacked()
    return _parts(output.loss, *found, *fits, *gradient, like=factor)


def _parts(*parts: Tensor | None, like: Tensor) -> tuple[Tensor, ...]:
    """What an operator returns: tensors alone, an empty one for what there is not."""
    return tuple(like.new_empty(0) if part is None else part for part in parts)


def _shapes(*arguments: Any) -> tuple[Tensor, ...]:
    """What `_tiles` would return, without values."""
    contest, gate = _given(arguments)
    scale, factor = arguments[3:5]
    wanted, mixed = arguments[_REST:]
    each = torch.empty_like(factor)
    numbers = each.new_empty(len(TailFit._fields) - 1, each.shape[0])
    fits = (numbers, each.bool()) if gate.needs_fit and mixed is None else (None, None)
    gradient = Gradient.zeros(contest, scale, wanted)
    mixture = each.new_empty(2, each.shape[0])
    return _parts(each.new_empty(()), each, each.bool(), mixture, *fits, *gradient, like=factor)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:_KEPT], output[3], *output[-LEAVES:])
    ctx.rest, ctx.formed = inputs[_KEPT:_REST], any(inputs[_REST])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, of_total: Tensor | None, of_each: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            'The tiled loss cannot be differentiated twice (create_graph=True). Give implementation="dense", which can.'
        )
    wanted = list(ctx.needs_input_grad[:LEAVES])
    nothing = (None,) * (len(ctx.needs_input_grad) - LEAVES)
    if of_total is None and of_each is None:
        return *(None for _ in wanted), *nothing
    saved = ctx.saved_tensors  # once: under torch.utils.checkpoint each look computes them anew
    *arguments, mixed = saved[:-LEAVES]
    gradient = saved[-LEAVES:]
    if of_each is not None or not ctx.formed:
        factor = arguments[4] * (0.0 if of_total is None else of_total)
        arguments[4] = factor if of_each is None else factor + of_each
        measured = Gate.parsed(ctx.rest[3]).needs_fit
        gradient = _tiles_operator(*arguments, *ctx.rest, wanted, mixed if measured else None)[-LEAVES:]
        of_total = None
    found = [part if want else None for part, want in zip(gradient, wanted, strict=True)]
    if of_total is not None:
        found = [None if part is None else part * of_total for part in found]
    return *found, *nothing


class _Eager(torch.autograd.Function):
    """What the operator is to autograd, without a compiler."""

    forward = staticmethod(_tiles)
    setup_context = staticmethod(_remember)
    backward = staticmethod(_backward)


def _tails(*arguments: Any) -> tuple[Tensor, ...]:
    return measure_all(*_given(arguments), arguments[_KEPT + 4]).stacked()


def _operator(name: str, function: Callable[..., tuple[Tensor, ...]], more: str, tensors: int) -> Any:
    """An operator that returns tensors, its name with a digest of its schema.

    PyTorch keeps compiled graphs on disk and knows them by the names of what they call: one that was compiled before
    the schema changed would be taken for one of this version, and read its outputs at other places.
    """
    schema = f"({_CONTEST}{more}) -> ({', '.join(['Tensor'] * tensors)})"
    digest = zlib.crc32(schema.encode())
    return torch.library.custom_op(f"weince::{name}_{digest:08x}", function, mutates_args=(), schema=schema)


_tiles_operator = _operator("tiles", _tiles, ", bool[] wanted, Tensor? mixed", 4 + FITS + LEAVES)
_tiles_operator.register_fake(_shapes)
_tiles_operator.register_autograd(_backward, setup_context=_remember)
_tails_operator = _operator("tails", _tails, "", FITS)
_tails_operator.register_fake(lambda *arguments: _shapes(*arguments, [False] * LEAVES, None)[4 : 4 + FITS])
