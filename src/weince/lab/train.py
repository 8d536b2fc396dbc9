"""The training: one run of one loss at one temperature from one seed, on Lightning, resumable to the bit on a CPU."""

from __future__ import annotations

import logging
import pickle
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.utils.data import DataLoader

from weince import ContestLoss, InfoNCELoss, WEINCELoss, WEINCEOutput, contest_loss
from weince.candidates import Candidates
from weince.gate import Gate, nearness_reference
from weince.lab.data import Images
from weince.lab.encoders import make_encoder, make_projection
from weince.lab.files import write_bytes, write_csv
from weince.lab.recipe import Loss, Recipe, RecipeError, Run
from weince.lab.views import as_float, make_views
from weince.released import ReleasedTopMLoss

__all__ = ["Encoded", "Trained", "build", "device_of", "make_criterion", "train", "two_views_of"]


def device_of(recipe: Recipe) -> torch.device:
    """Where a recipe trains and is judged: "auto" is a CUDA GPU when there is one.

    Raises:
        RecipeError: it asks for a GPU that is not there.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError('Setting `device`: "cuda" needs a CUDA GPU that this PyTorch can use. Found none.')
    return torch.device("cuda" if recipe.device != "cpu" and torch.cuda.is_available() else "cpu")


class Encoded(NamedTuple):
    """The two halves of a model: images -> features h -> embeddings z."""

    encoder: nn.Module
    projection: nn.Module


class _Released(nn.Module):
    """The recipe of the authors' released code: slope 1, and the two extra terms."""

    def __init__(self, temperature: float, gate: Gate) -> None:
        super().__init__()
        self.blend = WEINCELoss(temperature, gate)
        self.extra = ReleasedTopMLoss(temperature)

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        return self.blend(z_a, z_b) + self.extra(z_a, z_b)


def make_criterion(loss: Loss, temperature: float, gate: Gate) -> nn.Module:
    """The loss of that name, `criterion(z_a, z_b)` -> scalar."""
    if loss == "infonce":
        return InfoNCELoss(temperature)
    if loss == "weince":
        return WEINCELoss(temperature, gate)
    # Every setting of the gate but the slope, which the released code fixes at 1.
    return _Released(temperature, Gate(**{**vars(gate), "slope": "unit"}))


def build(recipe: Recipe, seed: int, images: Images) -> Encoded:
    """Encoder and projection with the initial weights that belong to `seed`, whatever the loss."""
    _, channels, size, _ = images.pixels.shape
    encoder, width = make_encoder(recipe, channels, size, seed)
    return Encoded(encoder, make_projection(width, recipe.projection, seed))


def two_views_of(views: nn.Module, pixels: Tensor) -> Tensor:
    """Both views of uint8 images (N, C, S, S), stacked: (2N, C, S, S), first all of view a."""
    images = as_float(pixels)
    with torch.no_grad(), torch.autocast(pixels.device.type, enabled=False):
        return torch.cat([views(images), views(images)])


class _Contrastive(LightningModule):
    """Two views of a batch -> encoder -> projection -> criterion. Every random choice follows from (seed, step)."""

    pixels: Tensor

    def __init__(self, recipe: Recipe, run: Run, images: Images) -> None:
        super().__init__()
        self.recipe, self.run = recipe, run
        self.encoder, self.projection = build(recipe, run.seed, images)
        self.encoder.to(memory_format=torch.channels_last)
        self.views = make_views(recipe.data, images.pixels.shape[-1])
        self.criterion = make_criterion(run.loss, run.temperature, recipe.gate)
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
        return DataLoader(torch.from_numpy(order), self.recipe.batch_size, drop_last=True)  # pyright: ignore

    def training_step(self, index: Tensor) -> Tensor:
        torch.manual_seed(_mixed(self.run.seed, self.global_step))
        views = two_views_of(self.views, self.pixels[index]).to(memory_format=torch.channels_last)
        z_a, z_b = self.projection(self.encoder(views)).chunk(2)
        loss = self.criterion(z_a, z_b)
        self._log("loss", loss)
        return loss

    @torch.no_grad()
    def _log_tail(self, module: ContestLoss, args: tuple[Candidates], output: WEINCEOutput) -> None:
        gate = self.recipe.gate if self.recipe.gate.needs_fit else Gate()
        started = time.perf_counter()
        # InfoNCE fits no tail: it is measured on the same embeddings, so that both can be drawn side by side, and the
        # time it takes is not InfoNCE's.
        tail = output.tail if output.tail is not None else contest_loss(args[0], gate=gate).tail
        self.measuring_s += time.perf_counter() - started
        assert tail is not None
        self._log("weight", output.weight.mean())
        self._log("slope", tail.slope.mean())
        self._log("rho_0", nearness_reference(tail.nearness, gate.quantile))

    def _log(self, name: str, value: Tensor) -> None:
        self.log(name, value.detach(), on_step=False, on_epoch=True, batch_size=self.recipe.batch_size)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.recipe.learning_rate)
        if self.recipe.schedule == "constant":
            return optimizer
        total = self.steps_per_epoch * self.recipe.epochs
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self._log("gradient_norm", torch.nn.utils.get_total_norm(gradients))


