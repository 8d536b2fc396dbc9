"""The losses that are compared, one file each; `in_setup` makes any of them the loss of a setup."""

from weince.lab.rivals.coordinates.atanh import Atanh
from weince.lab.rivals.coordinates.one_slope import OneSlope
from weince.lab.rivals.coordinates.student_t import StudentT
from weince.lab.rivals.learning import parameter_groups
from weince.lab.rivals.negatives.dcl import DCL
from weince.lab.rivals.negatives.dhel import DHEL
from weince.lab.rivals.negatives.hard_negatives import HardNegatives
from weince.lab.rivals.negatives.hardness import HardnessWeighted
from weince.lab.rivals.registry import (
    COLOURS,
    ENTRIES,
    NAMES,
    Entry,
    Loss,
    defined_for,
    grid_of,
    make_criterion,
    reserve_of,
)
from weince.lab.rivals.settings import Rivals
from weince.lab.rivals.setups import Setup, in_setup
from weince.lab.rivals.siglip import SigLIP
from weince.lab.rivals.temperatures.learnt import LearntTemperature
from weince.lab.rivals.temperatures.macl import MACL
from weince.lab.rivals.temperatures.matched import MatchedTemperature
from weince.lab.rivals.temperatures.measured import MeasuredTemperature
from weince.lab.rivals.terms.ldreg import LDReg
from weince.lab.rivals.terms.released import Released

__all__ = [
    "COLOURS",
    "DCL",
    "DHEL",
    "ENTRIES",
    "MACL",
    "NAMES",
    "Atanh",
    "Entry",
    "HardNegatives",
    "HardnessWeighted",
    "LDReg",
    "LearntTemperature",
    "Loss",
    "MatchedTemperature",
    "MeasuredTemperature",
    "OneSlope",
    "Released",
    "Rivals",
    "Setup",
    "SigLIP",
    "StudentT",
    "defined_for",
    "grid_of",
    "in_setup",
    "make_criterion",
    "parameter_groups",
    "reserve_of",
]
