"""Alignment and uniformity: how near positives are, and how evenly the rows spread over the sphere.

    alignment = mean |z - z'|^2 over positive pairs,    uniformity = log mean exp(-2 |z - z'|^2) over all pairs

Both from cosine similarities, |z - z'|^2 = 2 (1 - s). Smaller is better for both.

Source: Wang & Isola 2020, arXiv:2005.10242.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["alignment", "uniformity"]

Array = NDArray[np.float64]


def alignment(similarity: Array) -> float:
    """Of positive pairs with these similarities; 0 where they coincide.

    Examples:
        >>> alignment(np.array([1.0, 0.5]))
        0.5
    """
    return float((2 * (1 - similarity)).mean())


def uniformity(similarity: Array) -> float:
    """Of pairs with these similarities, drawn at random; at least -4, 0 where all rows coincide.

    Examples:
        >>> round(uniformity(np.array([0.0, 0.0])), 4)
        -4.0
    """
    return float(np.log(np.exp(-4 * (1 - similarity)).mean()))
