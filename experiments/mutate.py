"""What the tests would not see: small faults put into the core one by one, and whether a test notices.

    python experiments/mutate.py --count 300 --seed 0 [--only tail gate] [--worker 0/2]
    python experiments/mutate.py --again experiments/mutations.csv      # those that survived

A fault is one change of one place: a comparison, an operator, a number, a condition, a call that is left out
(`clamp_min`, `detach`, ...), an argument by name that is not passed. The tests of the core run on a copy with the
fault, until one fails. Rows go to `experiments/mutations.csv`: place, change, and the test that noticed, or "survived".
"""

from __future__ import annotations

import argparse
import ast
import copy
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "src" / "weince"
MODULES = (
    "checks", "contest", "dense", "evidence", "formula", "gate", "key_queue", "loss", "options", "output", "precision",
    "released", "tail", "temperature", "setups/contest_loss", "setups/given", "setups/labels", "setups/momentum_queue",
    "setups/retrieval", "setups/two_towers", "setups/two_views", "tiles/sweep", "tiles/operators", "processes/gather",
    "processes/shared",
)  # fmt: skip
# Those likeliest to notice come first.
TESTS = (
    "noticed", "formula", "contest", "gate", "temperature", "checks", "queue", "ids", "modules", "evidence", "tail",
    "setups", "loss", "transforms", "golden", "released", "near_duplicates", "half_precision", "tiled", "properties",
)  # fmt: skip
ALSO = {"key_queue": "queue", "momentum_queue": "queue", "sweep": "tiled", "given": "ids", "contest_loss": "modules",
        "two_views": "setups", "two_towers": "setups", "labels": "setups", "retrieval": "setups"}  # fmt: skip
"""Module -> the test that is likeliest to notice, where it has another name."""
# Of these a part shows between processes alone.
ACROSS = ("key_queue", "loss", "options", "released", "setups/contest_loss", "setups/momentum_queue")
LEFT_OUT = ("memory_does_not_grow",)  # runs in a process of its own, which has no fault
DROPPED = {"clamp_min", "clamp_max", "clamp", "clamp_min_", "clone", "detach", "abs"}
COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.Pow: ast.Mult,
}  # fmt: skip


class Mutation(NamedTuple):
    """One fault: `number`-th of its module, where, and what."""

    module: str
    number: int
    line: int
    change: str


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Faults of one node: how it reads, and the node in its place."""

    def read(before: ast.AST, after: ast.AST) -> str:
        return f"{ast.unparse(before)}  ->  {ast.unparse(after)}"

    named = isinstance(node, ast.BinOp) and isinstance(node.left, ast.Constant | ast.JoinedStr)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        other = ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
        yield read(node, other), other
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not named:
        other = ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        yield read(node, other), other
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        other = ast.Constant(node.value + 1 if type(node.value) is int else node.value * 2 or 1.0)
        yield read(node, other), other
    elif isinstance(node, ast.BoolOp):
        other = ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield read(node, other), other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert, ast.USub)):
        yield read(node, node.operand), node.operand
    elif isinstance(node, ast.IfExp):
        for chosen in (node.body, node.orelse):
            yield read(node, chosen), chosen
    elif isinstance(node, ast.If) and not _for_types_alone(node.test):
        for value in (True, False):
            other = copy.copy(node)
            other.test = ast.Constant(value)
            yield f"if {ast.unparse(node.test)}  ->  if {value}", other
    elif isinstance(node, ast.With):
        yield f"with {ast.unparse(node.items[0])}  ->  without", ast.If(ast.Constant(True), node.body, [])
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in DROPPED:
            yield read(node, node.func.value), node.func.value
        for place, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "dim", "keepdim", "strict", "dtype", "device", "schema", "mutates_args"):
                other = ast.Call(node.func, node.args, node.keywords[:place] + node.keywords[place + 1 :])
                yield read(node, other), other


def _for_types_alone(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Every node that may be changed, with where it hangs; annotations, decorators and docstrings left alone."""
    for parent in ast.walk(tree):
        if isinstance(parent, (ast.Raise, ast.JoinedStr, ast.arg)):
            continue
        for name, value in ast.iter_fields(parent):
            if name in ("annotation", "returns", "decorator_list", "keywords") and not isinstance(parent, ast.Call):
                continue
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(node, ast.AST):
                    yield parent, name, index, node


def inside_refusals(tree: ast.AST) -> set[int]:
    """Nodes of messages and of type-checking blocks, whose wording is no arithmetic."""
    found: set[int] = set()
    for node in ast.walk(tree):
        silent = isinstance(node, (ast.Raise, ast.JoinedStr, ast.Assert)) or (
            isinstance(node, ast.If) and _for_types_alone(node.test)
        )
        if silent or (isinstance(node, ast.FunctionDef) and node.name in ("extra_repr", "told")):
            found |= {id(part) for part in ast.walk(node)}
    return found


