"""Imports point one way, and the core needs torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import weince

ROOMS = {
    "checks": set(),
    "contest": {"precision"},
    "formula": set(),
    "processes.gather": set(),
    "precision": set(),
    "tail": {"checks", "formula"},
    "evidence": {"tail"},
    "gate": {"checks", "evidence", "tail"},
    "temperature": {"checks"},
    "output": {"tail"},
    "options": {"checks", "gate", "processes.gather"},
    "key_queue": {"checks", "contest", "units"},
    "processes.shared": {"contest", "gate", "processes.gather", "tail"},
    "dense": {"contest", "formula", "gate", "output", "tail"},
    "tiles.room": set(),
    "tiles.passes": {"contest", "formula", "gate", "tail"},
    "tiles.kernels.__init__": {f"tiles.kernels.{part}" for part in ("loss", "tail", "unit", "weight")},
    "tiles.kernels.roles": set(),
    **{f"tiles.kernels.{part}": {"tiles.kernels.roles"} for part in ("loss", "tail", "unit", "weight")},
    "tiles.rows": {"contest", "gate", "tail", "tiles", "tiles.passes"},  # from weince.tiles import kernels, late
    "units": {"precision", "tiles"},
    "tiles.sweep": {
        "contest",
        "formula",
        "gate",
        "output",
        "precision",
        "tail",
        "tiles",
        "tiles.passes",
        "tiles.room",
    },
    "tiles.operators": {"contest", "gate", "output", "tail", "tiles.passes", "tiles.sweep"},
    "loss": {
        "weince",  # from weince import dense
        "checks",
        "contest",
        "gate",
        "options",
        "output",
        "precision",
        "processes.gather",
        "processes.shared",
        "temperature",
        "tiles",
    },
    "setups.contest_loss": {"contest", "gate", "loss", "options", "output", "temperature"},
    "setups.given": {"checks", "contest", "units"},
    **{
        f"setups.{name}": {
            "checks",
            "contest",
            "gate",
            "key_queue",
            "loss",
            "options",
            "output",
            "setups.contest_loss",
            "setups.given",
            "temperature",
            "units",
        }
        for name in ("two_views", "two_towers", "momentum_queue", "labels", "retrieval")
    },
    "setups.__init__": {
        "gate",
        *(
            f"setups.{name}"
            for name in ("contest_loss", "given", "labels", "momentum_queue", "retrieval", "two_towers", "two_views")
        ),
    },
    "monitor": {"contest", "gate", "output", "setups"},
    "released": {"checks", "contest", "formula", "precision", "processes.gather", "processes.shared", "setups", "tail"},
    "__init__": {
        "contest",
        "gate",
        "key_queue",
        "loss",
        "options",
        "setups",
        "output",
        "released",
        "tail",
        "temperature",
    },
    "__main__": {"weince"},  # imports a command by its name
    "processes.__init__": set(),
    "tiles.__init__": set(),
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, function bodies included."""
    return modules(ast.parse(path.read_text(encoding="utf-8")))


def modules(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.add(node.module)
    return found


def test_imports_of_the_core_point_one_way():
    core = Path(weince.__file__).parent
    paths = [
        *core.glob("*.py"),
        *(path for room in ("tiles", "processes", "setups") for path in core.glob(f"{room}/**/*.py")),
    ]
    files = {".".join(path.relative_to(core).with_suffix("").parts): path for path in paths}
    assert set(files) == set(ROOMS)  # a new room says here what it may touch
    for name, path in files.items():
        found = imports(path)
        own = {module.removeprefix("weince.") for module in found if module.split(".")[0] == "weince"}
        assert own <= ROOMS[name], name
        others = {module.split(".")[0] for module in found} - {"weince"}
        # NumPy, where torch brought it, selects ten times as fast as torch does on a CPU; without it torch does.
        # Triton comes with CUDA builds of torch. Names of types alone come from typing_extensions, which torch needs.
        by_triton = name == "tiles.rows" or name.startswith("tiles.kernels")
        allowed = {"torch", "numpy" if name == "tail" else "triton" if by_triton else "typing_extensions"}
        assert others <= sys.stdlib_module_names | allowed, name


def of_package(found: set[str]) -> set[str]:
    """Rooms of the package among imported modules: the first part of each name, or what a core module is called."""
    return {module.split(".")[1] if "." in module else "" for module in found if module.split(".")[0] == "weince"}


def foreign(found: set[str]) -> set[str]:
    return {module.split(".")[0] for module in found} - {"weince"} - set(sys.stdlib_module_names)


def files_of(room: str) -> list[Path]:
    found = sorted((Path(weince.__file__).parent / room).rglob("*.py"))
    assert found
    return found


CORE = {name.split(".")[0] for name in ROOMS} - {"__init__", "__main__"}


def test_the_core_knows_no_other_room():
    others = {"adapters", "diagnosis", "extremes", "lab", "shell"}
    assert not CORE & others
    assert all(not {module.split(".")[0] for module in allowed} & others for allowed in ROOMS.values())


def test_extremes_are_numpy_and_scipy_alone():
    for path in files_of("extremes"):
        assert of_package(imports(path)) <= {"extremes"}, path.name
        drawn = {"matplotlib"} if path.stem == "plots" else set()
        assert foreign(imports(path)) <= {"numpy", "scipy"} | drawn, path.name


def test_the_shell_imports_no_other_room():
    for path in files_of("shell"):
        assert of_package(imports(path)) <= {"shell"}, path.name


def test_the_diagnosis_imports_the_core_extremes_and_shell_and_the_lab_only_where_it_is_called():
    for path in files_of("diagnosis"):
        rooms = of_package(imports(path))
        if path.stem == "command":
            top = ast.Module([node for node in ast.parse(path.read_text("utf-8")).body if is_import(node)], [])
            assert "lab" not in of_package(modules(top))
            rooms -= {"lab"}
        assert rooms <= CORE | {"diagnosis", "extremes", "shell"}, path.name


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


ADAPTERS = {
    "lightly": "lightly",
    "lightning": "lightning",
    "metric_learning": "pytorch_metric_learning",
    "open_clip": "open_clip",
    "sentence_transformers": "sentence_transformers",
    "transformers": "transformers",
}


def test_adapters_import_the_core_and_one_library():
    folder = Path(weince.__file__).parent / "adapters"
    files = {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}
    assert set(files) == set(ADAPTERS)
    for name, path in files.items():
        found = imports(path)
        own = {module for module in found if module.split(".")[0] == "weince"}
        assert not any(module.startswith("weince.lab") for module in own), name
        others = {module.split(".")[0] for module in found} - {"weince", "torch", "typing_extensions"}
        others -= set(sys.stdlib_module_names)
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
