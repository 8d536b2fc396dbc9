"""The recipe of a command line: options over a file or a named recipe, that over the preset of its data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from weince.lab.engine.recipe import Comparison
from weince.lab.settings import Settings
from weince.lab.tasks import named, recipe_class
from weince.lab.tasks.recipe.images import preset

__all__ = ["comparison", "parsed", "started_from"]

Made = TypeVar("Made", bound=Settings)


def started_from(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What the recipe at the head of a command line says, or else the preset of its data; and the words behind it."""
    if words and not words[0].startswith("-"):
        return named(words[0]), words[1:]
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--task", default="images")
    finder.add_argument("--data", default="digits")
    found = finder.parse_known_args(words)[0]
    return ({"task": "images", **preset(found.data)} if found.task == "images" else {"task": found.task}), words


def parsed(kind: type[Made], start: dict[str, Any], words: Sequence[str], prog: str) -> Made:
    """Options over settings.

    Raises:
        UserError: settings are unknown, malformed or contradictory.
        SystemExit: an option cannot be parsed, or --help.
    """
    return tyro.cli(kind, default=kind(**start), args=list(words), prog=prog)


def comparison(start: dict[str, Any]) -> type[Comparison]:
    """The class of a recipe."""
    return recipe_class(start.get("task", "images"))
