"""Numbers with their noun: "1 seed", "3 seeds", "1,234 pairs"."""

from __future__ import annotations

__all__ = ["count"]


def count(n: int, one: str, many: str | None = None) -> str:
    """A number and its noun, which agree.

    Args:
        n: the number; thousands are set apart by commas.
        one: the noun of 1.
        many: the noun of any other number, where it is not `one` with an s.

    >>> count(1, "seed"), count(3, "seed"), count(1234, "pair"), count(2, "query", "queries")
    ('1 seed', '3 seeds', '1,234 pairs', '2 queries')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
