"""What a loss costs: forward and backward on embeddings, side by side with the InfoNCE of other libraries.

    pip install lightly==1.6.0 pytorch-metric-learning==2.9.0 open_clip_torch==3.3.0 sentence-transformers==6.2.0
    python bench/loss.py [--sizes 512 4096] [--widths 128] [--only "WEINCE tiled" "lightly NTXentLoss"]

Every cell is timed in this one process, all competitors of a cell in turn, round after round, and the median of the
rounds is kept: machines drift, ratios within a round do not. Peak extra memory is read in a process of its own. A cell
that would take more than a minute is skipped and marked.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from weince import InfoNCELoss, WEINCELoss

SIZES = (512, 2048, 4096, 8192, 16384, 65536)
WIDTHS = (64, 128, 512)
ROUNDS = 7
SLOW_S = 60.0
TEMPERATURE = 0.5
Step = Callable[[Tensor, Tensor], Tensor]


def floor(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The bare products: one forward, two backward. Returns something to call backward on."""
    z = torch.cat([z_a, z_b]).detach()
    s = z @ z.T
    return ((s @ z).sum() + (s.T @ z).sum()).requires_grad_()


def competitors() -> dict[str, tuple[str, Callable[[], Step]]]:
    """Name -> (kind, maker). The symmetric kind has 2N anchors; the one-way kind N anchors and N candidates."""

    def lightly() -> Step:
        from lightly.loss import NTXentLoss

        return NTXentLoss(TEMPERATURE)

    def metric_learning() -> Step:
        from pytorch_metric_learning.losses import NTXentLoss, SelfSupervisedLoss

        return SelfSupervisedLoss(NTXentLoss(TEMPERATURE))

    def open_clip() -> Step:
        from open_clip.loss import ClipLoss

        loss = ClipLoss()
        unit = torch.nn.functional.normalize
        return lambda a, b: loss(unit(a, dim=1), unit(b, dim=1), torch.tensor(1 / TEMPERATURE))

    def sentence_transformers() -> Step:
        from sentence_transformers.losses import MultipleNegativesRankingLoss

        loss = MultipleNegativesRankingLoss(None, scale=1 / TEMPERATURE)  # embeddings are given: no model is called
        return lambda a, b: loss.compute_loss_from_embeddings([a, b], None)

    return {
        "floor (3 products)": ("2N anchors", lambda: floor),
        "InfoNCE tiled": ("2N anchors", lambda: InfoNCELoss(TEMPERATURE, implementation="tiled")),
        "InfoNCE dense": ("2N anchors", lambda: InfoNCELoss(TEMPERATURE, implementation="dense")),
        "InfoNCE compiled": ("2N anchors", lambda: torch.compile(InfoNCELoss(TEMPERATURE))),
        "WEINCE tiled": ("2N anchors", lambda: WEINCELoss(TEMPERATURE, implementation="tiled")),
        "WEINCE dense": ("2N anchors", lambda: WEINCELoss(TEMPERATURE, implementation="dense")),
        "WEINCE compiled": ("2N anchors", lambda: torch.compile(WEINCELoss(TEMPERATURE))),
        "lightly NTXentLoss": ("2N anchors", lightly),
        "pytorch-metric-learning NTXent": ("2N anchors", metric_learning),
        "open_clip ClipLoss": ("N x N, both ways", open_clip),
        "sentence-transformers MNRL": ("N x N, one way", sentence_transformers),
    }


def embeddings(two_n: int, width: int, device: str) -> tuple[Tensor, Tensor]:
    """Two views of clustered points: a tail as in training, not noise."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(two_n // 8, width, generator=generator).repeat_interleave(4, 0)
    z = [(centres + 0.7 * torch.randn(two_n // 2, width, generator=generator)).to(device) for _ in range(2)]
    return z[0].requires_grad_(), z[1].requires_grad_()


def once(step: Step, z: tuple[Tensor, Tensor]) -> float:
    """Milliseconds of one forward and backward."""
    for part in z:
        part.grad = None
    _wait(z[0])
    start = time.perf_counter()
    step(*z).backward()
    _wait(z[0])
    return 1e3 * (time.perf_counter() - start)


def _wait(z: Tensor) -> None:
    if z.is_cuda:
        torch.cuda.synchronize()


def time_cell(names: list[str], two_n: int, width: int, device: str) -> dict[str, float | None]:
    """Median milliseconds of each competitor; None for those that would take more than a minute."""
    z = embeddings(two_n, width, device)
    steps, seen = {}, {name: [] for name in names}
    for name in names:
        step = competitors()[name][1]()
        # A tenth of the batch tells whether the whole would be too slow: cost grows with its square, or faster.
        part = (z[0].detach()[: two_n // 20].requires_grad_(), z[1].detach()[: two_n // 20].requires_grad_())
        once(step, part)
        if once(step, part) * 100 > 1e3 * SLOW_S:
            continue
        try:
            if once(step, z) < 1e3 * SLOW_S:
                steps[name] = step
        except RuntimeError as error:  # out of memory
            print(f"{name}, 2N = {two_n}: {str(error).splitlines()[0][:160]}", flush=True)
    for _ in range(ROUNDS):
        for name, step in steps.items():
            seen[name].append(once(step, z))
    return {name: statistics.median(times) if times else None for name, times in seen.items()}


def peak_mib(name: str, two_n: int, width: int, device: str) -> float | None:
    """Peak memory of one forward and backward beyond what the process held before it, in a process of its own."""
    words = ["--memory-of", name, "--size", str(two_n), "--width", str(width), "--device", device]
    command = [sys.executable, __file__, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return float(ran.stdout) if ran.returncode == 0 else None


def _peak_here(name: str, two_n: int, width: int, device: str) -> float:
    step = competitors()[name][1]()
    once(step, embeddings(64, width, device))
    z = embeddings(two_n, width, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(step, z)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Not ru_maxrss: a child inherits its parent's peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_peak_kib()
    once(step, z)
    return (_resident_peak_kib() - before) / 2**10


def _resident_peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def _versions() -> str:
    found = []
    for package in ("torch", "lightly", "pytorch-metric-learning", "open_clip_torch", "sentence-transformers"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return "; ".join(found)


def main() -> None:
    """Measure, write the rows, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--only", nargs="+", default=list(competitors()))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    if wanted.memory_of:
        print(_peak_here(wanted.memory_of, wanted.size, wanted.width, wanted.device))
        return
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    host = f"{platform.machine()}, {torch.get_num_threads()} threads"
    name = torch.cuda.get_device_name() if wanted.device == "cuda" else host
    common = {"device": name, "versions": _versions(), "commit": commit}
    rows = []
    for width in wanted.widths:
        for two_n in wanted.sizes:
            times = time_cell(wanted.only, two_n, width, wanted.device)
            for loss, ms in times.items():
                cell = {"loss": loss, "kind": competitors()[loss][0], "two_n": two_n, "width": width}
                value = "skipped" if ms is None else round(ms, 3)
                rows.append({"metric": "step_ms", "value": value, "unit": "ms", **cell, **common})
                if ms is not None and not loss.startswith("floor"):
                    peak = peak_mib(loss, two_n, width, wanted.device)
                    rows.append({"metric": "peak_mib", "value": peak, "unit": "MiB", **cell, **common})
            print(width, two_n, {k: v and round(v, 1) for k, v in times.items()}, flush=True)
            with wanted.out.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
