"""The callback in real trainings of Hugging Face's Trainer, sentence-transformers' and its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from examples import load
from weince import TwoTowerLoss
from weince.adapters.sentence_transformers import WEINCELoss
from weince.adapters.transformers import TailCallback


class Towers(nn.Module):
    def __init__(self, criterion: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.criterion = nn.Linear(6, 4), criterion

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        z = self.layer(x)
        loss = z.sum() if self.criterion is None else self.criterion(z, z + 0.1 * torch.randn_like(z))
        return {"loss": loss, "z": z}


def trainer_of(model: nn.Module, folder: Path, **more: object) -> Trainer:
    settings = {"per_device_train_batch_size": 10, "max_steps": 6, "logging_steps": 2, "save_strategy": "no"}
    arguments = TrainingArguments(str(folder), report_to="none", use_cpu=True, disable_tqdm=True, **settings)
    rows = [{"x": torch.randn(6)} for _ in range(40)]
    return Trainer(model, arguments, train_dataset=rows, **more)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_run_is_logged_beside_the_loss(tmp_path: Path):
    model = Towers(TwoTowerLoss())
    trainer = trainer_of(model, tmp_path)
    trainer.add_callback(TailCallback(trainer))
    trainer.train()
    logged = [row for row in trainer.state.log_history if "tail/criterion.0/weight" in row]
    assert [row["step"] for row in logged] == [2, 4, 6]
    assert {"tail/criterion.1/slope", "tail/criterion.0/rho_0"} <= set(logged[0])
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_loss_of_sentence_transformers_trainer_is_found(tmp_path: Path):
    example = load("sentence_transformers_simcse")
    model, lines = example.minilm(), example.sentences()[:48]
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=16, logging_steps=1, save_strategy="no",
        report_to="none", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    pairs = Dataset.from_dict({"anchor": lines, "positive": lines})
    loss = WEINCELoss(model)
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=pairs, loss=loss)
    trainer.add_callback(TailCallback(trainer, every_n_steps=2, prefix="gate"))
    trainer.train()
    logged = [row for row in trainer.state.log_history if "gate/weight" in row]
    assert [row["step"] for row in logged] == [2]
    assert 0 <= logged[0]["gate/weight"] <= 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_trainer_without_a_loss_of_ours_is_told(tmp_path: Path):
    trainer = trainer_of(Towers(None), tmp_path)
    trainer.add_callback(TailCallback(trainer))
    with pytest.raises(ValueError, match="Found none in Trainer"):
        trainer.train()
    with pytest.raises(TypeError, match=r"^Parameter `every_n_steps` should be an integer"):
        TailCallback(trainer, every_n_steps=1.5)
