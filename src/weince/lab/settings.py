"""Typed settings, as TOML and on the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weince.shell.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore

__all__ = ["Name", "Placed", "Settings", "read", "write"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Settings(BaseModel):
    """Typed settings; a wrong one is one sentence that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    FREE: ClassVar[frozenset[str]] = frozenset()
    """Settings in which what is continued may differ: what is finished stays what it is."""

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            items = error.errors()
            # Of a list with a wrong item pydantic also says that the right ones are too few.
            wrong = {item["loc"][:-1] for item in items if len(item["loc"]) > 1}
            told = [item for item in items if not (item["type"] == "too_short" and item["loc"] in wrong)]
            raise UserError("\n".join(_reason(item, type(self)) for item in told)) from None

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """Settings, those of FREE aside, in which another recipe (as JSON) differs, for a message."""
        now = self.model_dump(mode="json", exclude=set(self.FREE))
        keys = [*now, *(key for key in other if key not in now and key not in self.FREE)]
        absent = object()
        return [
            f"{key}: {other.get(key, 'nothing')!r} there, {now.get(key, 'nothing')!r} now"
            for key in keys
            if other.get(key, absent) != now.get(key, absent)
        ]


class Placed(Settings):
    """What has a folder."""

    name: Name = "comparison"
    """Folder of the results, under `output`."""
    output: Path = Path("runs")
    """Where results go."""

    @property
    def folder(self) -> Path:
        """Where the results lie."""
        return self.output / self.name


def _reason(item: Any, recipe: type[BaseModel]) -> str:
    """What is wrong with a setting of such a recipe, from an item of pydantic's list of errors."""
    where = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    if not where:
        return f"Contradiction: {message}."
    if item["type"] == "extra_forbidden":
        return f"Setting `{where}` is unknown. Known: {', '.join(recipe.model_fields)}."
    if item["type"] == "missing":
        return f"Setting `{where}` is missing."
    if item["type"] == "value_error" and where == "arms":
        return f"Setting `arms`: {message}."
    return f"Setting `{where}`: {message}. Found {item['input']!r}."


def read(path: Path) -> dict[str, Any]:
    """Settings of a TOML file, not yet validated.

    Raises:
        UserError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Recipe {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"Recipe {path} is not TOML: {error}.") from None


def write(recipe: BaseModel) -> str:
    """TOML text that `read` and the recipe's class turn into an equal one; settings left out are None."""
    return tomli_w.dumps(_without_none(recipe.model_dump(mode="json")))


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if value is not None
    }
