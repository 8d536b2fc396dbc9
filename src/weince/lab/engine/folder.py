"""The folder of a comparison: known to hold trials of one recipe on the same data, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from weince.lab.engine.recipe import Comparison
from weince.lab.launch import first_does
from weince.lab.settings import read, write
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_json, write_text

__all__ = ["made_known", "trial"]


@contextmanager
def trial(folder: Path, name: str) -> Iterator[Path]:
    """The folder of a trial, for this process (or those of one launch) alone.

    Args:
        folder: of the comparison.
        name: of the trial.

    Raises:
        UserError: another process has it.
    """
    place = folder / "runs" / name
    lock = FileLock(folder / ".locks" / name, timeout=10)

    def claim() -> None:
        place.mkdir(parents=True, exist_ok=True)
        (folder / ".locks").mkdir(exist_ok=True)
        try:
            lock.acquire()  # one that was given up for dead, and is not, still holds its folder
        except Timeout:
            raise UserError(f"{place} is being written by another process: wait for it, or stop it.") from None

    first_does(claim)
    try:
        yield place
    finally:
        lock.release()


def made_known(recipe: Comparison, fingerprint: str) -> None:
    """Write recipe.toml and data.json, unless trials of another recipe or of other data lie there.

    Raises:
        UserError: they do, on every process.
    """

    def work() -> None:
        recipe.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(recipe.folder / ".lock"):
            _check_same(recipe, fingerprint)
            write_text(recipe.folder / "recipe.toml", write(recipe))
            write_json(recipe.folder / "data.json", {"sha256": fingerprint})

    first_does(work)


def _check_same(recipe: Comparison, fingerprint: str) -> None:
    stored, data = recipe.folder / "recipe.toml", recipe.folder / "data.json"
    if not any(recipe.folder.glob("runs/*/validation.json")) and not any(recipe.folder.glob("runs/*/*.ckpt")):
        return  # nothing that another recipe could be mixed with
    held: Mapping[str, Any]
    try:
        held = type(recipe)(**read(stored)).model_dump(mode="json")
    except UserError as error:
        raise UserError(
            f"{stored} was written by another version, or changed by hand:\n{error}\n"
            "Give another --name, or remove that folder."
        ) from None
    other = recipe.differences(held)
    if not other and data.is_file() and read_json(Path(data))["sha256"] != fingerprint:
        other = ["the data themselves"]
    if other:
        raise UserError(
            f"{recipe.folder} holds a comparison with other settings ({'; '.join(other)}). "
            "Give another --name, or remove that folder."
        )