def mutants(module: str) -> Iterator[tuple[Mutation, str]]:
    """Every fault of a module, and its whole text with it."""
    tree = ast.parse((CORE / f"{module}.py").read_text())
    silent, number = inside_refusals(tree), 0
    for parent, name, index, node in list(places(tree)):
        if id(node) in silent:
            continue
        for change, other in changes(node):
            holder = getattr(parent, name)
            if index is None:
                setattr(parent, name, other)
            else:
                holder[index] = other
            text = ast.unparse(ast.fix_missing_locations(tree))
            setattr(parent, name, node) if index is None else holder.__setitem__(index, node)
            yield Mutation(module, number, getattr(node, "lineno", 0), " ".join(change.split())[:160]), text
            number += 1


def noticed(module: str, text: str, log: Path) -> str:
    """The test that fails with this fault, or "survived"."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "weince"
        shutil.copytree(
            CORE,
            package,
            ignore=shutil.ignore_patterns("lab", "extremes", "diagnosis", "shell", "recipes", "__pycache__"),
        )
        (package / f"{module}.py").write_text(text)
        if module.startswith("processes"):
            return _by_processes(folder)
        child = os.fork()
        if child == 0:
            _run(folder, module, log)
        started = time.monotonic()
        while time.monotonic() - started < 300:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                failed = [line for line in log.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
                if not status and module in ACROSS:
                    return _by_processes(folder)
                return (failed or ["a crash"])[0].split(" - ")[0].split("[")[0] if status else "survived"
            time.sleep(0.05)
        os.kill(child, 9)
        os.waitpid(child, 0)
        return "it hangs"


def _run(folder: str, module: str, log: Path) -> None:
    """In a child that has PyTorch already: the tests, on the copy."""
    import pytest

    sys.path.insert(0, folder)
    sys.path.insert(0, str(ROOT / "tests"))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    own = module.rpartition("/")[2]
    order = sorted(TESTS, key=lambda name: name not in (own, ALSO.get(own)))
    files = [f"tests/test_{name}.py" for name in order]
    deselected = " and ".join(f"not {name}" for name in LEFT_OUT)
    options = [
        "-x",
        "-q",
        "--no-header",
        "--tb=no",
        "-rfE",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-k",
        deselected,
    ]
    os._exit(int(pytest.main([*options, *files])))


def _by_processes(folder: str) -> str:
    """Faults between processes show between processes alone."""
    script = ROOT / "tests" / "distributed" / "same_as_one.py"
    for count, parts in (
        (2, ("one_row_each", "statistics", "refused", "companion", "every_setting")),
        (4, ("groups",)),
    ):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        try:
            ran = subprocess.run(
                [*launch, str(script), *parts], env=environment, capture_output=True, timeout=150, check=False
            )
        except subprocess.TimeoutExpired:
            return f"it hangs, {count} processes"
        if ran.returncode:
            return f"{count} processes: {', '.join(parts)}"
    return "survived"


def main() -> None:
    """Draw, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="faults drawn; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=MODULES, help="modules, as tail or tiles/sweep")
    parser.add_argument("--again", type=Path, help="a table whose survivors are tried again")
    parser.add_argument("--worker", default="0/1", help="I/N: every N-th of them from the I-th")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix("").with_name("mutations.csv"))
    options = parser.parse_args()
    drawn = [pair for module in options.only for pair in mutants(module)]
    random.Random(options.seed).shuffle(drawn)
    if options.again:
        rows = list(csv.DictReader(options.again.open()))
        kept = {(row["module"], row["change"]) for row in rows if row["noticed by"] == "survived"}
        drawn = [pair for pair in drawn if (pair[0].module, pair[0].change) in kept]
    elif options.count:
        drawn = drawn[: options.count]
    first, step = map(int, options.worker.split("/"))
    drawn = drawn[first::step]

    import pytest  # noqa: F401 - once, before the children
    import torch

    torch.set_num_threads(1)
    fresh = not options.output.exists()
    with options.output.open("a", newline="") as file:
        table = csv.writer(file)
        if fresh:
            table.writerow(("module", "line", "change", "noticed by", "s"))
        for done, (mutation, text) in enumerate(drawn, 1):
            started = time.monotonic()
            found = noticed(mutation.module, text, Path(tempfile.gettempdir()) / f"mutate-{os.getpid()}.log")
            took = round(time.monotonic() - started, 1)
            table.writerow((mutation.module, mutation.line, mutation.change, found, took))
            file.flush()
            print(f"{done}/{len(drawn)} {mutation.module}:{mutation.line} {mutation.change}: {found}", flush=True)


if __name__ == "__main__":
    main()
