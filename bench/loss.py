"""What a loss costs: forward and backward on embeddings, side by side with the InfoNCE of other libraries.

    python bench/loss.py [--sizes 512 4096] [--widths 128] [--only "WEINCE tiled" "lightly NTXentLoss"]

Every cell is timed in this one process, all competitors of a cell in turn, round after round, and the median of the
rounds is kept: machines drift, ratios within a round do not. Peak extra memory is read in a process of its own. A step
that would take more than a minute, or more memory than there is, by what the next smaller size took, is skipped and
marked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rows import RESULTS, record
from weince import INFONCE, InfoNCELoss, RetrievalLoss, TwoTowerLoss, WEINCELoss

SIZES = (512, 2048, 4096, 8192, 16384, 65536)
WIDTHS = (128, 64, 512)
ROUNDS = 7
SLOW_S = 60.0
TEMPERATURE = 0.5
CUBIC = ("pytorch-metric-learning NTXent",)
"""Those whose cost grows with the cube of the batch, not with its square."""
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
        "InfoNCE two towers": ("N x N, both ways", lambda: TwoTowerLoss(TEMPERATURE, INFONCE)),
        "WEINCE two towers": ("N x N, both ways", lambda: TwoTowerLoss(TEMPERATURE)),
        "open_clip ClipLoss": ("N x N, both ways", open_clip),
        "InfoNCE retrieval": ("N x N, one way", lambda: RetrievalLoss(TEMPERATURE, INFONCE)),
        "WEINCE retrieval": ("N x N, one way", lambda: RetrievalLoss(TEMPERATURE)),
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


def time_cell(names: list[str], two_n: int, width: int, device: str) -> dict[str, float]:
    """Median milliseconds of each competitor; those that fail are left out."""
    z = embeddings(two_n, width, device)
    steps: dict[str, Step] = {}
    seen: dict[str, list[float]] = {}
    for name in names:
        step = competitors()[name][1]()
        try:
            once(step, z)  # compiles, and warms up
            seen[name], steps[name] = [], step
        except RuntimeError as error:  # out of memory
            print(f"{name}, 2N = {two_n}: {str(error).splitlines()[0][:160]}", flush=True)
    for number in range(ROUNDS):
        for name, step in steps.items():
            # One round is enough for what takes half a minute.
            if not seen[name] or number * seen[name][0] < 2e4:
                seen[name].append(once(step, z))
    return {name: statistics.median(times) for name, times in seen.items()}


def too_much(name: str, two_n: int, before: dict[str, tuple[int, float, float]]) -> bool:
    """Whether a competitor would take too long or too much, by its size, time and memory before."""
    if name not in before:
        return False
    size, ms, mib = before[name]
    grown = (two_n / size) ** (3 if name in CUBIC else 2)
    # What tiles hold grows with the batch alone, so memory is judged by what it was only where it was a matrix.
    matrix = mib * 2**20 > 2 * size**2
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return ms * grown > 1.1e3 * SLOW_S or (matrix and mib * grown > 0.7 * free)


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


def main() -> None:
    """Measure, write the rows, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
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
    for width in wanted.widths:
        before: dict[str, tuple[int, float, float]] = {}
        for two_n in sorted(wanted.sizes):
            names = [name for name in wanted.only if not too_much(name, two_n, before)]
            times = time_cell(names, two_n, width, wanted.device)
            rows = []
            for name in wanted.only:
                cell = {"loss": name, "kind": competitors()[name][0], "two_n": two_n, "width": width}
                ms = times.get(name)
                rows.append(
                    {"metric": "step_ms", "value": "skipped" if ms is None else round(ms, 3), "unit": "ms", **cell}
                )
                peak = None if ms is None else peak_mib(name, two_n, width, wanted.device)
                if ms is not None and peak is not None:
                    before[name] = (two_n, ms, peak)
                    rows.append({"metric": "peak_mib", "value": round(peak, 1), "unit": "MiB", **cell})
            record(rows, wanted.device, wanted.out)
            print(width, two_n, {name: round(ms, 1) for name, ms in times.items()}, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
