"""SimCLR in Lightning, with what the gate does logged beside the loss: `tensorboard --logdir lightning_logs`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader

from digits import encoder, images_and_labels, view
from weince import WEINCELoss
from weince.adapters.lightning import TailMonitor


class SimCLR(LightningModule):
    """Two views, one loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = encoder()
        self.criterion = WEINCELoss(temperature=0.1)

    def training_step(self, images: Tensor, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        loss = self.criterion(self.encoder(view(images)), self.encoder(view(images)))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 1e-3)


def main(steps: int = 100, folder: Path = Path()) -> dict[str, float]:
    """Train; returns the last logged values."""
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=TensorBoardLogger(folder),
        callbacks=[TailMonitor(figure_every_n_steps=20)],
        log_every_n_steps=5,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(images_and_labels()[0], batch_size=128, shuffle=True, drop_last=True)
    trainer.fit(SimCLR(), loader)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    for name, value in main(parser.parse_args().steps).items():
        print(f"{name:40} {value:.4f}")
