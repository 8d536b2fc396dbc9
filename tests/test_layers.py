"""Imports point one way, and the core needs torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import weince

ROOMS = {
    "formula": set(),
    "checks": set(),
    "candidates": set(),
    "settings": {"candidates", "checks"},
    "queue": {"candidates", "checks"},
    "tail": {"formula"},
    "evidence": {"tail"},
    "gate": {"checks", "evidence", "tail"},
    "tiled": {"candidates", "formula", "gate", "tail"},
    "gather": set(),
    "distributed": {"candidates", "gate", "gather", "tail"},
    "operator": {"candidates", "gate", "tail", "tiled"},
    "loss": {
        "candidates",
        "checks",
        "distributed",
        "formula",
        "gate",
        "gather",
        "operator",
        "settings",
        "tail",
        "tiled",
    },
    "modules": {"checks", "gate", "gather", "loss", "queue", "settings"},
    "released": {"candidates", "checks", "distributed", "formula", "gather", "settings", "tail"},
    "__init__": {"gate", "loss", "modules", "queue", "released", "tail"},
    "__main__": {"weince", "lab.cli"},  # the lab's door: `python -m weince`, imported by no other
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, function bodies included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found.add(node.module)
    return found


def test_imports_of_the_core_point_one_way():
    files = {path.stem: path for path in Path(weince.__file__).parent.glob("*.py")}
    assert set(files) == set(ROOMS)  # a new room says here what it may touch
    for name, path in files.items():
        found = imports(path)
        own = {module.removeprefix("weince.") for module in found if module.split(".")[0] == "weince"}
        assert own <= ROOMS[name], name
        others = {module.split(".")[0] for module in found} - {"weince"}
        # NumPy, where torch brought it, selects ten times as fast as torch does on a CPU; without it torch does.
        allowed = {"torch", "numpy"} if name == "tail" else {"torch"}
        assert others <= sys.stdlib_module_names | allowed, name


def test_tails_are_numpy_and_scipy_alone():
    for path in (Path(weince.__file__).parent / "tails").glob("*.py"):
        found = imports(path)
        own = {module for module in found if module.split(".")[0] == "weince"}
        assert all(module.startswith("weince.tails.") for module in own), path.name
        others = {module.split(".")[0] for module in found} - {"weince"} - set(sys.stdlib_module_names)
        assert others <= {"numpy", "scipy"} | ({"matplotlib"} if path.stem == "plots" else set()), path.name


ADAPTERS = {
    "lightly": "lightly",
    "lightning": "lightning",
    "metric_learning": "pytorch_metric_learning",
    "open_clip": "open_clip",
    "sentence_transformers": "sentence_transformers",
}


def test_adapters_import_the_core_and_one_library():
    folder = Path(weince.__file__).parent / "adapters"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert set(files) == set(ADAPTERS)
    for name, path in files.items():
        found = imports(path)
        own = {module for module in found if module.split(".")[0] == "weince"}
        assert not any(module.startswith("weince.lab") for module in own), name
        others = {module.split(".")[0] for module in found} - {"weince", "torch"} - set(sys.stdlib_module_names)
        assert others - {"matplotlib"} == {ADAPTERS[name]}, name


def test_importing_weince_loads_nothing_third_party_beyond_torch():
    program = """
import sys, torch
before = set(sys.modules)
import weince
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
print(*sorted(name for name in sys.modules if name.startswith("weince.lab")))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.splitlines() == ["weince", ""]
