"""Lightning: `Trainer(callbacks=[TailMonitor()])` logs what the gate does, for any loss of weince in any module."""

from __future__ import annotations

from typing import Any

from weince.adapters import needs
from weince.checks import check_integer
from weince.monitor import Monitor
from weince.output import LossOutput

with needs("lightning", tested="2.6"):
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback

__all__ = ["TailMonitor"]


class TailMonitor(Callback):
    """Logs the statistics of every weince loss in the module (`weince.monitor.statistics`).

    Scalars are logged as `PREFIX/NAME`; where the module holds several losses, or one that runs several times a step
    (the directions of two towers), as `PREFIX/LOSS.RUN/NAME`. A logger with TensorBoard's `add_figure` gets histograms
    of weight and slope now and then, which needs matplotlib.

    Args:
        every_n_steps: training batches from one measurement to the next; None for the trainer's `log_every_n_steps`.
        figure_every_n_steps: from one figure to the next; 0 for never.
        prefix: of the names.
    """

    def __init__(self, every_n_steps: int | None = None, figure_every_n_steps: int = 500, prefix: str = "tail") -> None:
        self.every_n_steps = None if every_n_steps is None else check_integer("every_n_steps", every_n_steps, 1)
        self.figure_every_n_steps = check_integer("figure_every_n_steps", figure_every_n_steps, 0)
        self.monitor = Monitor(prefix)
        self._figure = False
        self._batches = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hooks every loss."""
        if not self.monitor.attach([pl_module]):
            raise ValueError(
                "Parameter `callbacks` should hold a TailMonitor only where the module has a weince loss as an "
                f"attribute. Found none in {type(pl_module).__name__}."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Forgets the step before."""
        self.monitor.forget()
        self._batches += 1
        every = self.every_n_steps or getattr(trainer, "log_every_n_steps", 0)
        self._figure = self.figure_every_n_steps > 0 and self._batches % self.figure_every_n_steps == 0
        self.monitor.due = self._figure or (every > 0 and self._batches % every == 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the step's statistics."""
        for seen in self.monitor.seen():
            values = {f"{seen.path}/{name}": value for name, value in seen.statistics.items()}
            # Written here, once: left to Lightning, the last value would be written again and again.
            pl_module.log_dict(values, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics({name: float(value) for name, value in values.items()}, trainer.global_step)
            if self._figure:
                self._draw(trainer, seen.path, seen.output)
        self.monitor.forget()
        self.monitor.due = False  # what validation does is its own affair

    def _draw(self, trainer: Trainer, path: str, output: LossOutput) -> None:
        loggers = (getattr(logger, "experiment", None) for logger in trainer.loggers)
        boards: list[Any] = [board for board in loggers if hasattr(board, "add_figure")]
        if not boards:
            return
        from matplotlib.figure import Figure

        panels = {"weight": output.weight}
        if output.tail is not None:
            panels |= {"slope": output.tail.slope, "log10 nearness": output.tail.nearness.log10()}
        figure = Figure(figsize=(3.4 * len(panels), 2.6), layout="constrained")
        for place, (name, values) in enumerate(panels.items(), 1):
            ax = figure.add_subplot(1, len(panels), place)
            ax.hist(values.float().cpu().numpy(), bins=40, color="#c2410c")
            ax.set_xlabel(name)
            ax.set_yticks([])
            ax.spines[["top", "right", "left"]].set_visible(False)
        for board in boards:
            board.add_figure(f"{path}/histograms", figure, trainer.global_step)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Takes the hooks away from a training that failed or was stopped, which has no teardown."""
        self.monitor.detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the hooks away."""
        self.monitor.detach()
