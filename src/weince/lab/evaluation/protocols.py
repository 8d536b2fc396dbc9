"""The protocols of others, on frozen features h: the paper's evaluation as published, and the field's as in lightly.

Our own evaluation (`weince.lab.evaluation.probes`) chooses a penalty on validation images; these do not, so that their
numbers can be laid beside others'. Both score the last epoch's probe, whatever an earlier one would have scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from weince.lab.evaluation.probes import Labelled, neighbour_scores

__all__ = ["PUBLISHED_RECALL_AT", "SPLIT_SEEDS", "lightly_scores", "published_scores", "train_probe"]

SPLIT_SEEDS = (1, 2, 3, 4, 5)
"""Of the published splits and probes, which are averaged within a run."""
SPLIT_SHARE = 0.2
PUBLISHED_RECALL_AT = (1, 2, 5, 10, 20, 50)
BATCH = 256


class _Schedule(NamedTuple):
    """How a linear probe is trained.

    Attributes:
        optimizer: "adam", or "sgd" with momentum 0.9 and a cosine to 0 over all steps.
        learning_rate: of it, without weight decay.
        epochs: passes over the training features.
    """

    optimizer: str
    learning_rate: float
    epochs: int


PUBLISHED = _Schedule("adam", 3e-4, 100)
LIGHTLY = _Schedule("sgd", 0.1, 90)


def published_scores(
    training: Labelled,
    test: Labelled,
    device: torch.device | str = "cpu",
    *,
    seeds: Sequence[int] = SPLIT_SEEDS,
    drop_last: bool = False,
) -> dict[str, float]:
    """The paper's evaluation: a linear probe and nearest neighbours on 80 % of the training set, five times.

    For each seed a stratified split sets 20 % of the training features apart. On the others a linear layer is trained
    (Adam 3e-4, 100 epochs, batch 256, cross-entropy, features as they are), and they are the neighbours of recall@k and
    of the weighted vote of 50 (`neighbour_scores`).

    Args:
        training: features of the whole training set.
        test: of the test set.
        device: where the probe is trained.
        seeds: of splits and probes.
        drop_last: score the first whole batches of 256 alone, as the released evaluation does: with 10,000 test images
            it leaves out 16. All are scored otherwise.

    Returns:
        Means over the seeds, in [0, 1]: linear_accuracy, knn_accuracy and recall_at_{1, 2, 5, 10, 20, 50} on the test
        set, and the same as validation_* on the images set apart.

    Source: arXiv:2606.00262, frozen-feature evaluation.
    """
    found: dict[str, list[float]] = {}
    for seed in seeds:
        kept, apart = train_test_split(
            np.arange(len(training.labels)), test_size=SPLIT_SHARE, stratify=training.labels, random_state=seed
        )
        reference, held = (Labelled(*(part[rows] for part in training)) for rows in (kept, apart))
        probe = train_probe(reference, PUBLISHED, seed, device)
        for prefix, judged in (("", test), ("validation_", held)):
            if drop_last and len(judged.labels) >= BATCH:
                judged = Labelled(*(part[: len(part) // BATCH * BATCH] for part in judged))
            scores = {"linear_accuracy": _top(probe, judged, 1), **neighbour_scores(
                reference, judged, 50, PUBLISHED_RECALL_AT
            )}  # fmt: skip
            for name, value in scores.items():
                found.setdefault(prefix + name, []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def lightly_scores(
    training: Labelled, test: Labelled, device: torch.device | str = "cpu", *, seed: int = 1
) -> dict[str, float]:
    """The field's evaluation with the settings of lightly's benchmarks, on the whole training set.

    kNN with k = 200 and weights exp(s / 0.1); a linear layer by SGD (0.1 for a batch of 256, momentum 0.9, no weight
    decay, cosine, 90 epochs). Lightly augments the images of its probe by crops and flips; here the features are
    computed once, so the probe sees each image as it is.

    Args:
        training, test, device: as in `published_scores`.
        seed: of the probe.

    Returns:
        knn_accuracy, linear_accuracy and linear_top_5, in [0, 1].

    Source: arXiv:1805.01978 (the vote); lightly 1.6, `lightly.utils.benchmarking`.
    """
    probe = train_probe(training, LIGHTLY, seed, device)
    return {
        "linear_accuracy": _top(probe, test, 1),
        "linear_top_5": _top(probe, test, 5),
        "knn_accuracy": neighbour_scores(training, test, 200, (1,))["knn_accuracy"],
    }


def train_probe(training: Labelled, schedule: _Schedule, seed: int, device: torch.device | str = "cpu") -> nn.Linear:
    """A linear layer trained by cross-entropy on features as they are.

    Args:
        training: features (N, F) and labels.
        schedule: how.
        seed: of its initial weights and the order of the features.
        device: where.
    """
    generator = torch.Generator().manual_seed(seed)
    features, labels = _tensors(training, device)
    classes, width = int(labels.max()) + 1, features.shape[1]
    probe = nn.Linear(width, classes)
    with torch.no_grad():  # PyTorch's own initial values, from a generator of our own
        for parameter in probe.parameters():
            parameter.uniform_(-(width**-0.5), width**-0.5, generator=generator)
    probe = probe.to(device)
    steps = schedule.epochs * -(-len(labels) // BATCH)
    if schedule.optimizer == "adam":
        optimizer = torch.optim.Adam(probe.parameters(), schedule.learning_rate)
        pace = None
    else:
        optimizer = torch.optim.SGD(probe.parameters(), schedule.learning_rate, momentum=0.9)
        pace = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(schedule.epochs):
        order = torch.randperm(len(labels), generator=generator).to(device)
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(probe(features[rows]), labels[rows]).backward()
            optimizer.step()
            if pace is not None:
                pace.step()
    return probe


@torch.no_grad()
def _top(probe: nn.Linear, judged: Labelled, k: int) -> float:
    features, labels = _tensors(judged, probe.weight.device)
    best = probe(features).topk(min(k, probe.out_features), dim=1).indices
    return float((best == labels.unsqueeze(1)).any(dim=1).double().mean())


def _tensors(labelled: Labelled, device: torch.device | str) -> tuple[Tensor, Tensor]:
    features, labels = (torch.from_numpy(np.ascontiguousarray(part)) for part in labelled)
    return features.float().to(device), labels.long().to(device)
