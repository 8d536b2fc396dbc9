"""The training: one run of one loss at one temperature from one seed, on Lightning, resumable to the bit on a CPU."""

from __future__ import annotations

import io
import json
import logging
import pickle
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy
from safetensors.torch import save as to_safetensors

from weince.lab.data.sets import Images
from weince.lab.launch import first_does, launched
from weince.lab.training.contrastive import Contrastive, Encoded
from weince.lab.training.settings import ImageSettings, Run, device_of
from weince.processes.gather import rank
from weince.shell.errors import UserError
from weince.shell.files import write_bytes, write_csv

__all__ = ["Trained", "checkpoints", "train"]

LAYOUT = 2
"""Of checkpoints; another number is another version's."""


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
        assert isinstance(pl_module, Contrastive)
        pl_module.measuring_s = 0.0
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Contrastive)
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.perf_counter() - self.started - pl_module.measuring_s
        images = pl_module.steps_per_epoch * pl_module.recipe.batch_size
        self.rows.append(
            {"epoch": trainer.current_epoch, **measured, "seconds": seconds, "images_per_second": images / seconds}
        )
        pl_module.log("images_per_second", images / seconds, rank_zero_only=True)
        if trainer.is_global_zero:
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
        assert isinstance(module, Contrastive)
        if rank() > 0:
            return
        state = {
            f"{name}.{key}": value.cpu().contiguous()
            for name, half in (("encoder", module.encoder), ("projection", module.projection))
            for key, value in half.state_dict().items()
        }
        write_bytes(self.folder / f"{epoch:05d}.safetensors", to_safetensors(state))


def _kept(recipe: ImageSettings, folder: Path) -> list[Callback]:
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


def train(recipe: ImageSettings, run: Run, images: Images, folder: Path, on_epoch: Callable[[int], None]) -> Trained:
    """Train one run to its end, from its newest whole checkpoint if `folder` holds one.

    Leaves history.csv, TensorBoard events, encoder.safetensors and projection.safetensors in `folder`.

    Args:
        recipe: of the comparison.
        run: this one.
        images: training images.
        folder: of this run.
        on_epoch: called with the number of epochs done, after each.

    Raises:
        UserError: the folder holds a checkpoint of another recipe, run or version.
        KeyboardInterrupt: stopped; what was done lies in the checkpoint.
    """
    checkpoint = first_does(lambda: _newest_whole(folder, recipe, run))
    history = _History(folder / "history.csv", on_epoch)
    those = launched()
    with _quiet():
        model = Contrastive(recipe, run, images)
        trainer = Trainer(
            accelerator=device_of(recipe).type,
            devices=1 if those is None else those.on_machine,
            num_nodes=1 if those is None else those.size // those.on_machine,
            # All start from the seed's weights and normalise by the whole batch: there is nothing to copy.
            strategy="auto" if those is None else DDPStrategy(broadcast_buffers=False, init_sync=False),
            plugins=[_WholeFiles(), *([] if those is None else [those.environment])],
            use_distributed_sampler=False,
            precision=recipe.precision,
            max_epochs=recipe.epochs,
            reload_dataloaders_every_n_epochs=1,
            callbacks=[_Origin(recipe, run), history, _keeper(folder), *_kept(recipe, folder)],
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
    if rank() == 0:
        for name, half in encoded._asdict().items():
            state = {key: value.contiguous() for key, value in half.state_dict().items()}
            write_bytes(folder / f"{name}.safetensors", to_safetensors(state))
    return Trained(Encoded(*(half.float() for half in encoded)), sum(row["seconds"] for row in history.rows))


class _WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there, so that a kill leaves no half of one anywhere else."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getvalue())


class _Origin(Callback):
    """What a checkpoint is of, written into it."""

    def __init__(self, recipe: ImageSettings, run: Run) -> None:
        self.says = {"layout": LAYOUT, "settings": recipe.model_dump_json(), "run": list(run)}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["weince"] = self.says


def _keeper(folder: Path) -> ModelCheckpoint:
    # A name for every epoch: the last checkpoint is removed only when the next one is whole.
    return ModelCheckpoint(folder, filename="{epoch:05d}", auto_insert_metric_name=False, save_top_k=1)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted(folder.glob("[0-9]*.ckpt"), reverse=True)


def _newest_whole(folder: Path, recipe: ImageSettings, run: Run) -> Path | None:
    folder.mkdir(parents=True, exist_ok=True)
    for draft in folder.glob(".*.ckpt.*"):  # of a process that was killed while it wrote
        draft.unlink()
    for path in checkpoints(folder):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "weights_only" not in str(error).lower():
                path.unlink()
                continue
            raise UserError(f"{path} holds more than tensors and numbers: it is not a checkpoint of weince.") from None
        except (RuntimeError, EOFError, OSError):  # cut short by a kill
            path.unlink()
            continue
        _check_origin(path, content, recipe, run)
        return path
    return None


def _check_origin(path: Path, content: dict[str, Any], recipe: ImageSettings, run: Run) -> None:
    says = content.get("weince", {})
    if says.get("layout") != LAYOUT:
        found = f"layout {says['layout']}" if "layout" in says else "no note of its origin"
        other = [f"it was written by another version ({found}; expected layout {LAYOUT})"]
    else:
        other = recipe.differences(json.loads(says["settings"]))
        if says["run"] != list(run):
            other.append(f"run: {says['run']} there, {list(run)} now")
    if other:
        raise UserError(f"Checkpoint {path} does not belong to this run: {'; '.join(other)}. Remove it to start anew.")


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
