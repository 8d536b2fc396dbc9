"""What the recipes share that compare any of the losses: each is tuned over a grid of its own."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from weince.gate import Gate
from weince.lab.engine.plan import Arm, Usual
from weince.lab.engine.recipe import Comparison
from weince.lab.rivals import ENTRIES, NAMES, Loss, Rivals, Setup, defined_for, grid_of, reserve_of
from weince.lab.training.settings import HeadSettings

__all__ = ["SHOWN", "HeadComparison", "TunedLosses"]

SETTINGS = 6
"""That a loss with a grid of its own tries."""
SHOWN: tuple[Loss, ...] = ("infonce", "weince", "cautious", "weibit")
"""What is compared where nobody says what."""
SIX = (0.03, 0.05, 0.07, 0.1, 0.2, 0.5)


class TunedLosses(Comparison):
    """A comparison of losses of the registry."""

    TITLES: ClassVar = NAMES
    TABLES: ClassVar = {"gate": Gate, "rivals": Rivals}

    SETUP: ClassVar[Setup]

    losses: Annotated[tuple[Loss, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared: each at every temperature, or over a grid of its own where it has other settings or none."""

    @property
    def setup(self) -> Setup:
        """Where its losses are used."""
        return self.SETUP

    def check_losses(self) -> None:
        """Those of its setup alone, and as many temperatures as settings of other losses."""
        asked = {arm.loss for arm in self.arms.values()} or set(self.losses)
        if wrong := [loss for loss in NAMES if loss in asked and loss not in defined_for(self.setup)]:
            raise ValueError(f"{', '.join(wrong)}: not defined for {self.setup.replace('-', ' ')}")
        own = [one for one in self.losses if ENTRIES[one].grid and "temperatures" not in ENTRIES[one].grid.values()]
        if own and not self.arms and len(self.temperatures) != SETTINGS:
            raise ValueError(
                f"all try equally many settings: {', '.join(own)} try {SETTINGS} of their own, so `temperatures` "
                f"should be {SETTINGS}; found {len(self.temperatures)}"
            )

    def tried(self, loss: str) -> Arm:
        """The registry's grid and reserve."""
        tried: dict[str, Any] = dict(grid_of(loss, self.temperatures))
        return Arm(loss=loss, tried=tried, reserve=reserve_of(loss) if self.widen else {})


class HeadComparison(HeadSettings, TunedLosses):
    """A comparison of small models on frozen features."""

    FREE: ClassVar = TunedLosses.FREE | HeadSettings.FREE
    PLACES: ClassVar = frozenset({"output", "data_dir"})
    USUAL: ClassVar = Usual(settings={"temperature": 0.07}, whose="CLIP's first temperature")
    VARIED: ClassVar = frozenset({"learning_rate", "batch_size", "epochs", "schedule", "hidden", "projection"})

    losses: Annotated[tuple[Loss, ...], Field(min_length=1)] = SHOWN
    """What is compared: each at every temperature, or over a grid of its own where it has other settings or none."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = SIX
    """Every loss with a temperature is tried at every one of these."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (7, 21)
    """Seeds by which settings are chosen: of everything random, the same for every loss and setting."""
    confirm_seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (1, 2, 3, 4, 5)
    """Other seeds, from which the chosen settings are reported."""
    widen: Annotated[int, Field(ge=0)] = 3
    """Settings at most by which the grid of a loss is widened while its best one lies at an end."""
    select_by: Any = "recall_at_1"
    """Validation score, averaged over seeds, by which each loss's settings are chosen."""
