"""The plan of a study: a recipe, and for each arm of it the settings that are tried, as TOML.

data = "cifar10"                    # a recipe, as of `weince compare`
seeds = [7, 21]                     # by which settings are chosen
[study]
confirm_seeds = [1, 2, 3, 4, 5]     # on which the chosen ones are reported; the same ones when left out
[study.arms.infonce]
loss = "infonce"
temperature = [0.05, 0.1, 0.2]      # a list is a grid, {low, high, log} a range that `sampler` draws from
[study.arms.weince]
loss = "weince"
temperature = [0.1]
"gate.kappa_rho" = [5.0, 10.0, 20.0]
[study.arms.slope-1]
loss = "weince"
follows = "weince"                  # an ablation: what was chosen there, with this change
"gate.slope" = "unit"
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from weince.gate import Gate
from weince.lab.rivals.criteria import Rivals
from weince.lab.tasks.recipe import PAPER_TEMPERATURE, REFERENCE, Loss, Recipe, Run, read
from weince.shell.errors import UserError

__all__ = ["Arm", "Plan", "Point", "Range", "applied", "read_plan"]

VARIED = {"learning_rate", "batch_size", "epochs", "schedule", "encoder", "projection", "precision"}
"""Settings of a recipe that an arm may vary, beside temperature and TABLES: none changes the images."""

TABLES = {"gate": Gate, "rivals": Rivals}
"""Tables of a recipe, any setting of which an arm may vary."""

Value = bool | int | float | str


class Range(BaseModel):
    """An interval from which a sampler draws."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    low: float
    high: float
    log: bool = False


