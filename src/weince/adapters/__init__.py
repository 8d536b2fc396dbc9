"""Adapters: the same loss with the signature and the habits of another library, one file each.

Each needs its library alone; none is imported by `weince` itself. All hold a `ContestLoss` as `.inner`, whose forward
hooks see every statistic.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

__all__ = ["needs"]


@contextmanager
def needs(distribution: str, tested: str) -> Iterator[None]:
    """Around the imports of an adapter: a missing library is named with its install command, an untested one warned of.

    Args:
        distribution: name on the package index.
        tested: beginning of the versions tested, as "1.6".
    """
    try:
        yield
    except ImportError as error:
        command = f"pip install '{distribution}~={tested}.0'"
        raise ImportError(
            f"This adapter needs {distribution}, which cannot be imported ({error}). {command}"
        ) from error
    found = version(distribution)
    if not f"{found}.".startswith(f"{tested}."):
        warnings.warn(f"weince is tested with {distribution} {tested}. Found {found}.", stacklevel=3)
