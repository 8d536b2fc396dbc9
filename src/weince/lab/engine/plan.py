"""The plan of a comparison: arms, the settings that are tried for each, and the seeds; it knows no task."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from weince.lab.settings import Name

__all__ = ["Arm", "Plan", "Point", "Range", "Usual", "Value", "slug", "words"]

Value = bool | int | float | str
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Range(BaseModel):
    """An interval from which a sampler draws."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    low: float
    high: float
    log: bool = False


class Arm(BaseModel):
    """A loss and the settings tried for it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss: str
    title: str = ""
    """As a reader sees it; the arm's name when empty."""
    follows: str | None = None
    """The arm from which it takes what was chosen, its own settings put over that."""
    tried: dict[str, tuple[Value, ...] | Range] = {}
    reserve: dict[str, tuple[float, ...]] = {}
    """Numbers beyond a grid, to which it is widened while its best setting lies at that end."""

    @property
    def drawn(self) -> bool:
        """Whether a sampler chooses its settings."""
        return any(isinstance(values, Range) for values in self.tried.values())

    @property
    def grid(self) -> list[dict[str, Value]]:
        """All its settings, where there is a grid."""
        lists = [values for values in self.tried.values() if not isinstance(values, Range)]
        return [dict(zip(self.tried, values, strict=True)) for values in itertools.product(*lists)]

    @property
    def example(self) -> dict[str, Value]:
        """One of its settings."""
        return {key: values.low if isinstance(values, Range) else values[0] for key, values in self.tried.items()}

    def beyond(self, best: Mapping[str, Value], known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        """The next setting outside of those that are known, where the best one lies at an end and there is one.

        Examples:
            >>> arm = Arm(loss="infonce", tried={"temperature": (0.1, 0.2)}, reserve={"temperature": (0.02, 0.05, 0.5)})
            >>> arm.beyond({"temperature": 0.1}, arm.grid)
            {'temperature': 0.05}
        """
        for name, numbers in self.reserve.items():
            held = [one[name] for one in known if name in one]
            if not held or any(isinstance(value, (bool, str)) for value in held):
                continue
            below = [number for number in numbers if number < min(held)]  # pyright: ignore[reportOperatorIssue]
            above = [number for number in numbers if number > max(held)]  # pyright: ignore[reportOperatorIssue]
            if best[name] == min(held) and below:
                return {**best, name: max(below)}
            if best[name] == max(held) and above:
                return {**best, name: min(above)}
        return None


class Usual(BaseModel):
    """A setting of the reference that others use, reported beside the chosen one where it was tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings: dict[str, Value]
    whose: str
    """As in "the paper's"."""


class Point(NamedTuple):
    """What one trial does: settings of an arm, from some seeds, scored on test data or not."""

    arm: str
    settings: str
    """As JSON, sorted; or "draw N", until a sampler says more."""
    seeds: tuple[int, ...]
    tested: str = ""
    """By what it is scored on test data, as `Plan.tested`; "" where it only chooses."""


class Plan(BaseModel):
    """What a comparison does."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    reference: str
    """The arm that the others are compared with."""
    select_by: str
    """The validation score by which settings are chosen, the higher the better."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """By which settings are chosen."""
    confirm_seeds: tuple[Seed, ...] = ()
    """From which the chosen ones are reported; `seeds` when empty."""
    sampler: Literal["tpe", "random", "qmc"] = "tpe"
    """That draws from ranges."""
    draws: Annotated[int, Field(ge=1)] = 20
    """Settings drawn for each arm with a range."""
    widen: Annotated[int, Field(ge=0)] = 0
    """Settings at most by which a grid is widened whose best one lies at an end, from the arm's reserve."""
    usual: Usual | None = None
    evaluations: tuple[str, ...] = ()
    """Of what is reported, beside the task's own: those that are asked for later are made up for."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Plan:
        for name in ("seeds", "confirm_seeds"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"`{name}` names a seed twice: {list(getattr(self, name))}")
        if set(self.confirm_seeds) & set(self.seeds):
            raise ValueError("`confirm_seeds` must be others than `seeds`: those have chosen the settings")
        if self.reference not in self.arms:
            raise ValueError(f"the reference {self.reference!r} is none of the arms: {', '.join(self.arms)}")
        if self.arms[self.reference].follows is not None:
            raise ValueError(f"the reference {self.reference!r} follows another arm, and should follow none")
        for name, arm in self.arms.items():
            if not all(isinstance(values, Range) or values for values in arm.tried.values()):
                raise ValueError(f"arm {name!r} has a setting without a value")
            if arm.drawn and not all(isinstance(values, Range) or len(values) == 1 for values in arm.tried.values()):
                raise ValueError(f"arm {name!r} mixes a grid and a range")
            if not arm.drawn and len({json.dumps(one, sort_keys=True) for one in arm.grid}) < len(arm.grid):
                raise ValueError(f"arm {name!r} names something twice: {arm.tried}")
            if arm.follows is not None and (arm.follows not in self.arms or self.arms[arm.follows].follows is not None):
                raise ValueError(f"arm {name!r} should follow an arm that follows none: found {arm.follows!r}")
            if arm.follows is not None and (arm.drawn or len(arm.grid) > 1):
                raise ValueError(f"arm {name!r} follows another, so each of its settings should have one value")
        tried = {name: self.count(name) for name in self.arms if self.count(name) > 1}
        if len(set(tried.values())) > 1:
            raise ValueError(f"arms must try equally many settings, or one: found {tried}")
        return self

    def count(self, arm: str) -> int:
        """Settings that are tried for an arm."""
        return self.draws if self.arms[arm].drawn else len(self.arms[arm].grid)

    def title(self, arm: str) -> str:
        """An arm as a reader sees it."""
        return self.arms[arm].title or arm

    @property
    def reported(self) -> tuple[int, ...]:
        """Seeds from which the chosen settings are reported."""
        return self.confirm_seeds or self.seeds

    @property
    def tested(self) -> str:
        """By what reported trials are scored on test data."""
        return " ".join(["test", *sorted(self.evaluations)])

    def points(self) -> list[Point]:
        """What is tried to choose settings, whole pairs of seeds first."""
        found = []
        for name, arm in self.arms.items():
            if arm.follows is not None:
                continue
            if arm.drawn:
                found += [Point(name, f"draw {number}", self.seeds) for number in range(self.draws)]
            else:
                found += [
                    Point(name, json.dumps(settings, sort_keys=True), (seed,))
                    for settings in arm.grid
                    for seed in self.seeds
                ]
        return sorted(found, key=lambda point: self.seeds.index(point.seeds[0]))


def words(settings: Mapping[str, Any]) -> str:
    """Settings as a reader sees them.

    Examples:
        >>> words({"temperature": 0.1, "gate.slope": "unit"})
        'at 0.1, slope unit'
    """
    said = []
    for key, value in settings.items():
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        said.append(f"at {shown}" if key == "temperature" else f"{key.rpartition('.')[2].replace('_', ' ')} {shown}")
    return ", ".join(sorted(said, key=lambda text: not text.startswith("at ")))


def slug(arm: str, settings: Mapping[str, Any], seed: int) -> str:
    """Folder of a trial.

    Examples:
        >>> slug("weince", {"temperature": 0.1}, 7)
        'weince-t0.1-s7'
    """
    if set(settings) <= {"temperature"}:
        middle = [f"t{value!r}" for value in settings.values()]
    else:
        middle = [hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:8]]
    return "-".join([arm, *middle, f"s{seed}"])
