"""The losses that are compared, by name: as a reader sees them, their colours, their settings, and what makes them.

InfoNCE, DCL and all forms of WEINCE have tiles; the others are computed on dense matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from torch import nn

from weince import CAUTIOUS, INFONCE, ContestLoss, Gate
from weince.checks import check_option
from weince.lab.rivals.coordinates.atanh import Atanh
from weince.lab.rivals.coordinates.one_slope import OneSlope
from weince.lab.rivals.coordinates.student_t import StudentT
from weince.lab.rivals.negatives.dcl import DCL
from weince.lab.rivals.negatives.dhel import DHEL
from weince.lab.rivals.negatives.hard_negatives import HardNegatives
from weince.lab.rivals.negatives.hardness import HardnessWeighted
from weince.lab.rivals.settings import Rivals
from weince.lab.rivals.setups import ALL_SETUPS, Setup, in_setup
from weince.lab.rivals.siglip import SigLIP
from weince.lab.rivals.temperatures.learnt import LearntTemperature
from weince.lab.rivals.temperatures.macl import MACL
from weince.lab.rivals.temperatures.matched import MatchedTemperature
from weince.lab.rivals.temperatures.measured import MeasuredTemperature
from weince.lab.rivals.terms.ldreg import LDReg
from weince.lab.rivals.terms.released import Released

__all__ = ["COLOURS", "ENTRIES", "NAMES", "Entry", "Loss", "defined_for", "grid_of", "make_criterion", "reserve_of"]

Loss = Literal[
    "infonce",
    "weince",
    "endpoint",
    "cautious",
    "cautious-dcl",
    "weibit",
    "weibit-line",
    "one-slope",
    "infonce-learnt",
    "infonce-measured",
    "matched-temperature",
    "atanh",
    "student-t",
    "dcl",
    "dhel",
    "hard-negatives",
    "macl",
    "siglip",
    "hardness",
    "ldreg",
    "weince-released",
]
Values = tuple[float, ...]
SLOPE = 8.0
"""Of "one-slope" and "student-t" where the gate measures slopes."""
TUNED: dict[str, Values | Literal["temperatures"]] = {"temperature": "temperatures"}
RESERVE: dict[str, Values] = {"temperature": (0.01, 0.02, 1.0, 2.0)}
THREE: Values = (0.05, 0.1, 0.2)
BEYOND_THREE: Values = (0.01, 0.02, 0.5, 1.0)


@dataclass(frozen=True)
class Entry:
    """A loss that is compared.

    Attributes:
        title: as a reader sees it.
        colour: of its lines.
        make: from a temperature, a gate and the settings of the rivals.
        grid: setting, as an arm varies it -> the values tried; "temperatures" are those of the recipe. Six settings in
            all, or one where it is empty.
        reserve: setting -> values below and above its grid, for when the best lies at an end of it.
        setups: where it is defined.
    """

    title: str
    colour: str
    make: Callable[[float, Gate, Rivals], ContestLoss | Released]
    grid: Mapping[str, Values | Literal["temperatures"]] = field(default_factory=dict)
    reserve: Mapping[str, Values] = field(default_factory=dict)
    setups: frozenset[Setup] = ALL_SETUPS


def _with(temperature: float, gate: Gate, *, decoupled: bool = False, **changes: Any) -> ContestLoss:
    """The core's loss, with some settings of the gate replaced."""
    return ContestLoss(temperature, replace(gate, **changes), decoupled=decoupled, gather_distributed=True)


def _cautious(temperature: float, gate: Gate, *, decoupled: bool) -> ContestLoss:
    """The cautious gate; a bound on the slope is the recipe's, where it has one."""
    bound = CAUTIOUS.slope_max if gate.slope_max is None else gate.slope_max
    return _with(temperature, gate, decoupled=decoupled, evidence=CAUTIOUS.evidence, slope_max=bound)


def _slope(gate: Gate) -> float:
    """The gate's, where it is a number."""
    return SLOPE if isinstance(gate.slope, str) else gate.slope


