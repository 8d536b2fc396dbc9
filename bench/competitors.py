"""Who is measured: our losses and those of other libraries, each as a step on embeddings; how a cell of them is timed.

All competitors of a cell are timed in one process, in turn, round after round, and the median of the rounds is kept:
machines drift, ratios within a round do not.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from weince import CAUTIOUS, ENDPOINT, INFONCE, WEIBIT, InfoNCELoss, RetrievalLoss, TwoTowerLoss, WEINCELoss
from weince.tiles import rows

ROUNDS = 7
SLOW_S = 60.0
TEMPERATURE = 0.5
CUBIC = ("pytorch-metric-learning NTXent",)
"""Those whose cost grows with the cube of the batch, not with its square."""
FLOOR_ELEMENTS = 2**28
"""Of the similarities that the bare products hold at once: 1 GiB, so that they can be measured at every size."""
Step = Callable[[Tensor, Tensor], Tensor]


class Competitor(NamedTuple):
    """The symmetric kind has 2N anchors; the one-way kind N anchors and N candidates."""

    kind: str
    make: Callable[[], Step]


def floor(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The bare products: one forward, two backward. Returns something to call backward on."""
    z = torch.cat([z_a, z_b]).detach()
    total = z.new_zeros(())
    for part in z.split(max(1, FLOOR_ELEMENTS // len(z))):
        s = part @ z.T
        total += (s @ z).sum() + (s.T @ part).sum()
    return total.requires_grad_()


def competitors() -> dict[str, Competitor]:
    """By name."""

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

    makers: dict[str, tuple[str, Callable[[], Step]]] = {
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
    return {name: Competitor(*parts) for name, parts in makers.items()}


def of_a_gpu(device: str) -> dict[str, Competitor]:
    """What is measured beside them where the path is in question: every named gate, both paths, what "auto" takes."""

    def tiled(**settings: Any) -> Competitor:
        return Competitor("2N anchors", lambda: WEINCELoss(TEMPERATURE, implementation="tiled", **settings))

    def towers(**settings: Any) -> Competitor:
        return Competitor("N x N, both ways", lambda: TwoTowerLoss(TEMPERATURE, implementation="tiled", **settings))

    def by_reference() -> Step:
        criterion = WEINCELoss(TEMPERATURE, implementation="tiled")

        def step(a: Tensor, b: Tensor) -> Tensor:
            with reference_rows():
                return criterion(a, b)

        return step

    more = {
        "WEINCE endpoint tiled": tiled(gate=ENDPOINT),
        "WEINCE cautious tiled": tiled(gate=CAUTIOUS),
        "Weibit tiled": tiled(gate=WEIBIT),
        "InfoNCE auto": Competitor("2N anchors", lambda: InfoNCELoss(TEMPERATURE)),
        "WEINCE auto": Competitor("2N anchors", lambda: WEINCELoss(TEMPERATURE)),
        "InfoNCE two towers tiled": towers(gate=INFONCE),
        "WEINCE two towers tiled": towers(),
    }
    if rows.usable(torch.empty(0, device=device)):
        more["WEINCE tiled, PyTorch's rows"] = Competitor("2N anchors", by_reference)
    return more


# ---- The one place that knows how the passes over a row are chosen.


@contextmanager
def reference_rows() -> Iterator[None]:
    """PyTorch's passes over rows in the place of kernels."""
    before, rows.USED = rows.USED, False
    try:
        yield
    finally:
        rows.USED = before


# ---- Measuring.


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


def gpu_peak_mib(step: Step, z: tuple[Tensor, Tensor]) -> float:
    """Peak memory of one forward and backward, beyond what was held before it, on the current GPU."""
    for part in z:
        part.grad = None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    once(step, z)
    return (torch.cuda.max_memory_allocated() - before) / 2**20


class Cell(NamedTuple):
    """What was measured at one size and width, by name.

    Attributes:
        times: median milliseconds.
        peaks: MiB, on a GPU alone: on a CPU that takes a process each (`bench/loss.py`).
        failed: why a competitor has no time.
    """

    times: dict[str, float]
    peaks: dict[str, float]
    failed: dict[str, str]


def time_cell(
    chosen: Mapping[str, Competitor],
    two_n: int,
    width: int,
    device: str,
    rounds: int = ROUNDS,
    warm_ups: int = 1,
    enough_ms: float = 2e4,
) -> Cell:
    """Time each competitor; those that fail are left out.

    Args:
        chosen: by name.
        two_n: embeddings.
        width: of each.
        device: "cpu" or "cuda".
        rounds: at most so many of each.
        warm_ups: steps before them, the first of which may compile.
        enough_ms: no further round for a competitor whose rounds took that long.
    """
    z = embeddings(two_n, width, device)
    steps: dict[str, Step] = {}
    seen: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, competitor in chosen.items():
        try:
            step = competitor.make()
            for _ in range(warm_ups):
                once(step, z)
            if device == "cuda":
                peaks[name] = gpu_peak_mib(step, z)
            seen[name], steps[name] = [], step
        except Exception as error:  # not installed, out of memory, or what compilers throw
            failed[name] = reason(error)
            if device == "cuda":
                torch.cuda.empty_cache()
    for number in range(rounds):
        for name, step in steps.items():
            if not seen[name] or number * seen[name][0] < enough_ms:
                seen[name].append(once(step, z))
    return Cell({name: statistics.median(times) for name, times in seen.items()}, peaks, failed)


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{(error.name or str(error)).split('.')[0]} is not installed"
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:160]}" if said else type(error).__name__


def too_much(
    name: str, two_n: int, before: Mapping[str, tuple[int, float, float]], device: str, slow_s: float = SLOW_S
) -> bool:
    """Whether a competitor would take too long or too much, by its size, time (ms) and memory (MiB) before."""
    if name not in before:
        return False
    if expected_ms(name, two_n, before) > 1.1e3 * slow_s:
        return True
    if device == "cuda":
        return False  # a GPU refuses what it does not have; on a CPU the machine would begin to swap
    size, _, mib = before[name]
    # What tiles hold grows with the batch alone, so memory is judged by what it was only where it was a matrix.
    matrix = mib * 2**20 > 2 * size**2
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return matrix and mib * (two_n / size) ** 2 > 0.7 * free


def expected_ms(name: str, two_n: int, before: Mapping[str, tuple[int, float, float]]) -> float:
    """What a step would take if all of its time before was spent on pairs; 0 where nothing is known."""
    size, ms, _ = before.get(name, (two_n, 0.0, 0.0))
    return ms * (two_n / size) ** (3 if name in CUBIC else 2)
