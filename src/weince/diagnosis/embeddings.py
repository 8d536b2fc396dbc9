"""The embeddings of any library: rows of a file or of an array, every one looked at, read a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weince.diagnosis.formats import matrix_of, open_file, readable
from weince.shell.errors import UserError

__all__ = ["Embeddings", "embeddings_of", "open_embeddings"]

CHUNK_BYTES = 16 * 2**20
SHOWN = 5


@dataclass(frozen=True)
class Embeddings:
    """Rows of a file, checked.

    Attributes:
        path: of the file.
        shape: (M, D).
        dtype: in the file.
        lengths: smallest and largest norm of a row.
        sha256: of the values, row after row, as float32 (as float64 where the file has it).
        part: rows [start, stop) as they lie in the file.
        labels_of: other arrays of the same file, by name.
    """

    path: Path
    shape: tuple[int, int]
    dtype: str
    lengths: tuple[float, float]
    sha256: str
    part: Callable[[int, int], Any]
    labels_of: Callable[[str], Any]

    @property
    def normalised(self) -> bool:
        """Whether the rows come with length 1, to the precision of half a float."""
        return abs(self.lengths[0] - 1) < 2e-3 and abs(self.lengths[1] - 1) < 2e-3

    def chunks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """(first row, unit rows), all of them in order."""
        yield from _chunks(self.shape, self.unit)

    def unit(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows [start, stop) at length 1, whatever their scale."""
        rows = _values(self.part(start, stop))
        rows = rows / np.abs(rows).max(axis=1, keepdims=True)  # whose squares neither overflow nor vanish
        return (rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]).astype(np.float32)

    def take(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """The unit rows at `index`, which ascends."""
        found = np.empty((len(index), self.shape[1]), np.float32)
        for start, stop in _spans(self.shape):
            inside = slice(*np.searchsorted(index, (start, stop)))
            if inside.stop > inside.start:
                found[inside] = self.unit(start, stop)[index[inside] - start]
        return found


def open_embeddings(path: Path, key: str | None = None, option: str = "file") -> Embeddings:
    """The embeddings in a file, every row looked at once.

    Args:
        path: .npy, .npz, .parquet (a column of lists), .safetensors, .pt (weights only).
        key: of the array, where the file holds several.
        option: named in errors.

    Raises:
        UserError: no such file, another format, damaged, a pickle, no matrix of floats, too few rows, or rows that
            are zero, not finite, or all the same.
    """
    with readable(path, option):
        shape, dtype, part, others = open_file(path, key, option)
        lengths, digest = _look(path, shape, part, option)
    return Embeddings(path, shape, dtype, lengths, digest, part, others)


def embeddings_of(rows: NDArray[Any], name: str) -> Embeddings:
    """An array at hand, checked like a file.

    Raises:
        UserError: as `open_embeddings`.
    """
    path = Path(name)
    shape, dtype = matrix_of(rows, path, "file")
    lengths, digest = _look(path, shape, lambda a, b: rows[a:b], "file")
    return Embeddings(path, shape, dtype, lengths, digest, lambda a, b: rows[a:b], lambda _: None)


def _spans(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_BYTES // (4 * shape[1]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _chunks(shape: tuple[int, int], part: Callable[[int, int], Any]) -> Iterator[tuple[int, Any]]:
    for start, stop in _spans(shape):
        yield start, part(start, stop)


def _values(part: Any) -> NDArray[Any]:
    """float32, or float64 where the file has it."""
    array = part.float().numpy() if isinstance(part, torch.Tensor) and part.dtype != torch.float64 else np.asarray(part)
    return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


def _look(
    path: Path, shape: tuple[int, int], part: Callable[[int, int], Any], option: str
) -> tuple[tuple[float, float], str]:
    """Smallest and largest length, and the digest; refuses rows that have no direction."""
    digest = hashlib.sha256()
    shortest, longest, first, constant = np.inf, 0.0, None, True
    bad: dict[str, list[int]] = {"NaN or infinity": [], "zeros alone": []}
    for start, raw in _chunks(shape, part):
        rows = _values(raw)
        digest.update(np.ascontiguousarray(rows).data)
        largest = np.abs(rows).max(axis=1).astype(np.float64)  # NaN where there is one
        finite = np.isfinite(largest)
        scaled = rows / np.where(finite & (largest > 0), largest, 1).astype(rows.dtype)[:, None]
        bad["NaN or infinity"] += (start + np.flatnonzero(~finite)).tolist()
        bad["zeros alone"] += (start + np.flatnonzero(largest == 0)).tolist()
        lengths = largest * np.sqrt(np.einsum("ij,ij->i", scaled, scaled, dtype=np.float64))
        shortest, longest = min(shortest, float(lengths.min())), max(longest, float(lengths.max()))
        first = rows[0].copy() if first is None else first
        constant = constant and bool((rows == first).all())
    for what, rows in bad.items():
        if rows:
            shown = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
            raise UserError(f"Parameter `{option}`: {path} should have finite rows other than zero. "
                              f"Found {what} in {len(rows):,} of {shape[0]:,} rows: {shown}.")  # fmt: skip
    if constant:
        raise UserError(f"Parameter `{option}`: {path} should hold different rows. Found {shape[0]:,} times the same.")
    return (shortest, longest), digest.hexdigest()
