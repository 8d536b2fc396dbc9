"""Imports inside the lab point one way, folders are small, and no name is the standard library's."""

from __future__ import annotations

import sys
from pathlib import Path

import weince
from test_layers import imports

PACKAGE = Path(weince.__file__).parent
LEAVES = {"settings", "intervals", "launch", "published"}
MAY_TOUCH = {
    "settings": set(),
    "intervals": set(),
    "launch": set(),
    "published": set(),
    "engine": LEAVES,
    "data": LEAVES,
    "rivals": set(),
    "training": LEAVES | {"data", "rivals"},
    "evaluation": LEAVES | {"data", "rivals", "training"},
    "pages": LEAVES | {"engine", "rivals"},
    "tasks": LEAVES | {"engine", "data", "rivals", "training", "evaluation", "pages"},
    "reproduction": LEAVES | {"engine", "data", "rivals", "pages", "tasks"},
    "cli": LEAVES | {"engine", "data", "rivals", "training", "evaluation", "pages", "tasks", "reproduction"},
}
"""Room -> rooms of the lab that it may import. The engine knows no task."""


def test_imports_of_the_lab_point_one_way():
    rooms = {path.relative_to(PACKAGE / "lab").parts[0].removesuffix(".py") for path in (PACKAGE / "lab").rglob("*.py")}
    assert rooms - {"__init__"} == set(MAY_TOUCH)
    for path in (PACKAGE / "lab").rglob("*.py"):
        room = path.relative_to(PACKAGE / "lab").parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        own = {name.split(".")[2] for name in imports(path) if name.startswith("weince.lab.")}
        assert own - {room} <= MAY_TOUCH[room], path


def test_folders_and_files_are_small_and_named_for_what_they_hold():
    for folder in [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]:
        files = [path for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")]
        assert len(files) <= (20 if folder == PACKAGE else 12), folder
        for path in files:
            assert path.stem not in {"utils", "common", "helpers", "base", "misc"}, path
            assert folder == PACKAGE or path.stem not in sys.stdlib_module_names, path
    for path in [*(PACKAGE / "lab").rglob("*.py"), *(PACKAGE / "diagnosis").rglob("*.py")]:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path
