"""Tables of text: columns of a csv, tsv, json-lines, json or parquet file, or lines of plain text, gzip or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weince.shell.errors import UserError

__all__ = ["SUFFIXES", "Table", "kind_of", "lines_of", "part_of", "parts_in", "table_of", "text_of"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""Of tables; each may be followed by .gz."""
PARTS = {
    "training": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Part -> words by which the name of a file says that it holds it."""
SNIFFED = 65536

Table = Mapping[str, Sequence[Any]]


def kind_of(path: Path) -> str:
    """Suffix in lower case, that of what is inside where it is gzip."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return (suffixes[:-1] or [""])[-1] if suffixes[-1:] == [".gz"] else (suffixes or [""])[-1]


def part_of(path: Path) -> str | None:
    """The part that a file's name says, by its first word.

    Examples:
        >>> part_of(Path("test_2016_flickr.en.gz")), part_of(Path("queries.txt"))
        ('test', None)
    """
    first = path.name.lower().replace("_", ".").replace("-", ".").split(".")[0]
    return next((part for part, words in PARTS.items() if first in words), None)


def parts_in(folder: Path, setting: str) -> dict[str, Path]:
    """Part -> table of a folder; a single table is "training". A file is itself.

    Raises:
        UserError: no folder, no table, or two of one part.
    """
    if folder.is_file():
        return {"training": folder}
    if not folder.is_dir():
        raise UserError(f"Setting `{setting}`: should be a folder or a file. Found none at {folder}.")
    tables = sorted(path for path in folder.iterdir() if path.is_file() and kind_of(path) in SUFFIXES)
    found: dict[str, Path] = {}
    for path in tables:
        part = "training" if len(tables) == 1 else part_of(path)
        if part in found:
            raise UserError(f"Setting `{setting}`: {folder} holds two {part} tables: {found[part].name}, {path.name}.")
        if part is not None:
            found[part] = path
    if "training" not in found:
        inside = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise UserError(
            f"Setting `{setting}`: {folder} should hold one table, or train and, if there are, validation and test "
            f"tables ({', '.join(SUFFIXES)}). Found {inside}."
        )
    return found


def text_of(path: Path) -> str:
    """The text of a file: UTF-8, UTF-16 with its mark, or else Western European (cp1252); gzip or not.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        content = path.read_bytes()
        if path.suffix.lower() == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    encodings = ("utf-16",) if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise UserError(f"{path} should be text in UTF-8. Found other bytes.")


def lines_of(path: Path) -> list[str]:
    """Lines, stripped; the empty line at the end is none. Only newlines end a line."""
    lines = [line.strip() for line in text_of(path).split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def table_of(path: Path) -> dict[str, list[Any]]:
    """Column -> values of all rows, as strings where the file is text. Columns without a name are numbered.

    Raises:
        UserError: it cannot be read, or is no such table.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        return _parquet(path)
    text = text_of(path)
    if kind in (".jsonl", ".ndjson"):
        return _of_rows(path, [_json(path, line, number) for number, line in enumerate(text.split("\n"), 1)
                               if line.strip()])  # fmt: skip
    if kind == ".json":
        return _of_rows(path, _json(path, text))
    return _of_csv(path, text, kind)


def _parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read as parquet: {str(error).splitlines()[0]}.") from None
    return {name: table[name].to_pylist() for name in table.column_names}


def _json(path: Path, text: str, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        where = f", line {line}," if line else ""
        raise UserError(f"{path}{where} should be JSON: {error}.") from None


def _of_rows(path: Path, rows: Any) -> dict[str, list[Any]]:
    if isinstance(rows, dict) and rows and all(isinstance(column, list) for column in rows.values()):
        columns = rows
    elif isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
    elif isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows):
        columns = {str(at): [row[at] if at < len(row) else None for row in rows] for at in range(max(map(len, rows)))}
    else:
        raise UserError(f"{path} should hold rows: objects with the same keys, or lists. Found {str(rows)[:60]!r}.")
    if len({len(column) for column in columns.values()}) > 1:
        raise UserError(f"{path} should have columns of one length. Found "
                        f"{', '.join(f'{name}: {len(column)}' for name, column in columns.items())}.")  # fmt: skip
    return columns


def _of_csv(path: Path, text: str, kind: str) -> dict[str, list[Any]]:
    delimiter = "\t" if kind == ".tsv" else _delimiter(text[:SNIFFED])
    try:
        csv.field_size_limit(1 << 30)
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: {error}.") from None
    if len(rows) < 2:
        raise UserError(f"{path} should hold a table. Found {len(rows)} rows.")
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise UserError(f"{path}, row {number}: should have {width} cells, as the first row has. Found {len(row)}.")
    columns = list(zip(*rows, strict=True))
    # A first row whose cell comes again in its column is no header: a label of the first example.
    headed = not any(len(set(column)) <= len(column) / 2 and column[0] in column[1:] for column in columns)
    names = [cell.strip() or str(at) for at, cell in enumerate(rows[0])] if headed else map(str, range(width))
    return {name: list(column[1:] if headed else column) for name, column in zip(names, columns, strict=True)}


def _delimiter(text: str) -> str:
    """The one of which the first line has most; quoted text is left out."""
    first = next(iter(csv.reader(io.StringIO(text), delimiter="\0")), [""])[0] if text else ""
    line = first or text.split("\n", 1)[0]
    return max(",;\t|", key=line.count)
