"""Images in parquet files, as sets are commonly published: whole, or in numbered shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from weince.lab.data.images import Images, Parts
from weince.lab.data.pictures import decoded, stacked
from weince.shell.errors import UserError

__all__ = ["parquet_files"]

SHARD = re.compile(r"-(\d+)-of-(\d+)(-\w+)?\.parquet")
"""Ends the name of a shard; some publishers add a checksum."""


def parquet_files(folder: Path, names: Sequence[str], size: int | None = None) -> Parts:
    """Images of NAME.parquet or NAME-*.parquet, one name for the training and one for the test part.

    A column img or image of {bytes, path}, and a column label or fine_label of integers.

    Args:
        folder: holds the files.
        names: of both parts.
        size: edge length in pixels to which images are resized.

    Raises:
        UserError: no such file, shards that are missing, not parquet, other columns, or a row that is no image.
    """
    # All names first: a test shard that is missing is said before the training images are decoded.
    files = [_files(folder, name) for name in names]
    training, test = (_read(paths, folder, size) for paths in files)
    return Parts(training, test)


def _files(folder: Path, name: str) -> list[Path]:
    paths = sorted(folder.glob(f"{name}.parquet")) or sorted(folder.glob(f"{name}-*.parquet"))
    if not paths:
        found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) if folder.is_dir() else "no such folder"
        raise UserError(
            f"Setting `data_dir`: should hold {name}.parquet (or {name}-*.parquet). "
            f"Found in {folder}: {found or 'nothing'}."
        )
    shards = [match for path in paths if (match := SHARD.fullmatch(path.name.removeprefix(name)))]
    if not shards:
        return paths
    numbers, totals = sorted(int(shard[1]) for shard in shards), {int(shard[2]) for shard in shards}
    total = max(totals)
    wanted = range(1, total + 1) if total in numbers else range(total)  # some count from 1
    missing = [f"{name}-{number:05d}-of-{total:05d}.parquet" for number in wanted if number not in numbers]
    if len(totals) == 1 and missing:
        raise UserError(
            f"Setting `data_dir`: {folder} should hold all {total} shards of {name}. Missing: "
            f"{', '.join(missing[:8])}{f' and {len(missing) - 8} more' if len(missing) > 8 else ''}."
        )
    if len(totals) > 1 or numbers != list(wanted) or len(shards) != len(paths):
        raise UserError(
            f"Setting `data_dir`: {folder} should hold {name} once, each of its shards one time. "
            f"Found {', '.join(path.name for path in paths[:8])}{' ...' if len(paths) > 8 else ''}."
        )
    return paths


def _read(paths: list[Path], folder: Path, size: int | None) -> Images:
    import pyarrow
    import pyarrow.parquet as parquet

    images, labels = [], []
    for path in paths:
        try:
            table = parquet.read_table(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path} is not a readable parquet file: {str(error).splitlines()[0]}") from None
        image_column = next((c for c in ("img", "image") if c in table.column_names), None)
        label_column = next((c for c in ("label", "fine_label") if c in table.column_names), None)
        if image_column is None or label_column is None:
            raise UserError(f"{path} should have columns img or image, and label. Found {table.column_names}.")
        rows = table.column(image_column).to_pylist()
        for number, (row, label) in enumerate(zip(rows, table.column(label_column).to_pylist(), strict=True)):
            if not isinstance(label, int) or label < 0:
                raise UserError(f"{path}, row {number}: labels should be integers >= 0. Found {label!r}.")
            content = row.get("bytes") if isinstance(row, dict) else row
            images.append(decoded(content, f"{path}, row {number}", size))
            labels.append(label)
    return stacked(images, labels, folder)
