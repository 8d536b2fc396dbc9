"""Small models, most of them on frozen features, and the one loop that trains them, all randomness from the seed."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from weince import ContestLoss, LossOutput
from weince.lab.rivals import parameter_groups
from weince.lab.training.frozen import BUCKETS, Bags
from weince.lab.training.settings import HeadSettings
from weince.shell.files import write_csv

__all__ = ["BagTower", "TextTower", "Tower", "Trained", "layers", "train_head"]


class Trained(NamedTuple):
    """How a training ended."""

    diverged: bool
    seconds: float


def layers(*widths: int) -> nn.Sequential:
    """Linear layers between these widths, a ReLU after each but the last."""
    found: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        found += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*found[:-1])


class Tower(nn.Module):
    """Rows of frozen features -> embeddings, by two layers."""

    features: Tensor

    def __init__(self, features: Tensor, settings: HeadSettings) -> None:
        super().__init__()
        self.head = layers(features.shape[-1], settings.hidden, settings.projection)
        self.register_buffer("features", features, persistent=False)

    def forward(self, rows: Tensor, part: Tensor | None = None) -> Tensor:
        """Embeddings of rows of the training features, or of another part's."""
        return self.head((self.features if part is None else part)[rows].float())


class TextTower(nn.Module):
    """Texts -> embeddings, by a sentence encoder that is trained too and two layers."""

    def __init__(self, encoder: nn.Module, texts: Sequence[str], width: int, settings: HeadSettings) -> None:
        super().__init__()
        self.encoder, self.texts = encoder, texts
        self.head = layers(width, settings.hidden, settings.projection)

    def forward(self, rows: Tensor, part: Sequence[str] | None = None) -> Tensor:
        """Embeddings of rows of the training texts, or of another part's."""
        texts = self.texts if part is None else part
        encoder: Any = self.encoder
        tokens = encoder.preprocess([texts[row] for row in rows.tolist()])
        moved = {k: v.to(rows.device) if isinstance(v, Tensor) else v for k, v in tokens.items()}
        return self.head(encoder(moved)["sentence_embedding"].float())


class BagTower(nn.Module):
    """Bags of numbers -> embeddings: the mean of a learnt vector for each number, and three layers."""

    def __init__(self, bags: Bags, settings: HeadSettings) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(BUCKETS, settings.hidden, mode="mean")
        self.head = layers(settings.hidden, settings.hidden, settings.hidden, settings.projection)
        self.bags = bags

    def forward(self, rows: Tensor, part: Bags | None = None) -> Tensor:
        """Embeddings of rows of the training bags, or of another part's."""
        numbers, begins = (self.bags if part is None else part).of(rows.cpu())
        device = self.vectors.weight.device
        return self.head(self.vectors(numbers.to(device), begins.to(device)))


def train_head(
    model: nn.Module,
    criterion: nn.Module,
    loss_of: Callable[[Tensor, np.random.Generator], Tensor],
    examples: int,
    settings: HeadSettings,
    seed: int,
    folder: Path,
    on_epoch: Callable[[int], None],
    look: Callable[[], float],
    rates: Mapping[nn.Module, float] | None = None,
) -> Trained:
    """Train with Adam; history.csv is left in the folder: a row an epoch.

    Args:
        model: what is trained.
        criterion: the loss; its own parameters are trained too.
        loss_of: rows of a batch (B,), and a generator for what else is random -> loss.
        examples: how many there are.
        settings: of the training.
        seed: of the order of the examples.
        folder: of this run.
        on_epoch: told how many epochs are done.
        look: validation score of the model as it is, for `validate_every`.
        rates: parts of the model with a learning rate of their own.
    """
    own = [{"params": list(part.parameters()), "lr": rate} for part, rate in (rates or {}).items()]
    apart = {parameter for group in own for parameter in group["params"]}
    rest = [parameter for parameter in model.parameters() if parameter not in apart]
    groups = [{"params": rest}, *own, *parameter_groups(criterion, settings.learning_rate)]
    optimizer = torch.optim.Adam(groups, lr=settings.learning_rate)
    batch = min(settings.batch_size, examples)
    steps = examples // batch
    schedule = None
    if settings.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps * settings.epochs)
    seen: dict[str, list[float]] = {}
    hooks = [module.register_forward_hook(_noted(seen)) for module in criterion.modules()
             if isinstance(module, ContestLoss)]  # fmt: skip
    rows: list[dict[str, Any]] = []
    started, looking, lost = time.perf_counter(), 0.0, False
    device = next(model.parameters()).device
    for epoch in range(settings.epochs):
        model.train()
        rng = np.random.default_rng([seed, epoch])
        for drawn in rng.permutation(examples)[: steps * batch].reshape(steps, batch):
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(torch.from_numpy(drawn).to(device), rng)
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            optimizer.step()
            if schedule is not None:
                schedule.step()
            seen.setdefault("loss", []).append(loss.detach().item())
            seen.setdefault("gradient_norm", []).append(norm.item())
        row: dict[str, Any] = {"epoch": epoch + 1, **{name: float(np.mean(values)) for name, values in seen.items()}}
        seen.clear()
        lost = not math.isfinite(row["loss"] + row["gradient_norm"])
        if settings.validate_every and not lost and (epoch + 1) % settings.validate_every == 0:
            before = time.perf_counter()
            row["validation"] = look()
            looking += time.perf_counter() - before
        rows.append(row)
        if lost:
            break
        on_epoch(epoch + 1)
    for hook in hooks:
        hook.remove()
    columns = dict.fromkeys(key for row in rows for key in row)
    write_csv(folder / "history.csv", [{key: row.get(key) for key in columns} for row in rows])
    return Trained(lost, time.perf_counter() - started - looking)


def _noted(seen: dict[str, list[float]]) -> Callable[[Any, Any, LossOutput], None]:
    def note(module: nn.Module, args: Any, output: LossOutput) -> None:
        seen.setdefault("weight", []).append(output.weight.mean().item())
        if output.tail is not None:
            seen.setdefault("slope", []).append(output.tail.slope.mean().item())

    return note
