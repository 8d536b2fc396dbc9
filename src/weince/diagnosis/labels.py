"""Labels of rows: what says that two rows are a positive pair, or one thing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from weince.diagnosis.embeddings import Embeddings
from weince.diagnosis.formats import label_file, readable
from weince.shell.errors import UserError

__all__ = ["Known", "codes", "read_labels"]


class Known(NamedTuple):
    """Labels as given, and as codes that are equal where they are."""

    of_queries: NDArray[Any]
    of_corpus: NDArray[Any]
    query_codes: NDArray[np.int64]
    corpus_codes: NDArray[np.int64]


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
        with readable(path, option):
            found = label_file(path, option)
    else:
        with readable(embeddings.path, option):
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
