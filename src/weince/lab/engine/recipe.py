"""The recipe: one typed, validated object that says everything a comparison does, as TOML and on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro
from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from weince.lab.engine.plan import Arm, Plan, Range, Usual
from weince.lab.settings import Name, Placed
from weince.shell.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Comparison"]

RESERVED = ("loss", "title", "follows", "reserve")
"""Keys of an arm that are no settings to try."""


class Comparison(Placed):
    """What every comparison has: losses, temperatures and seeds, or arms, tried alike."""

    FREE: ClassVar[frozenset[str]] = frozenset({
        "name", "output", "losses", "temperatures", "seeds", "confirm_seeds", "arms", "sampler", "draws", "select_by",
        "widen",
    })  # fmt: skip
    """Settings in which a continued comparison may differ: finished trials stay what they are."""
    PLACES: ClassVar[frozenset[str]] = frozenset({"output"})
    """Settings that say where things lie on one machine: left out of results, which people send to each other."""
    TITLES: ClassVar[Mapping[str, str]]
    """Loss -> as a reader sees it."""
    USUAL: ClassVar[Usual]
    """A setting of InfoNCE that others use; its temperature is that of an arm that names none."""
    VARIED: ClassVar[frozenset[str]]
    """Settings that an arm may vary, beside its temperature and TABLES: none changes the data."""
    TABLES: ClassVar[Mapping[str, type]]
    """Tables, any setting of which an arm may vary."""
    REFERENCE: ClassVar[str] = "infonce"

    task: Any
    losses: Annotated[tuple[Any, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared, each loss at every temperature."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.05, 0.1, 0.2, 0.5, 1.0)
    """Every loss is tried at every one of these."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (7, 21, 63)
    """Seeds by which settings are chosen: of everything random, the same for every loss and temperature."""
    confirm_seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = ()
    """Other seeds, from which the chosen settings are reported; the same ones when left out."""
    arms: tyro.conf.Suppress[dict[Name, Arm]] = Field(default_factory=dict)
    """In a file, instead of losses and temperatures: [arms.NAME] with a loss and any settings to try."""
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    """Of Optuna, that draws settings for arms with a range {low, high, log}."""
    draws: Annotated[int, Field(ge=1)] = 20
    """Settings drawn for each arm with a range."""
    widen: Annotated[int, Field(ge=0)] = 0
    """Settings at most by which the grid of a loss is widened while its best one lies at an end."""
    select_by: Any

    @field_validator("arms", mode="before")
    @classmethod
    def _arms(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        found = {}
        for name, arm in given.items():
            if isinstance(arm, Arm):
                found[name] = arm
                continue
            if not isinstance(arm, Mapping):
                raise ValueError(f"arm {name!r} should be a table [arms.{name}]")
            tried = {k: v if isinstance(v, (list, tuple, dict, Range)) else [v] for k, v in arm.items()
                     if k not in RESERVED}  # fmt: skip
            found[name] = {key: arm[key] for key in RESERVED if key in arm} | {"tried": tried}
        return found

    @field_serializer("arms")
    def _as_written(self, arms: dict[str, Arm]) -> dict[str, Any]:
        return {
            name: arm.model_dump(mode="json", include=set(RESERVED), exclude_defaults=True)
            | arm.model_dump(mode="json")["tried"]
            for name, arm in arms.items()
        }

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for setting in ("losses", "temperatures", "seeds"):
            values = getattr(self, setting)
            if len(set(values)) < len(values):
                raise ValueError(f"`{setting}` names something twice: {list(values)}")
        for name in ("losses", "temperatures"):
            if self.arms and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`arms` say what is compared: leave `{name}` out")
        if not self.arms and self.REFERENCE not in self.losses:
            raise ValueError(f'`losses` must hold "{self.REFERENCE}", with which the others are compared')
        unknown = {arm.loss for arm in self.arms.values()} - set(self.TITLES)
        if unknown:
            raise ValueError(f"`arms`: {', '.join(sorted(unknown))} is no loss. Known: {', '.join(self.TITLES)}")
        self.check_losses()
        for name, arm in (self.arms or {}).items():
            for settings in [arm.example] if arm.drawn else arm.grid:
                try:
                    self.applied(settings)
                except UserError as error:
                    raise ValueError(f"arm {name!r}: {error}") from None
        try:
            self.plan()
        except ValidationError as error:
            one = error.errors()[0]
            where = "".join(f"`{part}` " for part in one["loc"] if isinstance(part, str))
            raise ValueError(where + one["msg"].removeprefix("Value error, ")) from None
        return self

    @property
    def evaluations(self) -> tuple[str, ...]:
        """Of what is reported, beside the task's own."""
        return ()

    def check_losses(self) -> None:
        """Refuse, as ValueError, losses that this recipe's setup has not."""

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused."""

    def tried(self, loss: str) -> Arm:
        """A loss and what is tried for it, where the recipe names no arms."""
        return Arm(loss=loss, tried={"temperature": self.temperatures})

    def plan(self) -> Plan:
        """What the engine is to do."""
        arms = self.arms or {loss: self.tried(loss) for loss in self.losses}
        arms = {name: arm.model_copy(update={"title": arm.title or self.TITLES.get(name, name)})
                for name, arm in arms.items()}  # fmt: skip
        those = [name for name, arm in arms.items() if arm.loss == self.REFERENCE and arm.follows is None]
        several = [name for name in those if arms[name].drawn or len(arms[name].grid) > 1]
        return Plan(
            arms=arms, reference=(several or those or [self.REFERENCE])[0], select_by=self.select_by, seeds=self.seeds,
            confirm_seeds=self.confirm_seeds, sampler=self.sampler, draws=self.draws,
            widen=self.widen, usual=None if self.arms else self.USUAL, evaluations=self.evaluations,
        )  # fmt: skip

    def applied(self, settings: Mapping[str, Any]) -> tuple[Self, float]:
        """This recipe with settings of an arm in the place of its own, and the arm's temperature.

        Settings of a table (`gate.*`, `rivals.*`) replace that setting alone.

        Raises:
            UserError: a setting that an arm may not vary, or that the recipe refuses.
        """
        changes: dict[str, Any] = {}
        tables = {table: dict(vars(getattr(self, table))) for table in self.TABLES}
        for name, value in settings.items():
            table, _, key = name.partition(".")
            if table in self.TABLES and key:
                if key not in tables[table]:
                    raise UserError(f"Setting `{name}` is unknown. Known of {table}: {', '.join(tables[table])}.")
                tables[table][key] = value
            elif name in self.VARIED:
                changes[name] = value
            elif name != "temperature":
                known = ", ".join(["temperature", *(f"{table}.*" for table in self.TABLES), *sorted(self.VARIED)])
                raise UserError(f"Setting `{name}`: an arm varies {known}.")
        for table, kind in self.TABLES.items():
            try:
                changes[table] = TypeAdapter(kind).validate_python(tables[table])
            except ValidationError as error:
                raise UserError(f"Setting `{table}`: {error.errors()[0]['msg']}.") from None
        temperature = settings.get("temperature", self.USUAL.settings["temperature"])
        if isinstance(temperature, (bool, str)) or not temperature > 0:
            raise UserError(f"Setting `temperature`: Input should be greater than 0. Found {temperature!r}.")
        return type(self)(**{**self.model_dump(), **changes, "arms": {}}), float(temperature)

    def told(self) -> dict[str, Any]:
        """The settings as a result keeps them: without places, and without those that are None or empty."""
        kept = self.model_dump(mode="json", exclude_none=True, exclude=set(self.PLACES))
        if self.arms:
            kept = {key: value for key, value in kept.items() if key not in ("losses", "temperatures")}
        return {key: value for key, value in kept.items() if value not in ([], {}, ())}
