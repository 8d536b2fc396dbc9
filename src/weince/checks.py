"""Bad input, said once: every refusal names the parameter, what was expected and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = [
    "check_embeddings",
    "check_finite_rows",
    "check_labels",
    "check_mask",
    "check_number",
    "check_option",
    "check_rows",
    "check_same",
    "check_temperature",
    "check_weights",
]


def check_number(name: str, value: object, expected: str, holds: Callable[[float], bool]) -> None:
    """Refuse `value` unless it is a finite real number for which `holds` is true.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or `holds` is false.

    Examples:
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


def check_rows(name: str, z: object, like: Tensor | None = None, least: int = 1) -> None:
    """Refuse anything but a floating-point (N, D) tensor, D >= 1, N >= `least`, with the width and device of `like`.

    Reads shapes and types alone, never values, so a GPU is not synchronised.

    Raises:
        TypeError: not a tensor, or not of a real floating-point dtype.
        ValueError: wrong rank, shape or device.
    """
    if not isinstance(z, Tensor):
        raise TypeError(f"Parameter `{name}` should be a tensor of shape (N, D). Found {type(z).__name__}.")
    if not z.is_floating_point():
        raise TypeError(f"Parameter `{name}` should have a floating-point dtype. Found {z.dtype}.")
    if z.ndim != 2:
        raise ValueError(f"Parameter `{name}` should have shape (N, D). Found {tuple(z.shape)}.")
    if z.shape[0] < least:
        raise ValueError(f"Parameter `{name}` should have N >= {least} rows. Found {z.shape[0]}.")
    if z.shape[1] < 1:
        raise ValueError(f"Parameter `{name}` should have D >= 1 columns. Found {tuple(z.shape)}.")
    if like is not None and z.shape[1] != like.shape[1]:
        raise ValueError(f"Parameter `{name}` should have D = {like.shape[1]} columns. Found {tuple(z.shape)}.")
    if like is not None and z.device != like.device:
        raise ValueError(f"Parameter `{name}` should be on {like.device}. Found {z.device}.")


def check_same(name: str, z: object, of: str, like: Tensor) -> None:
    """Refuse anything but a floating-point tensor of the shape and device of `like`, whose row i is its partner's.

    Raises:
        TypeError, ValueError: as `check_rows`, and where shapes differ.
    """
    check_rows(name, z, least=0)
    assert isinstance(z, Tensor)
    if z.shape != like.shape:
        raise ValueError(
            f"Parameter `{name}` should have the shape of `{of}`: row i of both is one example. "
            f"Found {of} {tuple(like.shape)} and {name} {tuple(z.shape)}."
        )
    if z.device != like.device:
        raise ValueError(f"Parameter `{name}` should be on the device of `{of}`, {like.device}. Found {z.device}.")


def check_embeddings(z_a: Tensor, z_b: Tensor) -> None:
    """Refuse anything but two floating-point (N, D) tensors of one shape on one device, N >= 2, D >= 1.

    Raises:
        TypeError: not a tensor, or not of a real floating-point dtype.
        ValueError: wrong rank, shape or device.
    """
    check_rows("z_a", z_a, least=0)
    check_same("z_b", z_b, "z_a", z_a)
    if z_a.shape[0] < 2:
        raise ValueError(f"Parameter `z_a` should have N >= 2 rows, or no anchor has a negative. Found {z_a.shape[0]}.")


def check_labels(name: str, labels: object, z: Tensor) -> None:
    """Refuse anything but one integer for each row of z.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: wrong shape or device.
    """
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        found = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"Parameter `{name}` should be a tensor of integers. Found {found}.")
    if labels.shape != z.shape[:1]:
        raise ValueError(f"Parameter `{name}` should have shape ({len(z)},). Found {tuple(labels.shape)}.")
    if labels.device != z.device:
        raise ValueError(f"Parameter `{name}` should be on {z.device}. Found {labels.device}.")


def check_mask(name: str, mask: object, shape: tuple[int, int], like: Tensor) -> None:
    """Refuse anything but None or a bool mask of `shape`.

    Raises:
        TypeError: not a tensor of booleans.
        ValueError: wrong shape or device.
    """
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"Parameter `{name}` should be a bool tensor. Found {found}.")
    if mask.shape != shape:
        raise ValueError(f"Parameter `{name}` should have shape {shape}. Found {tuple(mask.shape)}.")
    if mask.device != like.device:
        raise ValueError(f"Parameter `{name}` should be on {like.device}. Found {mask.device}.")


def check_weights(name: str, weights: object, z: Tensor) -> None:
    """Refuse anything but None or one floating-point number for each row of z. Values are not read: give no negative.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong shape or device.
    """
    if weights is None:
        return
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        found = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise TypeError(f"Parameter `{name}` should be a floating-point tensor. Found {found}.")
    if weights.shape != z.shape[:1]:
        raise ValueError(f"Parameter `{name}` should have shape ({len(z)},). Found {tuple(weights.shape)}.")
    if weights.device != z.device:
        raise ValueError(f"Parameter `{name}` should be on {z.device}. Found {weights.device}.")


def check_temperature(temperature: object) -> None:
    """Refuse anything but a finite number > 0, or a floating-point tensor with one element, whose value is not read.

    Raises:
        TypeError: not a number, nor such a tensor.
        ValueError: not finite, not > 0, or more than one element.
    """
    if not isinstance(temperature, Tensor):
        check_number("temperature", temperature, "finite and > 0", lambda v: v > 0)
    elif not temperature.is_floating_point():
        raise TypeError(f"Parameter `temperature` should have a floating-point dtype. Found {temperature.dtype}.")
    elif temperature.numel() != 1:
        raise ValueError(f"Parameter `temperature` should be one number. Found shape {tuple(temperature.shape)}.")


def check_finite_rows(**embeddings: Tensor) -> None:
    """Refuse rows that hold NaN or infinity, and say which. Synchronises a GPU.

    Raises:
        ValueError: names the parameter, how many rows and the first of them.
    """
    for name, z in embeddings.items():
        rows = torch.isfinite(z).flatten(1).all(dim=1).logical_not().nonzero().flatten().tolist()
        if rows:
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            raise ValueError(
                f"Parameter `{name}` should be finite. Found NaN or infinity in {len(rows)} rows: {shown}."
            )