ENTRIES: dict[str, Entry] = {
    "infonce": Entry(
        "InfoNCE",
        "#4477AA",
        lambda temperature, gate, rivals: ContestLoss(temperature, INFONCE, gather_distributed=True),
        TUNED,
        RESERVE,
    ),
    "weince": Entry("WEINCE", "#D1495B", lambda temperature, gate, rivals: _with(temperature, gate), TUNED, RESERVE),
    "endpoint": Entry(
        "WEINCE (endpoint)",
        "#FF9977",
        lambda temperature, gate, rivals: _with(temperature, gate, evidence="endpoint"),
        TUNED,
        RESERVE,
    ),
    "cautious": Entry(
        "WEINCE (cautious)",
        "#AA7722",
        lambda temperature, gate, rivals: _cautious(temperature, gate, decoupled=False),
        TUNED,
        RESERVE,
    ),
    "cautious-dcl": Entry(
        "DCL (cautious)",
        "#FFAACC",
        lambda temperature, gate, rivals: _cautious(temperature, gate, decoupled=True),
        TUNED,
        RESERVE,
    ),
    "weibit": Entry(
        "Weibit",
        "#8800EE",
        lambda temperature, gate, rivals: _with(
            temperature, gate, evidence=1.0, slope="anchor", slope_estimator="maximum_likelihood"
        ),
    ),
    "weibit-line": Entry(
        "Weibit (line)",
        "#CC66FF",
        lambda temperature, gate, rivals: _with(
            temperature, gate, evidence=1.0, slope="anchor", slope_estimator="line"
        ),
    ),
    "one-slope": Entry(
        "one slope",
        "#6655BB",
        lambda temperature, gate, rivals: OneSlope(_slope(gate)),
        {"gate.slope": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
        {"gate.slope": (0.25, 0.5, 64.0, 128.0)},
    ),
    "infonce-learnt": Entry(
        "InfoNCE (learnt temperature)",
        "#000066",
        lambda temperature, gate, rivals: LearntTemperature(temperature, rivals.learning_rate_multiple),
        {"temperature": THREE, "rivals.learning_rate_multiple": (1.0, 10.0)},
        {"temperature": BEYOND_THREE, "rivals.learning_rate_multiple": (0.01, 0.1, 100.0, 1000.0)},
    ),
    "infonce-measured": Entry(
        "InfoNCE (measured temperature)",
        "#9999AA",
        lambda temperature, gate, rivals: MeasuredTemperature(temperature, gate),
    ),
    "matched-temperature": Entry(
        "matched temperature",
        "#AA3377",
        lambda temperature, gate, rivals: MatchedTemperature(temperature, gate, rivals.least_temperature),
        TUNED,
        RESERVE,
    ),
    "atanh": Entry("2 atanh", "#AACCBB", lambda temperature, gate, rivals: Atanh()),
    "student-t": Entry(
        "Student-t",
        "#002200",
        lambda temperature, gate, rivals: StudentT(rivals.offset, _slope(gate)),
        {"rivals.offset": (0.1, 0.5, 2.0), "gate.slope": (4.0, 16.0)},
        {"rivals.offset": (0.01, 0.03, 8.0, 32.0), "gate.slope": (1.0, 2.0, 32.0, 64.0)},
    ),
    "dcl": Entry("DCL", "#CCBB44", lambda temperature, gate, rivals: DCL(temperature), TUNED, RESERVE),
    "dhel": Entry("DHEL", "#661166", lambda temperature, gate, rivals: DHEL(temperature), TUNED, RESERVE, DHEL.SETUPS),
    "hard-negatives": Entry(
        "hard negatives",
        "#66CCEE",
        lambda temperature, gate, rivals: HardNegatives(temperature, rivals.concentration, rivals.class_prior),
        {"temperature": THREE, "rivals.concentration": (0.5, 1.0)},
        {"temperature": BEYOND_THREE, "rivals.concentration": (0.1, 0.25, 2.0, 4.0)},
    ),
    "macl": Entry(
        "MACL",
        "#881133",
        lambda temperature, gate, rivals: MACL(temperature, rivals.macl_alpha, rivals.macl_threshold),
        {"temperature": THREE, "rivals.macl_alpha": (0.25, 0.5)},
        {"temperature": BEYOND_THREE, "rivals.macl_alpha": (0.05, 0.1, 0.75, 1.0)},
    ),
    "siglip": Entry(
        "SigLIP",
        "#CC0011",
        lambda temperature, gate, rivals: SigLIP(learning_rate_multiple=rivals.learning_rate_multiple),
        {"rivals.learning_rate_multiple": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)},
        {"rivals.learning_rate_multiple": (0.1, 0.3, 1000.0, 3000.0)},
        SigLIP.SETUPS,
    ),
    "hardness": Entry(
        "hardness weighting",
        "#331133",
        lambda temperature, gate, rivals: HardnessWeighted(temperature, rivals.hardness),
        {"temperature": THREE, "rivals.hardness": (5.0, 9.0)},
        {"temperature": BEYOND_THREE, "rivals.hardness": (1.0, 2.0, 15.0, 30.0)},
    ),
    "ldreg": Entry(
        "LDReg",
        "#5500AA",
        lambda temperature, gate, rivals: LDReg(temperature, rivals.dimension_weight, rivals.neighbours),
        {"temperature": THREE, "rivals.dimension_weight": (0.005, 0.01)},
        {"temperature": BEYOND_THREE, "rivals.dimension_weight": (0.001, 0.002, 0.05, 0.1)},
    ),
    "weince-released": Entry(
        "WEINCE released",
        "#228833",
        lambda temperature, gate, rivals: Released(temperature, gate),
        TUNED,
        RESERVE,
        Released.SETUPS,
    ),
}
NAMES: dict[str, str] = {name: entry.title for name, entry in ENTRIES.items()}
COLOURS: dict[str, str] = {name: entry.colour for name, entry in ENTRIES.items()}
"""Tell apart with any colour vision, as far as so many can."""


