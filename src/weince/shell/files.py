"""Files that are whole or absent: a killed process leaves the old content or the new, never a half."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weince.shell.errors import UserError

__all__ = ["csv_text", "json_text", "read_json", "write_bytes", "write_csv", "write_folder", "write_json", "write_text"]


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Replace `path` by UTF-8 text."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by JSON; NaN is refused, since JSON has none."""
    write_text(path, json_text(content))


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace `path` by a table with the union of the rows' columns, in order of appearance."""
    write_text(path, csv_text(rows))


def write_folder(path: Path, content: Mapping[str, bytes]) -> None:
    """Replace a folder by one that holds these files and nothing else: name -> content, in one step."""
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, old = (path.with_name(f".{path.name}.{kind}.{os.getpid()}") for kind in ("draft", "old"))
    try:
        for name, part in content.items():
            write_bytes(draft / name, part)
        if path.exists():
            path.rename(old)
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(old, ignore_errors=True)


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged. Remove it: the same command makes it anew.") from None


def json_text(content: Any) -> str:
    """JSON; NaN is refused."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with the union of the rows' columns, in order of appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
