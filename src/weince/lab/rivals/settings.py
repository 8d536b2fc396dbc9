"""The settings of the rivals, a table of every recipe."""

from __future__ import annotations

from dataclasses import dataclass

from weince.checks import check_integer, check_number

__all__ = ["Rivals"]


@dataclass(frozen=True)
class Rivals:
    """Settings of the other losses.

    Attributes:
        concentration: of "hard-negatives" on those with a large similarity, >= 0.
        class_prior: of "hard-negatives", the share of negatives that are of the anchor's class, in [0, 1).
        least_temperature: of "matched-temperature", the lowest that an anchor may get, > 0.
        offset: of "student-t", the distance of its pole from the cap, >= 0.
        learning_rate_multiple: of "infonce-learnt" and "siglip", of the encoder's learning rate, >= 0.
        macl_alpha: of "macl", how far the temperature follows the alignment, in [0, 1].
        macl_threshold: of "macl", the alignment at which the temperature is the one given, in [0, 1].
        hardness: of "hardness", on negatives with a large similarity, >= 0.
        dimension_weight: of "ldreg", on the mean log local dimension, >= 0.
        neighbours: of "ldreg", from how many negatives a dimension is estimated, >= 2.
    """

    concentration: float = 1.0
    class_prior: float = 0.1
    least_temperature: float = 0.03
    offset: float = 0.5
    learning_rate_multiple: float = 1.0
    macl_alpha: float = 0.5
    macl_threshold: float = 0.0
    hardness: float = 5.0
    dimension_weight: float = 0.01
    neighbours: int = 64

    def __post_init__(self) -> None:
        for name in ("concentration", "offset", "learning_rate_multiple", "hardness", "dimension_weight"):
            check_number(name, getattr(self, name), "finite and >= 0", lambda v: v >= 0)
        for name in ("macl_alpha", "macl_threshold"):
            check_number(name, getattr(self, name), "in [0, 1]", lambda v: 0 <= v <= 1)
        check_number("class_prior", self.class_prior, "in [0, 1)", lambda v: 0 <= v < 1)
        check_number("least_temperature", self.least_temperature, "finite and > 0", lambda v: v > 0)
        check_integer("neighbours", self.neighbours, 2)
