"""Pickles of arrays, read as data: nothing of a file is called, imported or executed.

CIFAR and ImageNet-32 are mostly passed around as Python pickles. `arrays_of` reads those of numbers, strings, lists,
dictionaries and NumPy arrays of numbers, and refuses every other name by name.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from weince.shell.errors import UserError

__all__ = ["arrays_of"]

NUMBERS = re.compile(r"[<>|=]?[biuf][1248]")


def arrays_of(path: Path) -> dict[str, Any]:
    """The dictionary of a pickle file, its keys as text, its arrays as NumPy arrays.

    Raises:
        UserError: it holds anything but a dictionary of data.
    """
    try:
        with path.open("rb") as file:
            found = _Data(file, encoding="bytes").load()
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"{path} is not a readable pickle of arrays: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} should hold a dictionary. Found {type(found).__name__}.")
    plain = {key.decode("latin-1") if isinstance(key, bytes) else str(key): value for key, value in found.items()}
    return {key: getattr(value, "array", value) for key, value in plain.items()}


class _Data(pickle.Unpickler):
    """Knows our stand-ins for what NumPy writes, and no other name. Made anew for every file."""

    def __init__(self, file: Any, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self.known = _stand_ins()

    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}".replace("numpy._core.", "numpy.core.")
        if name in self.known:
            return self.known[name]
        raise UserError(f"it names {name}, and a file of images needs nothing but arrays, lists and numbers.")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UserError("it refers to something outside itself.")


def _stand_ins() -> dict[str, Callable[..., Any]]:
    class Kind:
        """In the place of a dtype: of numbers alone."""

        def __init__(self, text: Any = "", *_: Any) -> None:
            self.text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
            if not NUMBERS.fullmatch(self.text):
                raise UserError(f"it holds an array of kind {self.text!r}; numbers are expected.")

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            order = state[1].decode("latin-1") if isinstance(state[1], bytes) else state[1]
            if order == ">":
                self.text = ">" + self.text.lstrip("<>|=")

    class Array:
        """In the place of an array: bytes, a shape and a kind."""

        array: np.ndarray

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, kind, by_column, content = state
            if not isinstance(kind, Kind) or not isinstance(content, (bytes, bytearray)):
                raise UserError("it holds an array of something else than numbers.")
            flat = np.frombuffer(bytearray(content), dtype=kind.text)  # a copy that may be written to
            self.array = flat.reshape(shape, order="F" if by_column else "C")

    def whole(content: Any, kind: Any, shape: Any, order: str) -> Array:
        made = Array()
        made.__setstate__((1, shape, kind, order == "F", bytes(content)))
        return made

    def encoded(text: Any, encoding: Any = "latin1") -> bytes:
        return str(text).encode("latin-1")

    return {
        "numpy.dtype": Kind,
        "numpy.ndarray": Array,
        "numpy.core.multiarray._reconstruct": lambda kind, shape, letter: Array(),
        "numpy.core.numeric._frombuffer": whole,
        "_codecs.encode": encoded,  # how newer protocols write bytes for older readers
    }
