"""What the engine sees of a task: train and validate an arm from a seed in a folder, resumably; test that folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Progress", "Settings", "Task"]

Settings = Mapping[str, Any]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


class Task(Protocol):
    """What is trained and scored.

    Attributes:
        metrics: score -> as a reader sees it. Scores are shares of one, the higher the better.
        unit: what progress is counted in, as "epochs".
        facts: what a reader should know of data and model, a sentence each.
        untrained: what is scored by `untrained_scores`, as a reader sees it; "" where there is no such thing.
    """

    metrics: Mapping[str, str]
    unit: str
    facts: tuple[str, ...]
    untrained: str

    def amount(self, settings: Settings) -> int:
        """Units of one trial."""
        ...

    def fingerprint(self) -> str:
        """Of the data and of what is trained, so that a continued comparison can tell them from others."""
        ...

    def train(
        self, loss: str, settings: Settings, seed: int, folder: Path, progress: Callable[[int], None]
    ) -> Mapping[str, Any]:
        """Train and validate, or go on where `folder` is, or tell what it holds where that is done.

        Args:
            loss: of the arm.
            settings: of the arm.
            seed: of everything that is random.
            folder: of this trial, which the same arm, settings and seed find again.
            progress: told how many units are done.

        Returns:
            scores (metric -> validation score), diverged (bool: then scores do not count), seconds, made (provenance).
        """
        ...

    def test(self, loss: str, settings: Settings, seed: int, folder: Path) -> Mapping[str, Any]:
        """Score what `train` left in `folder` on test data.

        Returns:
            scores; and, where there are any: outcomes (metric -> `engine.outcomes.packed`, of every test example in an
            order that all trials share), geometry (name -> number, what explains the scores), others (evaluation ->
            scores), curves (name -> values through training), histograms (name -> edges and counts).
        """
        ...

    def untrained_scores(self) -> Mapping[str, Mapping[str, float]]:
        """Scores ("validation" and "test") before training, where `untrained` names such a thing."""
        ...
