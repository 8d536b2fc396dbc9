"""The commands by name. A command is imported when it is called: Lightning, kornia and the rest take seconds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

__all__ = ["run"]


def run(name: str, words: Sequence[str]) -> int:
    """Run the command of that name; returns the exit status: 0 done, 2 refused, 130 stopped."""
    return import_module(f"weince.lab.commands.{name.replace('-', '_')}").run(list(words))
