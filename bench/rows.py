"""The tidy rows of `results.csv` and `gpu.csv`: metric, value, unit, what was measured, device, versions, commit."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).with_name("results.csv")
KEY = ("metric", "loss", "kind", "two_n", "width", "device")
COLUMNS = ("metric", "value", "unit", "loss", "kind", "two_n", "width", "device", "versions", "commit")
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "lightly",
    "pytorch-metric-learning",
    "open_clip_torch",
    "sentence-transformers",
    "timm",
    "torchvision",
)


def record(rows: list[dict[str, Any]], device: str, path: Path) -> None:
    """Adds rows to the file; a row measured again replaces the old one. A run that is killed leaves a whole file."""
    stamped = stamp(device)
    table = {_key(row): row for row in read(path)}
    for row in rows:
        full = {column: str({**row, **stamped}.get(column, "")) for column in COLUMNS}
        table[_key(full)] = full
    written = path.with_name(path.name + ".part")
    with written.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table.values())
    os.replace(written, path)


@cache
def stamp(device: str) -> dict[str, str]:
    """What all rows of a run share: device, versions, commit."""
    threads = f"{platform.machine()}, {torch.get_num_threads()} threads"
    changed = "+" if _said("git", "status", "--porcelain", "--", "src", "bench/*.py") else ""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else threads,
        "versions": _versions(device),
        "commit": (_said("git", "rev-parse", "--short", "HEAD") or "unknown") + changed,
    }


def read(path: Path = RESULTS) -> list[dict[str, str]]:
    """All rows; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _key(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _said(*words: str) -> str:
    """What a program says; nothing where it fails or is not there."""
    try:
        return subprocess.run(words, capture_output=True, text=True, cwd=RESULTS.parent.parent).stdout.strip()
    except OSError:
        return ""


def _versions(device: str) -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if device == "cuda":
        driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split("\n")[0]
        found += [f"CUDA {torch.version.cuda}", f"driver {driver or 'unknown'}"]
    return "; ".join(found)
