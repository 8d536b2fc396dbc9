"""What a recipe's training step spends outside the model: `weince train` on random images against its bare model.

    python bench/recipe.py [--encoder small] [--size 32] [--epochs 6] [--batch-size 256] [--threads 2]

After every epoch as many steps of encoder, projection and Adam alone are timed on a batch that lies ready: what is left
of the epoch is views, loss, data and Lightning. Views and loss are timed alone likewise. Medians over epochs, the first
left out.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from rows import RESULTS, record
from weince.lab.data.sets import Images
from weince.lab.rivals import make_criterion
from weince.lab.training.contrastive import build
from weince.lab.training.fit import train
from weince.lab.training.settings import ImageSettings, Run
from weince.lab.training.views import make_views, two_views_of

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
    recipe = ImageSettings(data="cifar10", data_dir=Path(), encoder=wanted.encoder, epochs=wanted.epochs + 1,
                    batch_size=wanted.batch_size, precision=wanted.precision)  # fmt: skip
    count = STEPS * wanted.batch_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, wanted.size, wanted.size), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.zeros(count, dtype=torch.int64))
    rows = []
    for loss in ("infonce", "weince"):
        bare = _Bare(recipe, images, device, loss)
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Run(loss, 0.1, 7), images, Path(folder), lambda epoch, bare=bare: bare.epoch())
            with (Path(folder) / "history.csv").open() as file:
                whole = [float(row["seconds"]) for row in csv.DictReader(file)][1:]
        alone = bare.seconds[1:]
        share = statistics.median(1 - a / w for a, w in zip(alone, whole, strict=True))
        parts = {
            name: 1e3 * statistics.median(spent[1:]) / STEPS
            for name, spent in (("views", bare.views_seconds), ("loss", bare.loss_seconds))
        }
        rate = count / statistics.median(whole)
        cell = {"loss": loss, "kind": f"{wanted.encoder}, {wanted.size} px, batch {wanted.batch_size}",
                "two_n": 2 * wanted.batch_size, "width": wanted.encoder}  # fmt: skip
        rows += [
            {"metric": "images_per_second", "value": round(rate, 1), "unit": "images/s", **cell},
            {"metric": "outside_model_share", "value": round(100 * share, 1), "unit": "%", **cell},
        ]
        rows += [{"metric": f"{n}_ms_per_step", "value": round(v, 2), "unit": "ms", **cell} for n, v in parts.items()]
        step = 1e3 * statistics.median(whole) / STEPS
        print(f"{loss}: {rate:.0f} images/s, {100 * share:.1f} % of the step of {step:.0f} ms outside the model; "
              f"views {parts['views']:.1f} ms, loss {parts['loss']:.1f} ms")  # fmt: skip
    record(rows, device, RESULTS)


class _Bare:
    """Encoder, projection and optimiser, forward and backward on one batch of views."""

    def __init__(self, recipe: ImageSettings, images: Images, device: str, loss: str) -> None:
        self.cuda = device == "cuda"
        self.augment = make_views("cifar10", images.pixels.shape[-1])
        self.pixels = images.pixels[: recipe.batch_size].to(device)
        self.criterion = make_criterion(loss, 0.1, recipe.gate, recipe.rivals)
        self.embeddings = torch.randn(2, recipe.batch_size, recipe.projection, device=device, requires_grad=True)
        self.precision = recipe.precision
        halves = build(recipe, 7, images)
        self.model = torch.nn.Sequential(*halves).to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.model.parameters(), recipe.learning_rate)
        views = images.pixels[: recipe.batch_size].repeat(2, 1, 1, 1) / 255
        self.views = views.to(device, memory_format=torch.channels_last)
        self.seconds: list[float] = []
        self.views_seconds: list[float] = []
        self.loss_seconds: list[float] = []

    def epoch(self) -> None:
        """As many steps as an epoch has, of each part alone."""
        self.seconds.append(self._timed(self._model))
        self.views_seconds.append(self._timed(lambda: two_views_of(self.augment, self.pixels)))
        self.loss_seconds.append(self._timed(lambda: self.criterion(*self.embeddings).backward()))

    def _model(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "bf16-mixed"):
            z = self.model(self.views)
        z.float().square().mean().backward()
        self.optimizer.step()

    def _timed(self, work: Callable[[], object]) -> float:
        started = time.perf_counter()
        for _ in range(STEPS):
            work()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