class _History(Callback):
    """One row an epoch, kept in the checkpoint and written as CSV: a resumed run has the rows of its first part."""

    def __init__(self, path: Path, on_epoch: Callable[[int], None]) -> None:
        self.path, self.on_epoch = path, on_epoch
        self.rows: list[dict[str, float]] = []
        self.started = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, _Contrastive)
        pl_module.measuring_s = 0.0
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, _Contrastive)
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.perf_counter() - self.started - pl_module.measuring_s
        images = pl_module.steps_per_epoch * pl_module.recipe.batch_size
        self.rows.append(
            {"epoch": trainer.current_epoch, **measured, "seconds": seconds, "images_per_second": images / seconds}
        )
        pl_module.log("images_per_second", images / seconds)
        write_csv(self.path, self.rows)
        self.on_epoch(trainer.current_epoch + 1)


class _Keep(Callback):
    """Encoder and projection before training, after every so many epochs, and at the end; whole files, no pickle."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._write(0, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.current_epoch + 1
        if done % self.every == 0 or done == trainer.max_epochs:
            self._write(done, pl_module)

    def _write(self, epoch: int, module: LightningModule) -> None:
        assert isinstance(module, _Contrastive)
        state = {
            f"{name}.{key}": value.cpu().contiguous()
            for name, half in (("encoder", module.encoder), ("projection", module.projection))
            for key, value in half.state_dict().items()
        }
        write_bytes(self.folder / f"{epoch:05d}.safetensors", to_safetensors(state))


def _kept(recipe: Recipe, folder: Path) -> list[Callback]:
    return [] if recipe.keep_every is None else [_Keep(folder / "kept", recipe.keep_every)]


class Trained(NamedTuple):
    """A finished run: its halves, on the CPU, and the seconds its epochs took, those before a stop included."""

    model: Encoded
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether a weight is NaN or infinite."""
        values = (value for half in self.model for value in half.state_dict().values())
        return not all(bool(torch.isfinite(value).all()) for value in values)


def train(recipe: Recipe, run: Run, images: Images, folder: Path, on_epoch: Callable[[int], None]) -> Trained:
    """Train one run to its end, from its newest whole checkpoint if `folder` holds one.

    Leaves history.csv, TensorBoard events, encoder.safetensors and projection.safetensors in `folder`.

    Args:
        recipe: of the comparison.
        run: this one.
        images: training images.
        folder: of this run.
        on_epoch: called with the number of epochs done, after each.

    Raises:
        KeyboardInterrupt: stopped; what was done lies in the checkpoint.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = _newest_whole(folder)
    history = _History(folder / "history.csv", on_epoch)
    with _quiet():
        model = _Contrastive(recipe, run, images)
        trainer = Trainer(
            accelerator=device_of(recipe).type,
            devices=1,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[history, _keeper(folder), *_kept(recipe, folder)],
            logger=TensorBoardLogger(folder, name="", version=""),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(model, ckpt_path=checkpoint, weights_only=True)
        except SystemExit:  # what Lightning makes of an interrupt, deaf to the next one
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
    encoded = Encoded(model.encoder.cpu(), model.projection.cpu())
    for name, half in encoded._asdict().items():
        state = {key: value.contiguous() for key, value in half.state_dict().items()}
        write_bytes(folder / f"{name}.safetensors", to_safetensors(state))
    return Trained(encoded, sum(row["seconds"] for row in history.rows))


def _keeper(folder: Path) -> ModelCheckpoint:
    # A name for every epoch: the last checkpoint is removed only when the next one is whole.
    return ModelCheckpoint(folder, filename="{epoch:05d}", auto_insert_metric_name=False, save_top_k=1)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted(folder.glob("[0-9]*.ckpt"), reverse=True)


def _newest_whole(folder: Path) -> Path | None:
    for path in checkpoints(folder):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):  # cut short by a kill
            path.unlink()
        else:
            return path
    return None


def _mixed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


@contextmanager
def _quiet():
    """Lightning's notices on hardware and hints on products are no news to the reader of a progress bar."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        logger.setLevel(level)
