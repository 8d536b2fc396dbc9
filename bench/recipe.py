"""What a recipe's training step spends outside the model: `weince train` on random images against its bare model.

    python bench/recipe.py [--encoder small] [--size 32] [--epochs 6] [--batch-size 256] [--threads 2]

After every epoch as many steps of encoder, projection and Adam alone are timed on a batch that lies ready: what is left
of the epoch is views, loss, data and Lightning. Medians over epochs, the first left out.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import torch

from rows import RESULTS, record
from weince.lab.contrastive import build
from weince.lab.data import Images
from weince.lab.recipe import Recipe, Run
from weince.lab.train import train

STEPS = 8


def main() -> None:
    """Measure and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    wanted = parser.parse_args()
    torch.set_num_threads(wanted.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = Recipe(data="cifar10", data_dir=Path(), encoder=wanted.encoder, epochs=wanted.epochs + 1,
                    batch_size=wanted.batch_size, precision=wanted.precision)  # fmt: skip
    count = STEPS * wanted.batch_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, wanted.size, wanted.size), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.zeros(count, dtype=torch.int64))
    rows = []
    for loss in ("infonce", "weince"):
        bare = _Bare(recipe, images, device)
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Run(loss, 0.1, 7), images, Path(folder), lambda epoch, bare=bare: bare.epoch())
            with (Path(folder) / "history.csv").open() as file:
                whole = [float(row["seconds"]) for row in csv.DictReader(file)][1:]
        alone = bare.seconds[1:]
        share = statistics.median(1 - a / w for a, w in zip(alone, whole, strict=True))
        rate = count / statistics.median(whole)
        cell = {"loss": loss, "kind": f"{wanted.encoder}, {wanted.size} px, batch {wanted.batch_size}",
                "two_n": 2 * wanted.batch_size, "width": wanted.encoder}  # fmt: skip
        rows += [
            {"metric": "images_per_second", "value": round(rate, 1), "unit": "images/s", **cell},
            {"metric": "outside_model_share", "value": round(100 * share, 1), "unit": "%", **cell},
        ]
        print(f"{loss}: {rate:.0f} images/s, {100 * share:.1f} % of the step outside the model")
    record(rows, device, RESULTS)


class _Bare:
    """Encoder, projection and optimiser, forward and backward on one batch of views."""

    def __init__(self, recipe: Recipe, images: Images, device: str) -> None:
        self.cuda = device == "cuda"
        self.precision = recipe.precision
        halves = build(recipe, 7, images)
        self.model = torch.nn.Sequential(*halves).to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), recipe.learning_rate)
        views = images.pixels[: recipe.batch_size].repeat(2, 1, 1, 1) / 255
        self.views = views.to(device, memory_format=torch.channels_last)
        self.seconds: list[float] = []

    def epoch(self) -> None:
        """As many steps as an epoch has."""
        started = time.perf_counter()
        for _ in range(STEPS):
            self.optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                z = self.model(self.views)
            z.float().square().mean().backward()
            self.optimizer.step()
        if self.cuda:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()
