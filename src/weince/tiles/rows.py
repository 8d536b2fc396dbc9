"""The passes over a tile on a GPU: what `weince.tiles.passes` computes, by the kernels of `weince.tiles.kernels`.

Triton comes with CUDA builds of PyTorch and is imported once there are rows on such a device. Nothing here waits for
the device: sizes are those of shapes, and the temperature stays where it is.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from weince.contest import Contest
from weince.gate import Gate, Mixture
from weince.tail import TailFit, tail_size
from weince.tiles.passes import Concluded, Terms

__all__ = ["SCRATCH", "USED", "conclude", "measure", "mix", "unit_rows", "usable"]

SCRATCH = 0
"""Similarities become their gradient where they lie."""
USED: bool | None = None
"""True: on every device, as the interpreter of Triton allows; False: nowhere; None: on CUDA, where there is Triton."""
OLDEST = (3, 4)
"""Triton of PyTorch 2.8: those before have no tuples of arguments in which some are None."""
ONE_BLOCK = 16384
"""Columns up to which a row stays in the registers of one program."""
BLOCK = 2048
"""Columns that a program takes at a time, where it visits a row several times."""
SORTED = 1024
"""Tails up to which one program sorts a row; a longer one is sorted by PyTorch."""
LOGITS = 1024
"""Columns at a time where logits are formed: with twice as many, some gates and options spill registers."""
LINES = 256
"""Points of a tail at a time, in double precision."""
FITS = len(TailFit._fields) - 1


def usable(rows: Tensor) -> bool:
    """Whether the kernels serve a device and a dtype: float64 takes the readable passes."""
    if rows.dtype == torch.float64:
        return False
    return rows.device.type == "cuda" and _has_triton() if USED is None else USED


def _has_triton() -> bool:
    return _found_triton()


# Run, not traced: as in `weince.precision`.
_has_triton._dynamo_marked_constant = True  # pyright: ignore


@lru_cache(maxsize=1)
def _found_triton() -> bool:
    if find_spec("triton") is None or torch.version.hip is not None:
        return False
    import triton

    return tuple(int(number) for number in triton.__version__.split(".")[:2]) >= OLDEST


def launch(name: str, programs: int, device: torch.device, *given: Any, warps: int, **constants: Any) -> None:
    """One launch of a kernel.

    Args:
        name: of it.
        programs: one a row.
        device: where its tensors are.
        *given: its arguments.
        warps: a program.
        **constants: what it is compiled for.
    """
    from weince.tiles import kernels

    kernel = getattr(kernels, name)[(programs,)]
    constants |= compiler_options(warps)
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    with torch.cuda.device(device) if elsewhere else nullcontext():
        kernel(*given, **constants)


def compiler_options(warps: int) -> dict[str, Any]:
    """Of a launch. Products are fused into sums whatever the default of Triton's version, and 3.9 warns of none."""
    return {"num_warps": warps, "maxnreg": registers(warps), "enable_fp_fusion": True}


