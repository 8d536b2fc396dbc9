"""What the examples on images share: scikit-learn's handwritten digits, two random views, a small encoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def images_and_labels() -> tuple[Tensor, Tensor]:
    """1,797 images (N, 1, 8, 8) in [0, 1], and their digits."""
    digits = load_digits()
    return torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16, torch.tensor(digits.target)


def batches(size: int, steps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Random batches of images, labels and places in the set."""
    images, labels = images_and_labels()
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randperm(len(images), generator=generator)[:size]
        yield images[rows], labels[rows], rows


def view(images: Tensor) -> Tensor:
    """Each image moved by up to a pixel, and noisy."""
    crops = nn.functional.pad(images, (1, 1, 1, 1)).unfold(2, 8, 1).unfold(3, 8, 1)  # (N, 1, 3, 3, 8, 8)
    rows, columns = torch.randint(0, 3, (2, len(images)))
    return crops[torch.arange(len(images)), :, rows, columns] + 0.2 * torch.randn_like(images)


def encoder(width: int = 32) -> nn.Module:
    """Two convolutions and two linear layers, with batch norm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, width),
    )
