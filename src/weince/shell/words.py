"""Words that agree with their numbers."""

from __future__ import annotations

__all__ = ["count"]


def count(n: int, one: str, many: str | None = None) -> str:
    """A number and its noun.

    Examples:
        >>> count(1, "seed"), count(1234, "pair"), count(2, "loss", "losses")
        ('1 seed', '1,234 pairs', '2 losses')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