class Arm(BaseModel):
    """A loss and the settings tried for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss: Loss
    follows: str | None = None
    """The arm from which it takes what was chosen, its own settings put over that."""
    tried: dict[str, tuple[Value, ...] | Range] = {}

    @property
    def drawn(self) -> bool:
        """Whether a sampler chooses its settings."""
        return any(isinstance(values, Range) for values in self.tried.values())

    @property
    def grid(self) -> list[dict[str, Value]]:
        """All its settings, where there is a grid."""
        lists = [values for values in self.tried.values() if not isinstance(values, Range)]
        return [dict(zip(self.tried, values, strict=True)) for values in itertools.product(*lists)]


class Point(NamedTuple):
    """What one trial does: settings of an arm, from some seeds. Drawn ones have a number until a sampler says more."""

    arm: str
    settings: str
    """As JSON, sorted; or "draw N"."""
    seeds: tuple[int, ...]


class Plan(BaseModel):
    """What a study does."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    recipe: Recipe
    arms: Annotated[dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Arm], Field(min_length=1)]
    confirm_seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = ()
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    """That draws from ranges."""
    trials: Annotated[int, Field(ge=1)] = 20
    """Settings drawn for each arm with a range."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Plan:
        if set(self.confirm_seeds) & set(self.recipe.seeds):
            raise ValueError("`confirm_seeds` must be others than `seeds`: those have chosen the settings")
        if len(set(self.confirm_seeds)) < len(self.confirm_seeds):
            raise ValueError("`confirm_seeds` names a seed twice")
        for name, arm in self.arms.items():
            if arm.drawn and not all(isinstance(values, Range) or len(values) == 1 for values in arm.tried.values()):
                raise ValueError(f"arm {name!r} mixes a grid and a range")
            if arm.follows is not None and (arm.follows not in self.arms or self.arms[arm.follows].follows is not None):
                raise ValueError(f"arm {name!r} should follow an arm that follows none: found {arm.follows!r}")
            if arm.follows is not None and (arm.drawn or len(arm.grid) > 1):
                raise ValueError(f"arm {name!r} follows another, so each of its settings should have one value")
        tried = {name: self.count(name) for name in self.arms if self.count(name) > 1}
        if len(set(tried.values())) > 1:
            raise ValueError(f"arms must try equally many settings, or one: found {tried}")
        if self.reference not in self.arms:
            raise ValueError(f'one arm must have loss "{REFERENCE}", with which the others are compared')
        for name, arm in self.arms.items():
            for settings in [self.example(arm)] if arm.drawn else arm.grid:
                try:
                    applied(self.recipe, arm.loss, settings, self.recipe.seeds[0])
                except UserError as error:
                    raise ValueError(f"arm {name!r}: {error}") from None
        return self

    @staticmethod
    def example(arm: Arm) -> dict[str, Value]:
        """One setting of an arm whose settings are drawn."""
        return {key: v.low if isinstance(v, Range) else v[0] for key, v in arm.tried.items()}

    @property
    def reference(self) -> str:
        """The arm with which the others are compared: the first InfoNCE arm that is tuned, or the first."""
        those = [name for name, arm in self.arms.items() if arm.loss == REFERENCE and arm.follows is None]
        return next((name for name in those if self.count(name) > 1), those[0] if those else "")

    def count(self, arm: str) -> int:
        """Settings that are tried for an arm."""
        return self.trials if self.arms[arm].drawn else len(self.arms[arm].grid)

    def points(self) -> list[Point]:
        """What is tried to choose settings, whole pairs of seeds first."""
        found = []
        for name, arm in self.arms.items():
            if arm.follows is not None:
                continue
            if arm.drawn:
                found += [Point(name, f"draw {number}", self.recipe.seeds) for number in range(self.trials)]
            else:
                found += [
                    Point(name, json.dumps(settings, sort_keys=True), (seed,))
                    for settings in arm.grid
                    for seed in self.recipe.seeds
                ]
        return sorted(found, key=lambda point: self.recipe.seeds.index(point.seeds[0]))


def applied(recipe: Recipe, loss: Loss, settings: Mapping[str, Value], seed: int) -> tuple[Recipe, Run]:
    """A recipe with settings of an arm in the place of its own, and the run that belongs to a seed.

    Settings of a table (`gate.*`, `rivals.*`) replace that setting alone.

    Raises:
        UserError: a setting that an arm may not vary, or that the recipe refuses.
    """
    changes, tables = {}, {table: dict(vars(getattr(recipe, table))) for table in TABLES}
    for name, value in settings.items():
        table, _, key = name.partition(".")
        if table in TABLES and key:
            if key not in tables[table]:
                raise UserError(f"Setting `{name}` is unknown. Known of {table}: {', '.join(tables[table])}.")
            tables[table][key] = value
        elif name in VARIED:
            changes[name] = value
        elif name != "temperature":
            known = ", ".join(["temperature", *(f"{table}.*" for table in TABLES), *sorted(VARIED)])
            raise UserError(f"Setting `{name}`: an arm varies {known}.")
    for table, kind in TABLES.items():
        try:
            changes[table] = TypeAdapter(kind).validate_python(tables[table])
        except ValidationError as error:
            raise UserError(f"Setting `{table}`: {error.errors()[0]['msg']}.") from None
    temperature = settings.get("temperature", PAPER_TEMPERATURE)
    changed = Recipe(**{**recipe.model_dump(), **changes, "temperatures": (temperature,)})
    return changed, Run(loss, changed.temperatures[0], seed)


def read_plan(path: Path, changes: Mapping[str, Any]) -> Plan:
    """The plan of a TOML file, with some settings of its recipe changed.

    Raises:
        UserError: it cannot be read, or contradicts itself.
    """
    written = read(path)
    study = written.pop("study", None)
    if not isinstance(study, dict) or not isinstance(study.get("arms"), dict):
        raise UserError(f"Plan {path} should have a table [study.arms.NAME] for each arm. Found none.")
    recipe = Recipe(**{"name": path.stem, **written, **changes})
    arms = {}
    for name, arm in study.pop("arms").items():
        tried = {
            key: value if isinstance(value, (list, dict)) else [value]
            for key, value in arm.items()
            if key not in ("loss", "follows")
        }
        arms[name] = {"loss": arm.get("loss"), "follows": arm.get("follows"), "tried": tried}
    try:
        return Plan(recipe=recipe, arms=arms, **study)
    except ValidationError as error:
        one = error.errors()[0]
        where = ".".join(map(str, ("study", *one["loc"])))
        raise UserError(f"Plan {path}, `{where}`: {one['msg'].removeprefix('Value error, ')}.") from None
