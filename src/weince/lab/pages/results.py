"""Result files, read and checked: what is wrong with one is a sentence that names it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weince.lab.pages.board import check
from weince.shell.errors import UserError

__all__ = ["read_results"]

NEEDED = {
    "name": str, "task": str, "facts": list, "settings": dict, "made": dict, "plan": dict, "metrics": dict,
    "select_by": str, "seeds": list, "rows": list, "differences": list, "untrained": (dict, type(None)),
    "sentences": list, "warnings": list, "runs": list,
}  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Results of comparisons.

    Args:
        paths: files, or folders of them: NAME.json, result.json of one comparison, or NAME/result.json of several.

    Returns:
        One a file, in the order given, those of a folder by name.

    Raises:
        UserError: no file, no JSON, no result, or two of one name.
    """
    files: dict[Path, Path] = {}
    for path in paths:
        for file in _files(path):
            files.setdefault(file.resolve(), file)
    if not files:
        raise UserError("No result was given: name files of `weince compare` (runs/NAME/result.json), or a folder.")
    found: dict[str, dict[str, Any]] = {}
    origin: dict[str, Path] = {}
    for file in files.values():
        result = _read(file)
        name = result["name"]
        if name in found:
            raise UserError(f"{origin[name]} and {file} are both results of {name}: give one of them.")
        found[name], origin[name] = result, file
    return list(found.values())


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"There is no {path}.")
    if not path.is_dir():
        return [path]
    if (path / "result.json").is_file():
        return [path / "result.json"]
    found = sorted(path.glob("*.json"), key=lambda one: one.stem) or sorted(path.glob("*/result.json"))
    if not found:
        raise UserError(f"{path} holds no results: neither NAME.json nor NAME/result.json.")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError:
        raise UserError(f"{file} is no JSON.") from None
    missing = [key for key, kind in NEEDED.items()
               if not isinstance(result, dict) or not isinstance(result.get(key, ...), kind)]  # fmt: skip
    if missing:
        which = "" if len(missing) == len(NEEDED) else f": {', '.join(missing)} should stand in it"
        raise UserError(f"{file} is no result of `weince compare`{which}.")
    if not NAME.fullmatch(result["name"]):
        raise UserError(f"{file} is the result of {result['name']!r}, which is no name of a comparison.")
    if result["select_by"] not in result["metrics"]:
        raise UserError(f"{file} chose by {result['select_by']}, which is none of its scores.")
    try:
        check(result)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{file} is no result of `weince compare` as this version reads it ({error!r}).") from None
    return result


def _refuse(constant: str) -> Any:
    raise ValueError(constant)  # JSON has neither NaN nor infinity