def registers(warps: int) -> int:
    """A thread, at most: all that a multiprocessor has. Left to itself the assembler takes fewer, and spills."""
    return min(128, 2048 // warps)


def _next_power(size: int) -> int:
    return 1 << max(4, (size - 1).bit_length())


def _warps(block: int) -> int:
    """Four values a thread: with eight, masks and gates spill registers."""
    return min(32, max(1, block // 128))


def roles_of(here: Contest) -> tuple[Any, ...]:
    """What tells positives and negatives of some anchors, as the kernels take it."""
    positive = here.positive
    only = positive.contiguous() if positive is not None and positive.ndim == 1 else None
    itself = None if here.itself is None else here.itself.contiguous()
    mask = _mask(positive) if positive is not None and positive.ndim == 2 else None
    labels = ids = None
    if here.anchor_labels is not None and here.candidate_labels is not None:
        labels = (here.anchor_labels.long().contiguous(), here.candidate_labels.long().contiguous())
    if here.anchor_ids is not None and here.candidate_ids is not None:
        count = here.anchor_ids.shape[1]
        ids = (here.anchor_ids.contiguous(), here.candidate_ids.contiguous(), count + 1)
    ignored = None if here.ignored is None else _mask(here.ignored)
    return only, itself, mask, ignored, labels, ids, len(here.candidates) - here.columns


def _mask(of: Tensor) -> tuple[Tensor, int, int]:
    return of.view(torch.int8), of.stride(0), of.stride(1)


def measure(here: Contest, similarity: Tensor, scratch: Tensor, gate: Gate, eps: float) -> TailFit:
    """`passes.measure`. The similarities stay."""
    count, columns = similarity.shape
    rule, alike = gate.rule, here.by_column
    fits = similarity.new_empty(FITS, count)
    valid = torch.empty(count, dtype=torch.bool, device=similarity.device)
    size = tail_size(here.negatives, rule.fraction, rule.minimum)
    kept, sizes, room = fits, valid, max(1, size)
    if rule.lines:
        kept, sizes = similarity.new_empty(count, room), torch.empty(count, dtype=torch.int32, device=fits.device)
    # Ids take registers of their own.
    row = _next_power(columns) if columns <= ONE_BLOCK // (1 if here.anchor_ids is None else 2) else 0
    block = max(16, min(1024, row // 4)) if row else BLOCK
    likelihood = rule.estimator == "maximum_likelihood"
    launch(
        "tails", count, similarity.device,
        similarity, similarity.stride(0), roles_of(here), columns, eps, size if alike else 0,
        fits, count, valid.view(torch.int8), kept, sizes, room,
        FRACTION=None if alike else rule.fraction, MINIMUM=max(rule.minimum, 10), LIKELIHOOD=likelihood,
        MOMENTS=rule.moments, POSITIVES=gate.needs_positives, LINES=rule.lines, ROW=row, BLOCK=block,
        warps=_warps(row // 4 if row else block),
    )  # fmt: skip
    if rule.lines:
        if room <= SORTED:
            block = _next_power(room)
            launch("sort_rows", count, similarity.device, kept, room, BLOCK=block, warps=_warps(block))
        else:
            kept = kept.sort(dim=1).values
        block = min(LINES, _next_power(room))
        launch(
            "lines", count, similarity.device, kept, sizes, room, fits, count, valid.view(torch.int8),
            SLOPE=not likelihood, BLOCK=block, warps=max(1, block // 64),
        )  # fmt: skip
    return TailFit(*fits.unbind(0), valid=valid)


def mix(tail: TailFit, gate: Gate, ways: int = 1) -> Mixture:
    """`weince.gate.mix` of `ways` batches, one after the other."""
    count = len(tail.slope) // ways
    mixed = tail.slope.new_empty(2, ways * count)
    fixed = not isinstance(gate.evidence, str)
    own_slope = gate.slope == "anchor"
    number = float(gate.evidence) if fixed else 1.0
    slope = 1.0 if isinstance(gate.slope, str) else gate.slope
    block = min(1024, _next_power(count))
    launch(
        "weights", ways, mixed.device,
        (*tail[:-1], tail.valid.view(torch.int8)), mixed, ways * count, count, round(gate.quantile * (count - 1)) + 1,
        *map(float, (gate.kappa_rho, gate.kappa_aic, gate.margin, gate.kappa_end, number, slope, gate.slope_max or 0)),
        REFERENCE=gate.needs_reference, AIC=gate.evidence in ("both", "aic"), POOL=gate.needs_pool,
        POSITIVES=gate.needs_positives, FIXED=fixed, OWN_SLOPE=own_slope, BOUNDED=gate.slope_max is not None,
        BLOCK=block, warps=_warps(block),
    )  # fmt: skip
    return Mixture(*mixed)


def conclude(
    here: Contest,
    similarity: Tensor,
    scratch: Tensor,
    mixture: Mixture,
    terms: Terms,
    factor: Tensor | None,
    of_scale: bool,
) -> Concluded:
    """`passes.conclude`."""
    count, columns = similarity.shape
    loss = similarity.new_empty(count)
    counted = torch.empty(count, dtype=torch.bool, device=similarity.device)
    derivative = similarity.new_empty(count) if of_scale and factor is not None else None
    zero = not isinstance(mixture.weight, Tensor) and mixture.weight == 0.0
    weight, slope = (loss if zero else _each(value, loss) for value in mixture)
    block = min(LOGITS, _next_power(columns))
    launch(
        "conclude", count, similarity.device,
        similarity, similarity.stride(0), roles_of(here), columns, weight, slope, terms.scale, terms.eps,
        terms.smoothing, None if factor is None else factor.contiguous(), loss, counted.view(torch.int8), derivative,
        ZERO=zero, SMOOTH=terms.smoothing > 0, DECOUPLED=terms.decoupled, BLOCK=block, warps=_warps(block),
    )  # fmt: skip
    return Concluded(loss, counted, derivative)


def _each(value: Tensor | float, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.full_like(like, value)


def unit_rows(z: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows in float32 and 1 / |z|, (N,), 0 for a zero row."""
    units, inverse = z.new_empty(z.shape, dtype=torch.float32), z.new_empty(len(z), dtype=torch.float32)
    limits = torch.finfo(torch.float32)
    block = min(1024, _next_power(z.shape[1]))
    launch(
        "unit_rows", len(z), z.device, z, z.stride(0), z.stride(1), units, inverse, z.shape[1],
        TINY_ROW=limits.tiny / limits.eps, BLOCK=block, warps=_warps(block),
    )  # fmt: skip
    return units, inverse


def of_unit_rows(gradient: Tensor, units: Tensor, inverse: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient of the rows, from that of their units."""
    out = units.new_empty(units.shape, dtype=dtype)
    block = min(1024, _next_power(units.shape[1]))
    launch(
        "of_unit_rows", len(units), units.device, gradient, gradient.stride(0), gradient.stride(1), units, inverse, out,
        units.shape[1], BLOCK=block, warps=_warps(block),
    )  # fmt: skip
    return out
