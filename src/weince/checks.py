"""Bad input, said once: every refusal names the parameter, what was expected and what was found."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real

import torch
from torch import Tensor

__all__ = [
    "check_finite_rows",
    "check_flag",
    "check_ids",
    "check_integer",
    "check_labels",
    "check_mask",
    "check_number",
    "check_option",
    "check_rows",
    "check_same",
    "check_weights",
    "is_readable",
]


def check_number(name: str, value: object, expected: str, holds: Callable[[float], bool]) -> float:
    """`value` as Python's number, if it is a finite real number for which `holds` is true. NumPy's are numbers too.

    Raises:
        TypeError: not a number.
        ValueError: not finite, or `holds` is false.

    Examples:
        >>> check_number("temperature", -1.0, "finite and > 0", lambda v: v > 0)
        Traceback (most recent call last):
        ValueError: Parameter `temperature` should be finite and > 0. Found -1.0.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Real)):
        raise TypeError(f"Parameter `{name}` should be {expected}. Found {value!r} of type {type(value).__name__}.")
    # A compiled graph may hold a float as a symbol, which is left alone.
    number: float = value if type(value) in (int, float) else float(value)  # pyright: ignore
    # Comparisons, not math.isfinite, for the same reason.
    if not (-math.inf < number < math.inf and holds(number)):
        raise ValueError(f"Parameter `{name}` should be {expected}. Found {value!r}.")
    return number


def check_integer(name: str, value: object, least: int) -> int:
    """`value` as Python's integer, if it is one and >= `least`. NumPy's are integers too.

    Raises:
        TypeError: not an integer.
        ValueError: too small.
    """
    expected = f"an integer >= {least}"
    if isinstance(value, bool) or not isinstance(value, (int, Integral)):
        raise TypeError(f"Parameter `{name}` should be {expected}. Found {value!r} of type {type(value).__name__}.")
    if value < least:
        raise ValueError(f"Parameter `{name}` should be {expected}. Found {value!r}.")
    return int(value)


def check_option(name: str, value: object, options: tuple[str, ...]) -> None:
    """Refuse `value` unless it is one of `options`.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str) or value not in options:
        expected = ", ".join(f'"{option}"' for option in options)
        raise ValueError(f"Parameter `{name}` should be one of {expected}. Found {value!r}.")


def check_flag(name: str, value: object) -> None:
    """Refuse anything but True and False.

    Raises:
        TypeError: something else, a string of a configuration file, say.
    """
    if not isinstance(value, bool):
        raise TypeError(f"Parameter `{name}` should be True or False. Found {value!r}.")


_PLAIN = {Tensor, torch.nn.Parameter, getattr(torch.nn, "Buffer", Tensor)}  # PyTorch 2.4 has no Buffer


def is_readable(value: Tensor) -> bool:
    """Whether a tensor's numbers can be looked at without waiting for a device: on a CPU, with values at all."""
    return (
        not torch.compiler.is_compiling()
        and value.device.type == "cpu"
        and type(value) in _PLAIN
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)  # pyright: ignore
    )


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


def _check_integers(name: str, value: object) -> None:
    numbers = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
    if not isinstance(value, Tensor) or not numbers or value.dtype == torch.bool:
        found = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"Parameter `{name}` should be a tensor of integers. Found {found}.")


def check_labels(name: str, labels: object, z: Tensor) -> None:
    """Refuse anything but one integer for each row of z.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: wrong shape or device.
    """
    _check_integers(name, labels)
    assert isinstance(labels, Tensor)
    if labels.shape != z.shape[:1]:
        raise ValueError(f"Parameter `{name}` should have shape ({len(z)},). Found {tuple(labels.shape)}.")
    if labels.device != z.device:
        raise ValueError(f"Parameter `{name}` should be on {z.device}. Found {labels.device}.")


def check_ids(name: str, ids: object, shape: tuple[int, ...], z: Tensor) -> None:
    """Refuse anything but integers of `shape`, or of `shape` and one more dimension: several ids for each.

    Raises:
        TypeError: not a tensor of integers.
        ValueError: wrong shape or device.
    """
    _check_integers(name, ids)
    assert isinstance(ids, Tensor)
    if ids.shape[: len(shape)] != shape or ids.ndim > len(shape) + 1:
        wide = ", ".join(map(str, shape))
        raise ValueError(f"Parameter `{name}` should have shape ({wide},) or ({wide}, C). Found {tuple(ids.shape)}.")
    if ids.device != z.device:
        raise ValueError(f"Parameter `{name}` should be on {z.device}. Found {ids.device}.")


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
    """Refuse anything but None or one floating-point number >= 0 for each row of z. Values are read on a CPU alone.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: wrong shape or device, or negative.
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
    if is_readable(weights) and not bool((weights >= 0).all()):
        raise ValueError(f"Parameter `{name}` should be >= 0. Found {float(weights.min())}.")


def check_finite_rows(**embeddings: Tensor) -> None:
    """Refuse rows that hold NaN or infinity, and say which. Synchronises a GPU.

    Raises:
        ValueError: names the parameter, how many rows and the first of them.
    """
    for name, z in embeddings.items():
        rows = torch.isfinite(z).flatten(1).all(dim=1).logical_not().nonzero().flatten().tolist()
        if rows:
            shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
            several = "row" if len(rows) == 1 else "rows"
            raise ValueError(
                f"Parameter `{name}` should be finite. Found NaN or infinity in {len(rows)} {several}: {shown}."
            )