def _entry(loss: str) -> Entry:
    if loss not in ENTRIES:
        raise ValueError(f"Parameter `loss` names no criterion. Known: {', '.join(ENTRIES)}. Found {loss!r}.")
    return ENTRIES[loss]


def grid_of(loss: str, temperatures: tuple[float, ...]) -> dict[str, tuple[float, ...]]:
    """The settings that are tried for a loss: {} where there is one alone.

    Args:
        loss: one of `Loss`.
        temperatures: the recipe's.

    Examples:
        >>> grid_of("dcl", (0.1, 0.2)), grid_of("atanh", (0.1, 0.2))
        ({'temperature': (0.1, 0.2)}, {})
    """
    return {
        name: temperatures if values == "temperatures" else tuple(values) for name, values in _entry(loss).grid.items()
    }


def reserve_of(loss: str) -> dict[str, tuple[float, ...]]:
    """Values by which the grid of a loss is widened when its best setting lies at an end."""
    return dict(_entry(loss).reserve)


def defined_for(setup: Setup) -> tuple[str, ...]:
    """The losses that a setup has.

    Examples:
        >>> [name for name in ENTRIES if name not in defined_for("labels")]
        ['dhel', 'siglip', 'weince-released']
    """
    check_option("setup", setup, get_args(Setup))
    return tuple(name for name, entry in ENTRIES.items() if setup in entry.setups)


def make_criterion(
    loss: str,
    temperature: float,
    gate: Gate,
    rivals: Rivals = Rivals(),
    setup: Setup = "two-views",
    *,
    queue: tuple[int, int] | None = None,
) -> nn.Module:
    """The loss of that name, for a setup; across processes it takes the candidates of all.

    Args:
        loss: one of `Loss`.
        temperature: tau, > 0.
        gate: of WEINCE and of what is measured like it.
        rivals: settings of the others.
        setup: where it is used.
        queue: rows and width of the queue, for "queue".

    Raises:
        ValueError: a loss that there is not, or that is not defined for the setup.
    """
    entry = _entry(loss)
    if loss not in defined_for(setup):
        known = ", ".join(defined_for(setup))
        raise ValueError(f"Parameter `loss` should be one that is defined for {setup}: {known}. Found {loss!r}.")
    return in_setup(entry.make(temperature, gate, rivals), setup, queue)
