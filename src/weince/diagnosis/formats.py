"""The formats of files that hold embeddings or labels; nothing that lies in a file is executed.

A file is read as few rows at a time as its format allows: .npy, .safetensors and .pt are mapped into memory, .npz and
.parquet are read whole.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from weince.shell.errors import UserError
from weince.shell.words import count

__all__ = ["Opened", "check_path", "label_file", "matrix_of", "open_file", "readable"]

SUFFIXES = (".npy", ".npz", ".parquet", ".safetensors", ".pt", ".pth")
LEAST_ROWS = 200
SHOWN = 5
PICKLED = "holds pickled objects, which could execute code: refused. Save plain arrays."


@contextmanager
def readable(path: Path, option: str) -> Iterator[None]:
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


class Opened(NamedTuple):
    """A matrix of a file, of which nothing has been read yet where the format allows.

    Attributes:
        shape: (M, D).
        dtype: in the file.
        part: rows [start, stop) as they lie in the file.
        others: other arrays of the same file, by name; None where there is none of that name.
    """

    shape: tuple[int, int]
    dtype: str
    part: Callable[[int, int], Any]
    others: Callable[[str], Any]


def check_path(path: Path, option: str) -> None:
    """Refuse a file that is not there, or whose name says that it holds something else; nothing is opened.

    Raises:
        UserError: so it is.
    """
    if not path.exists():
        raise UserError(f"Parameter `{option}`: {path} is not there.")
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"Parameter `{option}` should end in {', '.join(SUFFIXES)}. Found {path.name!r}.")


def open_file(path: Path, key: str | None, option: str) -> Opened:
    """The matrix that `key` names, or the only one; called inside `readable`."""
    check_path(path, option)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        if key is not None:
            raise UserError(f"Parameter `key` names an array of a file that holds several. Found {key!r} for {path}.")
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
        shape, dtype = matrix_of(whole, path, option)

        # Opened anew for each part, so that no more of the file stays in memory than a part.
        def mapped(start: int, stop: int) -> NDArray[Any]:
            return np.load(path, mmap_mode="r", allow_pickle=False)[start:stop]

        return Opened(shape, dtype, mapped, lambda _: None)
    if suffix == ".safetensors":
        return _open_safetensors(path, key, option)
    if suffix == ".parquet":
        return _open_parquet(path, key, option)
    if suffix == ".npz":
        arrays: Mapping[str, Any] = _numpy_arrays(path)
    else:
        arrays = _torch_arrays(path)
    array = arrays[_pick({name: _is_matrix(value) for name, value in arrays.items()}, key, path, option)]
    shape, dtype = matrix_of(array, path, option)
    return Opened(shape, dtype, lambda a, b: array[a:b], arrays.get)


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
        shape, dtype = matrix_of(file.get_slice(chosen)[:0], path, option, rows=shapes[chosen][0])

    def part(start: int, stop: int) -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_slice(chosen)[start:stop]

    def others(name: str) -> torch.Tensor | None:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name) if name in names else None

    return Opened(shape, dtype, part, others)


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
    shape, dtype = matrix_of(array, path, option)

    def others(name: str) -> NDArray[Any] | None:
        return _from_arrow(file.read([name]).column(0)) if name in schema.names else None

    return Opened(shape, dtype, lambda a, b: array[a:b], others)


def _from_arrow(column: Any) -> NDArray[Any]:
    import pyarrow

    if column.null_count:
        raise UserError(
            f"A column of labels should have one in each row. Found {count(column.null_count, 'row')} without."
        )
    text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
    return np.array(column.to_pylist(), dtype=np.str_) if text else column.to_numpy()


def label_file(path: Path, option: str) -> Any:
    """The one array of a file of labels, or the lines of a text; called inside `readable`."""
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


def matrix_of(array: Any, path: Path, option: str, rows: int | None = None) -> tuple[tuple[int, int], str]:
    """Shape (M, D) and dtype of an array that may hold embeddings, or of one whose first `rows` are still to be read.

    Raises:
        UserError: no matrix, no floats, or too few of them.
    """
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
