"""What the loss is of a training step: encoder, forward, backward and optimiser, batch 256, on random images.

    python bench/step.py [--rounds 5] [--encoder resnet18]

Both losses train copies of one model in turn; beside the whole step the loss alone is timed on its embeddings. On a GPU
the encoder runs in bfloat16 under autocast, and steps follow each other without waiting, as they do in training.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from competitors import embeddings, once
from rows import RESULTS, record
from weince import InfoNCELoss, WEINCELoss

BATCH, WIDTH = 256, 128


class Encoder(NamedTuple):
    """A name for people, and the edge length of its images in pixels."""

    title: str
    size: int


ENCODERS = {"resnet18": Encoder("ResNet-18", 32), "vit-small": Encoder("ViT-S/16", 128)}


def make_encoder(name: str) -> tuple[nn.Module, int]:
    """One of `ENCODERS` with random weights, and the width of its features.

    Raises:
        ImportError: neither timm nor torchvision is installed.
    """
    torch.manual_seed(0)
    net: Any
    if name == "vit-small":
        try:
            import timm

            size = ENCODERS[name].size
            return timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0, img_size=size), 384
        except ModuleNotFoundError:
            from torchvision.models import VisionTransformer

            net = VisionTransformer(ENCODERS[name].size, 16, 12, 6, 384, 1536)
            net.heads = nn.Identity()
            return net, 384
    try:
        import timm

        net = timm.create_model("resnet18", pretrained=False, num_classes=0)
    except ModuleNotFoundError:
        from torchvision.models import resnet18

        net = resnet18()
        net.fc = nn.Identity()
    # For small images, as the recipes of `weince compare` have it: the usual stem would leave an eighth of them.
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net, 512


class Trained(NamedTuple):
    """One loss and its copy of the model."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    criterion: nn.Module

    def step(self, images: Tensor) -> None:
        """Of (2, N, 3, S, S) images, two views."""
        self.optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
            z_a, z_b = self.model(images.flatten(0, 1)).chunk(2)
            loss = self.criterion(z_a, z_b)
        loss.backward()
        self.optimizer.step()


def measure(
    name: str,
    losses: Mapping[str, nn.Module],
    device: str,
    batch: int = BATCH,
    rounds: int = 5,
    steps: int = 1,
    until: float = float("inf"),
) -> list[dict[str, Any]]:
    """Rows of the step with each loss; the first is what the others' overhead is over.

    Args:
        name: of `ENCODERS`.
        losses: by name.
        device: "cpu" or "cuda".
        batch: examples, each of two views.
        rounds: in each all losses take their turn, in an order that alternates.
        steps: of each turn, without waiting between them.
        until: no further round after this `time.monotonic()`, but three there are.

    Raises:
        ImportError: no library has the encoder.
    """
    encoder = ENCODERS[name]
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, batch, 3, encoder.size, encoder.size, generator=generator).to(device)
    z = embeddings(8 * max(1, batch // 4), WIDTH, device)
    trained: dict[str, Trained] = {}
    for loss, criterion in losses.items():
        net, features = make_encoder(name)
        head = nn.Sequential(
            nn.Linear(features, features, bias=False), nn.ReLU(), nn.Linear(features, WIDTH, bias=False)
        )
        model = nn.Sequential(net, head).to(device)
        trained[loss] = Trained(model, torch.optim.Adam(model.parameters(), 3e-4), criterion)
    seen: dict[str, list[float]] = {loss: [] for loss in losses}
    alone: dict[str, list[float]] = {loss: [] for loss in losses}
    for number in range(rounds + 1):
        order = list(trained) if number % 2 else list(trained)[::-1]
        for loss in order:
            taken = _turn_ms(trained[loss], images, steps if number else max(3, steps) if images.is_cuda else 1)
            apart = statistics.median(once(losses[loss], z) for _ in range(9))
            if number:  # the first warms up
                seen[loss].append(taken)
                alone[loss].append(apart)
        if number >= 3 and time.monotonic() > until:
            break
    return _rows(f"{encoder.title}, {encoder.size} px, batch {batch}", 2 * batch, seen, alone)


def _turn_ms(trained: Trained, images: Tensor, steps: int) -> float:
    """Milliseconds a step."""
    start = time.perf_counter()
    for _ in range(steps):
        trained.step(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / steps


def _rows(kind: str, two_n: int, seen: dict[str, list[float]], alone: dict[str, list[float]]) -> list[dict[str, Any]]:
    rows = []
    plain = next(iter(seen))
    for name, taken in seen.items():
        cell = {"loss": name, "kind": kind, "two_n": two_n, "width": WIDTH}
        step, loss = statistics.median(taken), statistics.median(alone[name])
        rows += [
            {"metric": "train_step_ms", "value": round(step, 2), "unit": "ms", **cell},
            {"metric": "loss_of_step_ms", "value": round(loss, 3), "unit": "ms", **cell},
            {"metric": "loss_share", "value": round(100 * loss / step, 3), "unit": "%", **cell},
        ]
        if name == plain:
            continue
        # Round by round: what the machine does meanwhile falls on both.
        more = sorted(100 * (a - b) / b for a, b in zip(taken, seen[plain], strict=True))
        quarter = (len(more) - 1) // 4
        rows += [
            {"metric": "step_overhead", "value": round(statistics.median(more), 3), "unit": "%", **cell},
            {"metric": "step_overhead_low", "value": round(more[quarter], 3), "unit": "%", **cell},
            {"metric": "step_overhead_high", "value": round(more[-1 - quarter], 3), "unit": "%", **cell},
        ]
    return rows


def main() -> None:
    """Measure, print and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=ENCODERS, default="resnet18")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    wanted = parser.parse_args()
    losses = {"InfoNCE": InfoNCELoss(), "WEINCE": WEINCELoss()}
    steps = 5 if wanted.device == "cuda" else 1
    rows = measure(wanted.encoder, losses, wanted.device, rounds=wanted.rounds, steps=steps)
    for row in rows:
        print(f"{row['loss']}, {row['kind']}: {row['metric']} {row['value']} {row['unit']}")
    record(rows, wanted.device, RESULTS)


if __name__ == "__main__":
    main()
