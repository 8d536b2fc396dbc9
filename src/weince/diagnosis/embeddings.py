"""The embeddings of any library, read from a file without executing anything that lies in it.

A file is read as few rows at a time as its format allows: .npy, .safetensors and .pt are mapped into memory, .npz and
.parquet are read whole.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weince.shell.errors import UserError

__all__ = ["Embeddings", "codes", "embeddings_of", "open_embeddings", "read_labels"]

SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors", ".pt", ".pth")
LEAST_ROWS = 200
CHUNK_BYTES = 16 * 2**20
SHOWN = 5
PICKLED = "holds pickled objects, which could execute code: refused. Save plain arrays."


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
    with _readable(path, option):
        shape, dtype, part, others = _open(path, key, option)
        lengths, digest = _look(path, shape, part, option)
    return Embeddings(path, shape, dtype, lengths, digest, part, others)


def embeddings_of(rows: NDArray[Any], name: str) -> Embeddings:
    """An array at hand, checked like a file.

    Raises:
        UserError: as `open_embeddings`.
    """
    path = Path(name)
    shape, dtype = _matrix(rows, path, "file")
    lengths, digest = _look(path, shape, lambda a, b: rows[a:b], "file")
    return Embeddings(path, shape, dtype, lengths, digest, lambda a, b: rows[a:b], lambda _: None)


def read_labels(given: str, embeddings: Embeddings, option: str) -> NDArray[Any]:
    """One label for every row: from an array of the same file, or from a file of its own.

    Args:
        given: name of an array (or column) in the embeddings' file; or path of a .npy, .npz (one array), .parquet (one
            column), or of a text file with one label a line.
        embeddings: they belong to.
        option: named in errors.

    Raises:
        UserError: neither, of another length, or no labels.
    """
    path = Path(given)
    if path.is_file():
        with _readable(path, option):
            found = _label_file(path, option)
    else:
        with _readable(embeddings.path, option):
            found = embeddings.labels_of(given)
        if found is None:
            raise UserError(
                f"Parameter `{option}` should be a file, or the name of an array in {embeddings.path}. Found {given!r}."
            )
    if isinstance(found, torch.Tensor):
        found = found.to_dense().double().numpy() if found.is_floating_point() else found.to_dense().numpy()
    labels = np.asarray(found)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.ndim != 1 or labels.dtype.kind not in "iuUSb":
        raise UserError(
            f"Parameter `{option}` should be one integer or string for each row. "
            f"Found shape {labels.shape}, dtype {labels.dtype}."
        )
    if len(labels) != embeddings.shape[0]:
        raise UserError(
            f"Parameter `{option}` should hold a label for each of the {embeddings.shape[0]:,} rows of "
            f"{embeddings.path}. Found {len(labels):,}."
        )
    return labels


def codes(*labels: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Integers that are equal where labels are, across several arrays."""
    # NumPy makes floats of signed and unsigned integers together, and one of many 64-bit numbers.
    kinds = {part.dtype.kind for part in labels}
    together = np.concatenate([part if len(kinds) == 1 else part.astype(str) for part in labels])
    places = np.unique(together, return_inverse=True)[1].astype(np.int64)
    return np.split(places, np.cumsum([len(part) for part in labels])[:-1])


@contextmanager
def _readable(path: Path, option: str) -> Iterator[None]:
    """Whatever a library makes of a bad file, as one sentence."""
    start = f"Parameter `{option}`: {path}"
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{start} is not there.") from None
    except pickle.UnpicklingError:
        raise UserError(f"{start} {PICKLED}") from None
    except OSError as error:
        raise UserError(f"{start} cannot be read: {error.strerror or error}.") from None
    except Exception as error:  # damaged: every format has errors of its own
        if "pickle" in str(error) or "Python objects" in str(error):
            raise UserError(f"{start} {PICKLED}") from None
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"{start} is damaged or not what its name says: {reason or type(error).__name__}.") from None


Opened = tuple[tuple[int, int], str, Callable[[int, int], Any], Callable[[str], Any]]


def _open(path: Path, key: str | None, option: str) -> Opened:
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(path)
    if suffix not in SUFFIXES:
        raise UserError(f"Parameter `{option}` should end in {', '.join(SUFFIXES)}. Found {path.name!r}.")
    if suffix == ".npy":
        if key is not None:
            raise UserError(f"Parameter `key` names an array of a file that holds several. Found {key!r} for {path}.")
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, dtype = _matrix(whole, path, option)
        # Opened anew for each part, so that no more of the file stays in memory than a part.
        return shape, dtype, lambda a, b: np.load(path, mmap_mode="r", allow_pickle=False)[a:b], lambda name: None
    if suffix == ".safetensors":
        return _open_safetensors(path, key, option)
    if suffix == ".parquet":
        return _open_parquet(path, key, option)
    if suffix == ".npz":
        arrays: Mapping[str, Any] = _numpy_arrays(path)
    else:
        arrays = _torch_arrays(path)
    array = arrays[_pick({name: _is_matrix(value) for name, value in arrays.items()}, key, path, option)]
    shape, dtype = _matrix(array, path, option)
    return shape, dtype, lambda a, b: array[a:b], arrays.get


