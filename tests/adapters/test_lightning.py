"""The monitor in a real training, with a real logger."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from batches import clusters, masks, whole_of
from examples import load
from weince import Gate, SupervisedLoss, TwoTowerLoss
from weince.adapters.lightning import TailMonitor
from weince.monitor import statistics
from weince.setups import labelled, two_views
from weince.units import unit_rows

# Lightning's hints, and what it calls of a newer PyTorch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*fewer than the logging interval.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


def test_statistics_are_their_definitions():
    z = clusters(20, 5, dtype=torch.float64)
    contest = two_views(*z)
    output = whole_of(contest)
    found = statistics(contest, output, 0.2)
    u = torch.cat([unit_rows(part) for part in z])
    torch.testing.assert_close(found["alignment"], (u - u.roll(20, 0)).square().sum(1).mean())
    torch.testing.assert_close(found["positive_similarity"], (u * u.roll(20, 0)).sum(1).mean())
    kernel = torch.exp(-2 * (u[:, None] - u[None]).square().sum(2))
    torch.testing.assert_close(found["uniformity"], kernel[~torch.eye(40, dtype=torch.bool)].mean().log())
    s = (u @ u.T).masked_fill(~masks(contest)[1], -2)
    torch.testing.assert_close(found["hardest_negative_similarity"], s.amax(1).mean())
    torch.testing.assert_close(found["weight"], output.weight.mean())
    torch.testing.assert_close(found["rho_0"], (1 - s.amax(1)).sort().values[round(0.2 * 39)])
    fixed = statistics(contest, whole_of(contest, gate=Gate(evidence=0.3, slope=2.0)), 0.2)
    assert "slope" not in fixed
    assert fixed["weight"].item() == pytest.approx(0.3)


def test_statistics_of_labels_leave_skipped_anchors_out():
    z = clusters(6, 5, dtype=torch.float64)[0]
    contest = labelled(z, torch.tensor([0, 0, 1, 2, 2, 2]))
    output = whole_of(contest)
    found = statistics(contest, output, 0.2)
    torch.testing.assert_close(found["loss"], output.loss)
    u = unit_rows(z)
    pairs = [(0, 1), (3, 4), (3, 5), (4, 5)]
    torch.testing.assert_close(found["positive_similarity"], torch.stack([u[i] @ u[j] for i, j in pairs]).mean())


class Model(LightningModule):
    def __init__(self, criterion: torch.nn.Module | None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 4)
        self.criterion = criterion
        self.forwards = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.forwards += 1
        z = self.layer(batch)
        if isinstance(self.criterion, SupervisedLoss):
            return self.criterion(z, torch.arange(len(z)) % 3)
        if self.criterion is None:
            return z.sum()
        return self.criterion(z, z + 0.1 * torch.randn_like(z))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(criterion: torch.nn.Module | None, monitor: TailMonitor) -> tuple[Model, dict[str, Tensor]]:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[monitor],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Model(criterion)
    loader = torch.utils.data.DataLoader(torch.randn(40, 6), batch_size=10)
    trainer.fit(model, loader)
    return model, trainer.callback_metrics


def test_every_run_of_every_loss_is_logged_without_a_second_forward():
    model, logged = fit(TwoTowerLoss(), TailMonitor(every_n_steps=1))
    assert model.forwards == 4
    assert {name for name in logged if name.endswith("/weight")} == {
        "tail/criterion.0/weight",
        "tail/criterion.1/weight",
    }
    _, logged = fit(SupervisedLoss(), TailMonitor(every_n_steps=2))
    assert "tail/uniformity" in logged
    assert not any(part._forward_hooks for part in model.modules())  # taken away again
    with pytest.raises(ValueError, match="Found none in Model"):
        fit(None, TailMonitor())


class Failing(Model):
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        if self.forwards == 2:
            raise RuntimeError("out of luck")
        return super().training_step(batch, batch_idx)


def test_a_training_that_failed_leaves_no_hooks_and_a_retry_measures_once():
    monitor = TailMonitor(every_n_steps=1)
    model = Failing(TwoTowerLoss())
    loader = torch.utils.data.DataLoader(torch.randn(40, 6), batch_size=10)
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary", "logger"), False)
    with pytest.raises(RuntimeError, match="out of luck"):
        Trainer(max_epochs=1, accelerator="cpu", callbacks=[monitor], **quiet).fit(model, loader)
    assert not any(part._forward_hooks for part in model.modules())
    pickle.dumps(model.criterion)
    copy.deepcopy(model.criterion)
    model.forwards = -100
    trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[monitor], **quiet)
    trainer.fit(model, loader)
    names = {name for name in trainer.callback_metrics if name.endswith("/weight")}
    assert names == {"tail/criterion.0/weight", "tail/criterion.1/weight"}
    assert not any(part._forward_hooks for part in model.modules())


class TwoOptimizers(Model):
    """Steps twice a batch, by hand, and validates."""

    def __init__(self) -> None:
        super().__init__(TwoTowerLoss())
        self.automatic_optimization = False

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            loss = super().training_step(batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(self.parameters(), 0.1) for _ in range(2)]


def test_batches_are_counted_not_steps_and_validation_is_left_alone(tmp_path: Path):
    monitor = TailMonitor(every_n_steps=2, figure_every_n_steps=0)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=TensorBoardLogger(tmp_path),
        callbacks=[monitor],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    loaders = [torch.utils.data.DataLoader(torch.randn(40, 6), batch_size=10) for _ in range(2)]
    trainer.fit(TwoOptimizers(), *loaders)
    assert monitor.monitor.seen() == []
    events = EventAccumulator(str(next(tmp_path.rglob("events*")).parent))
    events.Reload()
    assert [event.step for event in events.Scalars("tail/criterion.3/weight")] == [4, 8]  # once each


def test_scalars_and_figures_reach_tensorboard(tmp_path: Path):
    logged = load("lightning_monitor").main(steps=45, folder=tmp_path)
    assert {"tail/weight", "tail/slope", "tail/rho_0", "tail/alignment", "loss"} <= set(logged)
    events = EventAccumulator(str(next(tmp_path.rglob("events*")).parent))
    events.Reload()
    assert len(events.Scalars("tail/weight")) == 9
    assert [image.step for image in events.Images("tail/histograms")] == [20, 40]


@pytest.mark.parametrize("name", ["every_n_steps", "figure_every_n_steps"])
def test_bad_intervals_are_refused(name: str):
    for value, kind in ((-1, ValueError), (2.5, TypeError)):
        with pytest.raises(kind, match=f"^Parameter `{name}` should be an integer"):
            TailMonitor(**{name: value})
