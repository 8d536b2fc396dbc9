"""What is trained and scored, one file a task; each is found by the name that a recipe gives."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from weince.lab.engine.recipe import Comparison
from weince.lab.engine.task import Task
from weince.shell.errors import UserError

__all__ = ["NAMES", "recipe_class", "task_of"]

NAMES = {"images": "Images", "sentences": "Sentences"}
"""Task -> its class, in the module of that name; its recipe's is beside it, so that reading one imports no library."""

NEEDS = {"sentences": ("sentence_transformers", "transformers", "datasets", "accelerate")}
"""Libraries that the lab alone does not bring."""


def recipe_class(task: Any) -> type[Comparison]:
    """The class of a task's recipes.

    Raises:
        UserError: no such task.
    """
    if task not in NAMES:
        raise UserError(f"Setting `task`: should be one of {', '.join(NAMES)}. Found {task!r}.")
    return getattr(import_module(f"weince.lab.tasks.{task}_recipe"), f"{NAMES[task]}Recipe")


def task_of(recipe: Comparison) -> Task:
    """The task of a recipe; its libraries are imported here.

    Raises:
        UserError: what the task's class refuses.
        ImportError: a library of it is missing, with the command that installs it.
    """
    for library in NEEDS.get(recipe.task, ()):
        if find_spec(library) is None:
            raise ImportError(
                f"Task {recipe.task!r} needs {library}, which is not installed: pip install 'weince[text]'"
            )
    return getattr(import_module(f"weince.lab.tasks.{recipe.task}"), NAMES[recipe.task])(recipe)
