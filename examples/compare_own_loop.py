"""Which loss is better in a loop of your own? Here SimCLR with lightly's head and augmentation; about a minute.

The loop is yours: any encoder, any data, any setting of the loss. `compare` tunes every arm on the same grid by
validation scores, reports the chosen settings by test scores from other seeds, paired, and goes on where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torchvision.transforms.functional import to_pil_image

from weince import InfoNCELoss, WEINCELoss
from weince.lab import Arm, compare

digits = load_digits()
IMAGES = torch.from_numpy(np.asarray(digits.images, dtype=np.float32) / 16).unsqueeze(1)
LABELS = np.asarray(digits.target)
PARTS = dict(zip(("training", "validation", "test"), np.split(np.random.default_rng(0).permutation(1797), (1000, 1400)),
                 strict=True))  # fmt: skip
VIEWS = SimCLRTransform(input_size=8, cj_prob=0.0, gaussian_blur=0.0, random_gray_scale=0.0, hf_prob=0.0, min_scale=0.5,
                        normalize={"mean": [0.5], "std": [0.5]})  # fmt: skip
STEPS = 60


def encoder() -> torch.nn.Module:
    """Images (N, 1, 8, 8) to features (N, 64)."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 3, stride=2, padding=1),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(256, 64),
    )  # fmt: skip


def train(criterion: torch.nn.Module, seed: int, folder: Path) -> float:
    """Train from a seed, leave the encoder in the folder, return its score on validation images."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    backbone, head = encoder(), SimCLRProjectionHead(64, 64, 32)
    optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters(), *criterion.parameters()], 1e-3)
    pictures = [to_pil_image(image) for image in IMAGES[PARTS["training"]]]
    for _ in range(STEPS):
        drawn = [VIEWS(pictures[at]) for at in torch.randint(len(pictures), (128,))]
        z_a, z_b = (head(backbone(torch.stack(views))) for views in zip(*drawn, strict=True))
        optimizer.zero_grad()
        criterion(z_a, z_b).backward()
        optimizer.step()
    torch.save(backbone.state_dict(), folder / "encoder.pt")
    return score(backbone, "validation")


def test(criterion: torch.nn.Module, seed: int, folder: Path) -> float:
    """The score on test images of what `train` left in the folder."""
    backbone = encoder()
    backbone.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return score(backbone, "test")


@torch.no_grad()
def score(backbone: torch.nn.Module, part: str) -> float:
    """Accuracy of five nearest neighbours among the training images."""
    features = {name: backbone(IMAGES[PARTS[name]] * 2 - 1).numpy() for name in ("training", part)}
    neighbours = KNeighborsClassifier(5, metric="cosine").fit(features["training"], LABELS[PARTS["training"]])
    return float(neighbours.score(features[part], LABELS[PARTS[part]]))


def main(folder: str = "runs/own-loop", temperatures: tuple[float, ...] = (0.1, 0.3)) -> dict[str, Any]:
    """Compare; returns the result."""
    return compare(
        train,
        test=test,
        arms={
            "InfoNCE": Arm(InfoNCELoss, temperature=temperatures),
            "WEINCE": Arm(WEINCELoss, temperature=temperatures),
        },
        seeds=(1, 2),
        confirm_seeds=(3, 4, 5),
        folder=folder,
        metrics={"knn": "kNN accuracy"},
        settings={"steps": STEPS, "batch": 128},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="runs/own-loop")
    main(parser.parse_args().folder)
