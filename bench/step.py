"""What the loss is of a training step: ResNet-18, 32 px, batch 256, forward, backward and optimiser, on random images.

    python bench/step.py [--rounds 5]

Both losses train copies of one model in turn; beside the whole step the loss alone is timed on its embeddings.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from competitors import embeddings, once
from rows import RESULTS, record
from weince import InfoNCELoss, WEINCELoss
from weince.lab.training.encoders import make_encoder, make_projection
from weince.lab.training.settings import ImageSettings

BATCH, SIZE, WIDTH = 256, 32, 128


def main() -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    wanted = parser.parse_args()
    losses = {"InfoNCE": InfoNCELoss(), "WEINCE": WEINCELoss()}
    images = torch.rand(2, BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(wanted.device)
    z = embeddings(2 * BATCH, WIDTH, wanted.device)
    trained, seen = {}, {name: ([], []) for name in losses}
    for name in losses:
        encoder, features = make_encoder(ImageSettings(encoder="resnet18"), 3, SIZE, seed=0)
        model = torch.nn.Sequential(encoder, make_projection(features, WIDTH, seed=0)).to(wanted.device)
        trained[name] = model, torch.optim.Adam(model.parameters(), 3e-4)
    for number in range(wanted.rounds + 1):
        for name, criterion in losses.items():
            step, loss = (
                _step_ms(*trained[name], criterion, images),
                statistics.median(once(criterion, z) for _ in range(9)),
            )
            if number:  # the first warms up
                seen[name][0].append(step)
                seen[name][1].append(loss)
    rows = []
    for name, (steps, alone) in seen.items():
        cell = {"loss": name, "kind": "ResNet-18, 32 px, batch 256", "two_n": 2 * BATCH, "width": WIDTH}
        step, loss = statistics.median(steps), statistics.median(alone)
        rows += [
            {"metric": "train_step_ms", "value": round(step, 1), "unit": "ms", **cell},
            {"metric": "loss_of_step_ms", "value": round(loss, 2), "unit": "ms", **cell},
            {"metric": "loss_share", "value": round(100 * loss / step, 3), "unit": "%", **cell},
        ]
        print(f"{name}: step {step:.0f} ms, loss {loss:.2f} ms, {100 * loss / step:.3f} %")
    record(rows, wanted.device, RESULTS)


def _step_ms(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, criterion: torch.nn.Module, images: torch.Tensor
) -> float:
    start = time.perf_counter()
    optimizer.zero_grad()
    z_a, z_b = model(images.flatten(0, 1)).chunk(2)
    criterion(z_a, z_b).backward()
    optimizer.step()
    if images.is_cuda:
        torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
