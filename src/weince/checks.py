"""Bad input, said once: every refusal names the parameter, what was expected and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["check_embeddings", "check_finite_rows", "check_number", "check_option"]


def check_number(name: str, value: object, expected: str, holds: Callable[[float], bool]) -> None:
    """Refuse `value` unless it is a finite real number for which `holds` is true.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or `holds` is false.

    >>> check_number("temperature", -1.0, "finite and > 0", lambda v: v > 0)
    Traceback (most recent call last):
    ValueError: Parameter `temperature` should be finite and > 0. Found -1.0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"Parameter `{name}` should be {expected}. Found {value!r} of type {type(value).__name__}.")
    # Comparisons, not math.isfinite: a compiled graph may hold the number as a symbol.
    if not (-math.inf < value < math.inf and holds(value)):
        raise ValueError(f"Parameter `{name}` should be {expected}. Found {value!r}.")


def check_option(name: str, value: object, options: tuple[str, ...]) -> None:
    """Refuse `value` unless it is one of `options`.

    Raises:
        ValueError: it is not.
    """
    if value not in options:
        expected = ", ".join(f'"{option}"' for option in options)
        raise ValueError(f"Parameter `{name}` should be one of {expected}. Found {value!r}.")


def check_embeddings(z_a: Tensor, z_b: Tensor) -> None:
    """Refuse anything but two floating-point (N, D) tensors of one shape on one device, N >= 2, D >= 1.

    Reads shapes and types alone, never values, so a GPU is not synchronised.

    Raises:
        TypeError: not a tensor, or not of a real floating-point dtype.
        ValueError: wrong rank, shape or device.
    """
    for name, z in (("z_a", z_a), ("z_b", z_b)):
        if not isinstance(z, Tensor):
            raise TypeError(f"Parameter `{name}` should be a tensor of shape (N, D). Found {type(z).__name__}.")
        if not z.is_floating_point():
            raise TypeError(f"Parameter `{name}` should have a floating-point dtype. Found {z.dtype}.")
        if z.ndim != 2:
            raise ValueError(f"Parameter `{name}` should have shape (N, D). Found {tuple(z.shape)}.")
    if z_a.shape != z_b.shape:
        raise ValueError(
            "Parameter `z_b` should have the shape of `z_a`: row i of both is one example. "
            f"Found z_a {tuple(z_a.shape)} and z_b {tuple(z_b.shape)}."
        )
    if z_a.shape[0] < 2:
        raise ValueError(f"Parameter `z_a` should have N >= 2 rows, or no anchor has a negative. Found {z_a.shape[0]}.")
    if z_a.shape[1] < 1:
        raise ValueError(f"Parameter `z_a` should have D >= 1 columns. Found {tuple(z_a.shape)}.")
    if z_a.device != z_b.device:
        raise ValueError(f"Parameter `z_b` should be on the device of `z_a`, {z_a.device}. Found {z_b.device}.")


def check_finite_rows(z_a: Tensor, z_b: Tensor) -> None:
    """Refuse rows that hold NaN or infinity, and say which. Synchronises a GPU.

    Raises:
        ValueError: names the parameter, how many rows and the first of them.
    """
    for name, z in (("z_a", z_a), ("z_b", z_b)):
        rows = torch.isfinite(z).all(dim=1).logical_not().nonzero().flatten().tolist()
        if rows:
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            raise ValueError(
                f"Parameter `{name}` should be finite. Found NaN or infinity in {len(rows)} rows: {shown}."
            )
