"""The losses that are compared, by name: as a reader sees them, their colours, their settings, and what makes them.

Beside InfoNCE and the two forms of WEINCE stand other losses for hard negatives. They are for comparison, on dense
matrices; only WEINCE and InfoNCE have tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from weince import Gate, InfoNCELoss, SupervisedLoss, TwoTowerLoss, WEINCELoss
from weince.checks import check_number
from weince.lab.rivals.decoupled import Decoupled
from weince.lab.rivals.dense_contest import OfTwoViews
from weince.lab.rivals.hard_negatives import HardNegatives
from weince.lab.rivals.matched_temperature import MatchedTemperature
from weince.lab.rivals.released import Released

__all__ = ["COLOURS", "NAMES", "Loss", "Rivals", "Setup", "grid_of", "make_criterion", "parameter_groups", "reserve_of"]

Loss = Literal[
    "infonce", "weince", "endpoint", "weibit", "weince-released", "dcl", "hard-negatives", "matched-temperature"
]
NAMES: dict[str, str] = {
    "infonce": "InfoNCE",
    "weince": "WEINCE",
    "endpoint": "endpoint",
    "weibit": "WEIBIT",
    "weince-released": "WEINCE released",
    "dcl": "DCL",
    "hard-negatives": "hard negatives",
    "matched-temperature": "matched temperature",
}
COLOURS: dict[str, str] = {
    "infonce": "#4477AA",
    "weince": "#D1495B",
    "weince-released": "#228833",
    "dcl": "#CCBB44",
    "hard-negatives": "#66CCEE",
    "matched-temperature": "#AA3377",
}
"""Tell apart with any colour vision."""


@dataclass(frozen=True)
class Rivals:
    """Settings of the other losses.

    Attributes:
        concentration: of "hard-negatives" on those with a large similarity, >= 0.
        class_prior: of "hard-negatives", the share of negatives that are of the anchor's class, in [0, 1).
        least_temperature: of "matched-temperature", the lowest that an anchor may get, > 0.
    """

    concentration: float = 1.0
    class_prior: float = 0.1
    least_temperature: float = 0.03

    def __post_init__(self) -> None:
        check_number("concentration", self.concentration, "finite and >= 0", lambda v: v >= 0)
        check_number("class_prior", self.class_prior, "in [0, 1)", lambda v: 0 <= v < 1)
        check_number("least_temperature", self.least_temperature, "finite and > 0", lambda v: v > 0)


def make_criterion(
    loss: str, temperature: float, gate: Gate, rivals: Rivals = Rivals(), setup="two-views", queue=(1, 1)
) -> nn.Module:
    """The loss of that name.

    Args:
        loss: one of `Loss`.
        temperature: tau, > 0.
        gate: of WEINCE and of what is measured like it.
        rivals: settings of the others.
    """
    from dataclasses import replace

    from weince import INFONCE

    if setup == "queue":
        from weince import QueueLoss

        g = {
            "infonce": INFONCE,
            "endpoint": replace(gate, evidence="endpoint"),
            "weibit": replace(gate, evidence=1.0, slope_estimator="maximum_likelihood"),
        }.get(loss, gate)
        return QueueLoss(*queue, temperature, g, gather_distributed=True)
    kind = {"labels": SupervisedLoss, "two-towers": TwoTowerLoss, "two-views": WEINCELoss}[setup]
    if loss == "endpoint":
        return kind(temperature, replace(gate, evidence="endpoint"))
    if loss == "weibit":
        return kind(temperature, replace(gate, evidence=1.0, slope_estimator="maximum_likelihood"))
    if setup != "two-views":
        return kind(temperature, INFONCE if loss == "infonce" else gate)
    if loss == "infonce":
        return InfoNCELoss(temperature, gather_distributed=True)
    if loss == "weince":
        return WEINCELoss(temperature, gate, gather_distributed=True)
    if loss == "weince-released":
        return Released(temperature, gate)
    if loss == "dcl":
        return OfTwoViews(Decoupled(temperature))
    if loss == "hard-negatives":
        return OfTwoViews(HardNegatives(temperature, rivals.concentration, rivals.class_prior))
    if loss == "matched-temperature":
        return OfTwoViews(MatchedTemperature(temperature, gate, rivals.least_temperature))
    raise ValueError(f"Parameter `loss` names no criterion. Found {loss!r}.")


Setup = Literal["two-views", "labels", "two-towers"]


def grid_of(loss, temperatures):
    return {} if loss == "weibit" else {"temperature": tuple(temperatures)}


def reserve_of(loss):
    return {} if loss == "weibit" else {"temperature": (0.01, 0.02, 1.0, 2.0)}


def parameter_groups(criterion, learning_rate):
    return []
