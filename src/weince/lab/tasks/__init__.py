"""What is trained and scored, one file a task; each is found by the name that a recipe gives."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from weince.lab.engine.recipe import Comparison
from weince.lab.engine.task import Task
from weince.lab.settings import read
from weince.shell.errors import UserError

__all__ = ["NAMES", "named", "recipe_class", "recipes", "task_of"]

NAMES = {"images": "Images", "sentences": "Sentences", "texts": "Texts", "pairs": "Pairs", "features": "Features"}
"""Task -> its class, in the module of that name; its recipe's is in `recipe`, as that of no library is imported."""

TEXT = ("sentence_transformers", "transformers", "datasets", "accelerate")
NEEDS = {"sentences": TEXT, "texts": TEXT, "pairs": TEXT}
"""Libraries that the lab alone does not bring."""


def recipes() -> dict[str, Path]:
    """The recipes that the package carries, by name."""
    folder = Path(str(files("weince").joinpath("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def named(recipe: str) -> dict[str, Any]:
    """Settings of a recipe, a file or one that the package carries.

    Raises:
        UserError: neither, or not TOML.
    """
    carried = recipes()
    if recipe in carried:
        return {"name": recipe, **read(carried[recipe])}
    if not Path(recipe).is_file() and "/" not in recipe and not recipe.endswith(".toml"):
        raise UserError(f"Recipe {recipe!r} is no file, and none of those that `weince recipes` lists.")
    return {"name": Path(recipe).stem, **read(Path(recipe))}


def recipe_class(task: Any) -> type[Comparison]:
    """The class of a task's recipes.

    Raises:
        UserError: no such task.
    """
    if task not in NAMES:
        raise UserError(f"Setting `task`: should be one of {', '.join(NAMES)}. Found {task!r}.")
    return getattr(import_module(f"weince.lab.tasks.recipe.{task}"), f"{NAMES[task]}Recipe")


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
