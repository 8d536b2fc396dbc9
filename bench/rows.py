"""The tidy rows of `results.csv`: metric, value, unit, what was measured, device, versions, commit."""

from __future__ import annotations

import csv
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).with_name("results.csv")
KEY = ("metric", "loss", "two_n", "width", "device")
COLUMNS = ("metric", "value", "unit", "loss", "kind", "two_n", "width", "device", "versions", "commit")
PACKAGES = ("torch", "numpy", "lightly", "pytorch-metric-learning", "open_clip_torch", "sentence-transformers", "timm")


def record(rows: list[dict[str, Any]], device: str, path: Path) -> None:
    """Adds rows to the file; a row measured again replaces the old one."""
    threads = f"{platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if device == "cuda" else threads
    commit = _git("rev-parse", "--short", "HEAD") + (
        "+" if _git("status", "--porcelain", "--", "src", "bench/*.py") else ""
    )
    common = {"device": name, "versions": _versions(), "commit": commit}
    table = {_key(row): row for row in read(path)}
    for row in rows:
        full = {column: str({**row, **common}.get(column, "")) for column in COLUMNS}
        table[_key(full)] = full
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())


def read(path: Path = RESULTS) -> list[dict[str, str]]:
    """All rows; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS.parent.parent).stdout.strip()


def _versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)