def _numpy_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _torch_arrays(path: Path) -> dict[str, torch.Tensor]:
    mapped = zipfile.is_zipfile(path)  # the older format cannot be
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    named = content if isinstance(content, Mapping) else {"": content}
    return {str(name): value.detach() for name, value in named.items() if isinstance(value, torch.Tensor)}


def _open_safetensors(path: Path, key: str | None, option: str) -> Opened:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        shapes = {name: file.get_slice(name).get_shape() for name in names}
        chosen = _pick({name: len(shape) == 2 for name, shape in shapes.items()}, key, path, option)
        shape, dtype = _matrix(file.get_slice(chosen)[:0], path, option, rows=shapes[chosen][0])

    def part(start: int, stop: int) -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_slice(chosen)[start:stop]

    def others(name: str) -> torch.Tensor | None:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name) if name in names else None

    return shape, dtype, part, others


def _open_parquet(path: Path, key: str | None, option: str) -> Opened:
    import pyarrow
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    schema = file.schema_arrow
    lists = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    chosen = _pick({field.name: any(kind(field.type) for kind in lists) for field in schema}, key, path, option)
    parts = []
    for batch in file.iter_batches(columns=[chosen]):
        column = batch.column(0)
        lengths = np.unique(np.asarray(column.value_lengths().fill_null(-1)))
        values = column.flatten().to_numpy(zero_copy_only=False)
        if len(batch) and len(lengths) != 1:
            raise UserError(
                f"Parameter `{option}`: column {chosen!r} of {path} should hold lists of one length. "
                f"Found lengths {', '.join('none' if n < 0 else str(n) for n in lengths[:SHOWN])}."
            )
        parts.append(values.reshape(len(batch), -1))
    array = np.concatenate(parts) if parts else np.empty((0, 1), np.float32)
    shape, dtype = _matrix(array, path, option)

    def others(name: str) -> NDArray[Any] | None:
        return _from_arrow(file.read([name]).column(0)) if name in schema.names else None

    return shape, dtype, lambda a, b: array[a:b], others


def _from_arrow(column: Any) -> NDArray[Any]:
    import pyarrow

    if column.null_count:
        raise UserError(f"A column of labels should have one in each row. Found {column.null_count:,} rows without.")
    text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
    return np.array(column.to_pylist(), dtype=np.str_) if text else column.to_numpy()


def _label_file(path: Path, option: str) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if suffix == ".parquet":
        import pyarrow.parquet as parquet

        file = parquet.ParquetFile(path)
        return _from_arrow(file.read([_only(file.schema_arrow.names, path, option)]).column(0))
    if suffix == ".npz":
        arrays = _numpy_arrays(path)
        return arrays[_only(list(arrays), path, option)]
    if suffix in (".pt", ".pth"):
        arrays = _torch_arrays(path)
        return arrays[_only(list(arrays), path, option)]
    return np.array(path.read_text(encoding="utf-8").splitlines(), dtype=np.str_)


def _only(names: list[str], path: Path, option: str) -> str:
    if len(names) != 1:
        raise UserError(f"Parameter `{option}`: {path} should hold one array. Found {', '.join(names) or 'none'}.")
    return names[0]


def _is_matrix(value: Any) -> bool:
    return value.ndim == 2 and (
        value.is_floating_point() if isinstance(value, torch.Tensor) else value.dtype.kind == "f"
    )


def _pick(matrices: Mapping[str, bool], key: str | None, path: Path, option: str) -> str:
    fit = [name for name, good in matrices.items() if good]
    if key is not None:
        if key not in matrices:
            raise UserError(f"Parameter `key` should name an array of {path}: {', '.join(matrices)}. Found {key!r}.")
        return key
    if len(fit) == 1:
        return fit[0]
    raise UserError(
        f"Parameter `{option}`: {path} should hold one matrix of floats (M, D), or `key` should name it. "
        f"Found {', '.join(fit) if fit else 'none among ' + (', '.join(matrices) or 'nothing')}."
    )


def _matrix(array: Any, path: Path, option: str, rows: int | None = None) -> tuple[tuple[int, int], str]:
    dtype = str(array.dtype).removeprefix("torch.")
    if dtype not in ("float16", "bfloat16", "float32", "float64"):
        raise UserError(
            f"Parameter `{option}`: {path} should hold float16, bfloat16, float32 or float64. Found {dtype}."
        )
    if array.ndim != 2:
        raise UserError(f"Parameter `{option}`: {path} should have shape (M, D). Found {tuple(array.shape)}.")
    shape = (len(array) if rows is None else rows, array.shape[1])
    if shape[0] < LEAST_ROWS or shape[1] < 2:
        raise UserError(
            f"Parameter `{option}`: {path} should have at least {LEAST_ROWS} rows of at least 2 numbers. Found {shape}."
        )
    return shape, dtype


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
