"""Hugging Face Trainer: `trainer.add_callback(TailCallback(trainer))` logs what the gate does, beside the loss.

For any trainer built on it, sentence-transformers' too, and any loss of weince in the model or as the trainer's loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from weince.adapters import needs
from weince.checks import check_integer
from weince.monitor import Monitor

with needs("transformers", tested="5"):
    from transformers import Trainer, TrainerCallback

__all__ = ["TailCallback"]


class TailCallback(TrainerCallback):
    """Logs the statistics of every weince loss (`weince.monitor.statistics`) as `PREFIX/NAME`, where Trainer logs.

    Where there are several losses, or one that runs several times a step, the names are `PREFIX/LOSS.RUN/NAME`.

    Args:
        trainer: whose `log` is used, and in whose model and loss the losses are looked for.
        every_n_steps: optimiser steps from one measurement to the next; None for the trainer's `logging_steps`.
        prefix: of the names.
    """

    def __init__(self, trainer: Trainer, every_n_steps: int | None = None, prefix: str = "tail") -> None:
        self.trainer = trainer
        self.every_n_steps = None if every_n_steps is None else check_integer("every_n_steps", every_n_steps, 1)
        self.monitor = Monitor(prefix)

    def _modules(self) -> Iterator[nn.Module]:
        found = [getattr(self.trainer, name, None) for name in ("model", "loss", "compute_loss_func")]
        for part in found:
            # sentence-transformers takes a loss for each of several data sets.
            for each in part.values() if isinstance(part, dict) else [part]:
                if isinstance(each, nn.Module):
                    yield each

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Hooks every loss."""
        if not self.monitor.attach(self._modules()):
            raise ValueError(
                "Parameter `trainer` should have a weince loss in its model or as its loss. "
                f"Found none in {type(self.trainer).__name__}."
            )

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Looks at every so many steps."""
        every = self.every_n_steps or max(1, int(state.logging_steps or args.logging_steps or 1))
        self.monitor.forget()
        self.monitor.due = (state.global_step + 1) % every == 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Logs the step's statistics."""
        seen = self.monitor.seen()
        self.monitor.forget()
        self.monitor.due = False  # what evaluation does is its own affair
        if seen:
            self.trainer.log(
                {f"{run.path}/{name}": float(value) for run in seen for name, value in run.statistics.items()}
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the hooks away."""
        self.monitor.detach()
