"""Outcomes: what a score is the mean of, one number a test example, as short text that a database keeps."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["outcomes_of", "packed", "packed_all"]


def packed(outcomes: Sequence[float] | np.ndarray) -> str:
    """Outcomes as text, each rounded to half precision.

    Examples:
        >>> outcomes_of(packed([1.0, 0.0, 0.5])).tolist()
        [1.0, 0.0, 0.5]
    """
    return base64.b64encode(zlib.compress(np.asarray(outcomes, dtype="<f2").tobytes(), 9)).decode("ascii")


def outcomes_of(text: str) -> np.ndarray:
    """Outcomes (examples,), float64, of such a text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<f2").astype(float)


def packed_all(outcomes: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> outcomes as text."""
    return {metric: packed(values) for metric, values in outcomes.items()}
