"""The model that is trained: encoder, projection and loss, every random choice of it made from (seed, step)."""

from __future__ import annotations

import copy
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from weince import ContestLoss, LossOutput, Options, contest_output
from weince.contest import Contest
from weince.gate import Gate, nearness_reference
from weince.lab.data.sets import Images
from weince.lab.rivals import make_criterion, parameter_groups
from weince.lab.training.batch_norm import synchronised
from weince.lab.training.encoders import make_encoder, make_projection
from weince.lab.training.settings import ImageSettings, Run, device_of
from weince.lab.training.views import make_views, own_views_of
from weince.processes.gather import default_processes, rank, world_size

__all__ = ["Contrastive", "Encoded", "build"]


class Encoded(NamedTuple):
    """The two halves of a model: images -> features h -> embeddings z."""

    encoder: nn.Module
    projection: nn.Module


def build(recipe: ImageSettings, seed: int, images: Images) -> Encoded:
    """Encoder and projection with the initial weights that belong to `seed`, whatever the loss."""
    _, channels, size, _ = images.pixels.shape
    encoder, width = make_encoder(recipe, channels, size, seed)
    return Encoded(encoder, make_projection(width, recipe.projection, seed))


class Contrastive(LightningModule):
    """Two views of a batch -> encoder -> projection -> criterion. Every random choice follows from (seed, step)."""

    pixels: Tensor

    def __init__(self, recipe: ImageSettings, run: Run, images: Images) -> None:
        super().__init__()
        self.recipe, self.run = recipe, run
        self.encoder, self.projection = build(recipe, run.seed, images)
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.encoder.to(memory_format=self.layout)
        self.encoder = synchronised(self.encoder, device_of(recipe).type == "cuda")
        self.keys = None if recipe.queue is None else _frozen_copy(self.encoder, self.projection)
        if recipe.compile:
            self.encoder.compile()
        self.views = make_views(recipe.data, images.pixels.shape[-1])
        self.criterion = make_criterion(
            run.loss, run.temperature, recipe.gate, recipe.rivals, "two-views" if recipe.queue is None else "queue",
            queue=None if recipe.queue is None else (recipe.queue, recipe.projection),
        )  # fmt: skip
        # The whole set lives on the device as bytes; it is data, not state, so checkpoints leave it out.
        self.register_buffer("pixels", images.pixels, persistent=False)
        self.measuring_s = 0.0
        self.steps_per_epoch = len(images.labels) // recipe.batch_size
        for module in self.criterion.modules():
            if isinstance(module, ContestLoss):
                module.register_forward_hook(self._log_tail)

    def train_dataloader(self) -> DataLoader[Tensor]:
        """Indices of this epoch's batches. Lightning asks anew every epoch, so a resumed run gets the same order."""
        order = np.random.default_rng([self.run.seed, self.current_epoch]).permutation(len(self.pixels))
        # The last incomplete batch is dropped; each process takes its share of every batch.
        batches = order[: self.steps_per_epoch * self.recipe.batch_size].reshape(self.steps_per_epoch, world_size(), -1)
        own = torch.from_numpy(batches[:, rank()].ravel())
        return DataLoader(own, self.recipe.batch_size // world_size())  # pyright: ignore

    def training_step(self, index: Tensor) -> Tensor:
        torch.manual_seed(_mixed(self.run.seed, self.global_step))
        views = own_views_of(self.views, self.pixels[index]).to(memory_format=self.layout)
        loss = self.criterion(*self._pair(views))
        self._log("loss", loss)
        return loss

    def _pair(self, views: Tensor) -> tuple[Tensor, ...]:
        """Embeddings of both views; with a queue, of view b by the momentum encoder, which follows before each step."""
        if self.keys is None:
            return self.projection(self.encoder(views)).chunk(2)
        with torch.no_grad():
            now = (*self.encoder.parameters(), *self.projection.parameters())
            for held, new in zip(self.keys.parameters(), now, strict=True):
                held.lerp_(new, 1 - self.recipe.momentum)
            key = self.keys(views[len(views) // 2 :])
        return self.projection(self.encoder(views[: len(views) // 2])), key

    @torch.no_grad()
    def _log_tail(self, module: ContestLoss, args: tuple[Contest], output: LossOutput) -> None:
        gate = self.recipe.gate if self.recipe.gate.needs_fit else Gate()
        started = time.perf_counter()
        # InfoNCE fits no tail: it is measured on the same embeddings, so that both can be drawn side by side, and the
        # time it takes is not InfoNCE's.
        measure = Options(gate, gather_distributed=True)
        tail = output.tail if output.tail is not None else contest_output(args[0], options=measure).tail
        self.measuring_s += time.perf_counter() - started
        assert tail is not None
        self._log("weight", output.weight.mean())
        self._log("slope", tail.slope.mean())
        self._log("rho_0", nearness_reference(default_processes().values(tail.nearness), gate.quantile))

    def _log(self, name: str, value: Tensor) -> None:
        self.log(name, value.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=self.recipe.batch_size)

    def configure_optimizers(self) -> Any:
        halves = (self.encoder, self.projection)
        groups = [{"params": [p for half in halves for p in half.parameters()]},
                  *parameter_groups(self.criterion, self.recipe.learning_rate)]  # fmt: skip
        optimizer = torch.optim.Adam(groups, lr=self.recipe.learning_rate)
        if self.recipe.schedule == "constant":
            return optimizer
        total = self.steps_per_epoch * self.recipe.epochs
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        halves = (self.encoder, self.projection)
        gradients = [p.grad for half in halves for p in half.parameters() if p.grad is not None]
        self._log("gradient_norm", torch.nn.utils.get_total_norm(gradients))


def _frozen_copy(*halves: nn.Module) -> nn.Module:
    return nn.Sequential(*copy.deepcopy(halves)).requires_grad_(False)


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
