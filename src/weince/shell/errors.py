"""The one error that a person is told: what was given, what was expected, what was found."""

from __future__ import annotations

__all__ = ["UserError"]


class UserError(Exception):
    """What was asked for cannot be carried out; the message names every setting or file that is wrong, and why."""
