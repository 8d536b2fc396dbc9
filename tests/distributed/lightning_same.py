"""Run by every process: Lightning's DDP, with accumulated gradients, ends with the weights of one process.

torchrun --nproc-per-node 2 lightning_same.py
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from weince import Gate, WEINCELoss

EXAMPLES, D, EPOCHS = 64, 6, 3


class Model(LightningModule):
    """Two views of a vector, by two fixed disturbances."""

    def __init__(self, gather: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.encoder = nn.Sequential(nn.Linear(D, 12), nn.Tanh(), nn.Linear(12, D)).double()
        self.criterion = WEINCELoss(0.2, Gate(tail_min=5), gather_distributed=gather)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        a, b = batch
        loss = self.criterion(self.encoder(a), self.encoder(b))
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def weights(model: Model, strategy: str, devices: int, batch_size: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(2)
    x = torch.randn(EXAMPLES, D, generator=g, dtype=torch.float64)
    views = [x + 0.1 * torch.randn(EXAMPLES, D, generator=g, dtype=torch.float64) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        data = TensorDataset(*views)
        # Lightning's own sampler shuffles; one process could not see the same batches.
        sampler = DistributedSampler(data, devices, int(os.environ.get("RANK", 0)), shuffle=False)
        trainer = Trainer(
            accelerator="cpu", devices=devices, strategy=strategy, max_epochs=EPOCHS, accumulate_grad_batches=2,
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=folder, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(model, DataLoader(data, batch_size, sampler=sampler))
    return [p.detach() for p in model.parameters()]


def main() -> None:
    """Both, compared on the first process."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    world = int(os.environ["WORLD_SIZE"])
    together = weights(Model(True), "ddp", world, 16 // world)
    torch.distributed.barrier()
    if int(os.environ["RANK"]) == 0:
        torch.distributed.destroy_process_group()
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
            os.environ.pop(name, None)
        alone = weights(Model(False), "auto", 1, 16)
        for found, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
        assert not torch.equal(together[0], next(Model(True).parameters()))
        print("Lightning: the same weights", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
