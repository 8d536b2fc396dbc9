"""Lightning: `Trainer(callbacks=[TailMonitor()])` logs what the gate does, for any loss of weince in any module."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from weince.adapters import needs
from weince.candidates import Candidates
from weince.gate import nearness_reference
from weince.loss import ContestLoss, WEINCEOutput

with needs("lightning", tested="2.6"):
    from lightning import LightningModule, Trainer
    from lightning.pytorch.callbacks import Callback

__all__ = ["TailMonitor", "statistics"]

SAMPLE = 1024
"""At most so many anchors for what needs pairs: positives, uniformity."""


@torch.no_grad()
def statistics(contest: Candidates, output: WEINCEOutput, quantile: float) -> dict[str, Tensor]:
    """Scalars of one contest.

        alignment  = mean over positive pairs of  |u - v|^2  =  2 - 2 s
        uniformity = log mean over pairs of anchors of  exp(-2 |u - v|^2)

    Args:
        contest: who competes.
        output: of its loss.
        quantile: of the nearness reference rho_0.

    Returns:
        loss, weight (mean), share of anchors with weight above one half, slope (mean over valid fits), share of valid
        fits, nearness and hardest-negative similarity (means), rho_0, positive similarity, alignment and uniformity.
        Without a fit what it measures is left out.

    Source: arXiv:2005.10242 (alignment and uniformity).
    """
    few = contest.of(slice(0, SAMPLE))
    positive = few.roles().positive
    pairs = positive.sum().clamp_min(1)
    similarity = few.similarity()
    of_positives = torch.where(positive, similarity, 0.0).sum() / pairs
    anchors = few.anchors
    distances = torch.pdist(anchors).square() if len(anchors) > 1 else anchors.new_zeros(1)
    found = {
        "loss": (output.per_anchor * output.counted).sum() / output.counted.sum().clamp_min(1),
        "weight": output.weight.mean(),
        "weight_above_half": (output.weight > 0.5).float().mean(),
        "positive_similarity": of_positives,
        "alignment": 2 - 2 * of_positives,
        "uniformity": torch.logsumexp(-2 * distances, dim=0) - torch.log(torch.tensor(float(len(distances)))),
    }
    if output.tail is not None:
        valid = output.tail.valid
        found |= {
            "slope": torch.where(valid, output.tail.slope, 0.0).sum() / valid.sum().clamp_min(1),
            "valid": valid.float().mean(),
            "nearness": output.tail.nearness.mean(),
            "hardest_negative_similarity": 1 - output.tail.nearness.mean(),
            "rho_0": nearness_reference(output.tail.nearness, quantile),
        }
    return {name: value.detach() for name, value in found.items()}


class _Seen(NamedTuple):
    name: str
    module: ContestLoss
    contest: Candidates
    output: WEINCEOutput


class TailMonitor(Callback):
    """Logs the statistics of every weince loss in the module, from a hook on the loss itself: no second forward.

    Scalars are logged as `PREFIX/NAME`; where the module holds several losses, or one that runs several times a step
    (the directions of two towers), as `PREFIX/LOSS.RUN/NAME`. A logger with TensorBoard's `add_figure` gets histograms
    of weight and slope now and then, which needs matplotlib.

    Args:
        every_n_steps: training batches from one measurement to the next; None for the trainer's `log_every_n_steps`.
        figure_every_n_steps: from one figure to the next; 0 for never.
        prefix: of the names.
    """

    def __init__(self, every_n_steps: int | None = None, figure_every_n_steps: int = 500, prefix: str = "tail") -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 1),
            ("figure_every_n_steps", figure_every_n_steps, 0),
        ):
            if value is not None and (not isinstance(value, int) or value < least):
                raise ValueError(f"Parameter `{name}` should be an integer >= {least}. Found {value!r}.")
        self.every_n_steps = every_n_steps
        self.figure_every_n_steps = figure_every_n_steps
        self.prefix = prefix
        self._handles: list[RemovableHandle] = []
        self._seen: list[_Seen] = []
        self._due = self._figure = False
        self._batches = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hooks every loss."""
        losses = {name: part for name, part in pl_module.named_modules() if isinstance(part, ContestLoss)}
        if not losses:
            raise ValueError(
                "Parameter `callbacks` should hold a TailMonitor only where the module has a weince loss as an "
                f"attribute. Found none in {type(pl_module).__name__}."
            )
        for name, loss in losses.items():
            self._handles.append(loss.register_forward_hook(self._hook(name.removesuffix(".inner"))))

    def _hook(self, name: str) -> Any:
        def see(module: nn.Module, arguments: tuple[Candidates], output: WEINCEOutput) -> None:
            if self._due and isinstance(module, ContestLoss):
                contest = arguments[0]
                detached = contest._replace(anchors=contest.anchors.detach(), candidates=contest.candidates.detach())
                if contest.own is not None:
                    detached = detached._replace(own=contest.own.detach())
                plain = output._replace(loss=output.loss.detach(), per_anchor=output.per_anchor.detach())
                self._seen.append(_Seen(name, module, detached, plain))

        return see

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Forgets the step before."""
        self._seen.clear()
        self._batches += 1
        every = self.every_n_steps or getattr(trainer, "log_every_n_steps", 0)
        self._figure = self.figure_every_n_steps > 0 and self._batches % self.figure_every_n_steps == 0
        self._due = self._figure or (every > 0 and self._batches % every == 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs the step's statistics."""
        for place, seen in enumerate(self._seen):
            runs = sum(other.name == seen.name for other in self._seen[:place])
            path = self.prefix if len(self._seen) == 1 else f"{self.prefix}/{seen.name}.{runs}"
            found = statistics(seen.contest, seen.output, seen.module.gate.quantile)
            values = {f"{path}/{name}": value for name, value in found.items()}
            # Written here, once: left to Lightning, the last value would be written again and again.
            pl_module.log_dict(values, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics({name: float(value) for name, value in values.items()}, trainer.global_step)
            if self._figure:
                self._draw(trainer, path, seen.output)
        self._seen.clear()
        self._due = False  # what validation does is its own affair

    def _draw(self, trainer: Trainer, path: str, output: WEINCEOutput) -> None:
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

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()
