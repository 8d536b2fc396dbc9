"""Is the loss right on this device: every named gate and path against the dense loss in float64 on the CPU.

Awkward sizes, inputs in half precision, autocast, TF32 that the user switched on, the same bits again, `torch.compile`
and CUDA graphs. `bounds.py` says how far an error may go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

import weince.tiles.sweep
from competitors import reference_rows
from correctness.bounds import (
    TEMPERATURE,
    Check,
    LossOf,
    Values,
    Work,
    compared,
    differentiate,
    values,
    worst,
    yardstick,
)
from weince import CAUTIOUS, ENDPOINT, INFONCE, PAPER, WEIBIT, WEINCELoss, contest_loss
from weince.contest import Contest
from weince.setups import queued, two_views
from weince.tiles import rows

GATES = {"PAPER": PAPER, "ENDPOINT": ENDPOINT, "CAUTIOUS": CAUTIOUS, "WEIBIT": WEIBIT, "INFONCE": INFONCE}
SIZES = ((2, 7), (15, 1), (41, 7), (127, 16), (507, 128))
"""Examples and width: no size is a multiple of what kernels like, one has ties alone."""
INNER = 6
TF32 = 2.0**-10
"""Two operands that are rounded to ten bits."""


class Batch(NamedTuple):
    """Embeddings and what competes in them; `name` tells one from another."""

    name: str
    make: Callable[..., Contest]
    leaves: Sequence[Tensor]


def clusters(count: int, width: int, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    """Two views of rows around count // 4 + 1 centres, in float32.

    They lie in at most `INNER` dimensions, where tails end at the cap and positives are beaten: every gate opens.
    """
    generator = torch.Generator().manual_seed(0)
    inner = min(INNER, width)
    centres = torch.randn(count // 4 + 1, inner, generator=generator)
    own = centres[torch.arange(count) % len(centres)] + spread * torch.randn(count, inner, generator=generator)
    turned = torch.randn(inner, width, generator=torch.Generator().manual_seed(1))
    z_a, z_b = ((own + spread * torch.randn(count, inner, generator=generator)) @ turned for _ in range(2))
    return z_a, z_b


def views_batch(count: int, width: int, spread: float = 0.6) -> Batch:
    """Two views of `count` examples."""
    return Batch(f"2N = {2 * count:,}, D = {width}", two_views, clusters(count, width, spread))


@cache
def long_rows(columns: int) -> Batch:
    """A few anchors against a queue: rows longer than a program of a GPU holds at once."""
    rows, width = 33, 16
    query, key = clusters(rows, width)
    bank = torch.cat(clusters(columns // 2 + 1, width))[: columns - 1]
    return Batch(f"{rows} anchors, {columns:,} candidates, D = {width}", queued, (query, key, bank))


# ---- The paths.


@contextmanager
def small_tiles(device: str) -> Iterator[None]:
    """Sixteen rows a tile, none kept, so that a small batch has many tiles and the last one is cut."""
    sweep = weince.tiles.sweep
    tables = [getattr(sweep, name) for name in ("TILE_ELEMENTS", "KEPT_ELEMENTS") if hasattr(sweep, name)]
    before = [table[device] for table in tables], sweep.TILE_ROWS
    try:
        for table in tables:
            table[device] = 1
        sweep.TILE_ROWS = 16
        yield
    finally:
        for table, elements in zip(tables, before[0], strict=True):
            table[device] = elements
        sweep.TILE_ROWS = before[1]


def paths(device: str) -> list[str]:
    """By name; the second word on is how the tiled path is made to go."""
    return [
        "tiled",
        "tiled, small tiles",
        *(["tiled, PyTorch's rows"] if rows.usable(torch.empty(0, device=device)) else []),
        "dense",
    ]


def on(path: str, device: str) -> AbstractContextManager[object]:
    """The path's tiles and rows."""
    stack = ExitStack()
    if path.endswith("small tiles"):
        stack.enter_context(small_tiles(device))
    if path.endswith("rows"):
        stack.enter_context(reference_rows())
    return stack


def loss_of(batch: Batch, gate: str, path: str) -> LossOf:
    """Of a batch's embeddings and a temperature; summed, so that gradients in half precision do not underflow."""
    way = "dense" if path == "dense" else "tiled"
    return lambda *given: contest_loss(batch.make(*given[:-1]), given[-1], GATES[gate], "sum", implementation=way)


_known: dict[tuple[str, str, torch.dtype], tuple[Values, dict[str, float]]] = {}


def truth(batch: Batch, gate: str, dtype: torch.dtype = torch.float32) -> tuple[Values, dict[str, float]]:
    """Exact values and bounds; of embeddings in half precision, where they were rounded to it."""
    key = (batch.name, gate, dtype)
    if key not in _known:
        rounded = [leaf.to(dtype).float() for leaf in batch.leaves]
        exact, bounds = yardstick(loss_of(batch, gate, "dense"), rounded)
        if dtype != torch.float32:
            # Rounded once, by half an eps of the entry; as much again for what float32 had left between two numbers.
            bounds["gradient"] += torch.finfo(dtype).eps
        _known[key] = exact, bounds
    return _known[key]


# ---- The checks.


def checks(device: str, quick: bool) -> Iterator[Work]:
    """All of them, in the order of what one would look at first."""
    sizes = SIZES[2:4] if quick else SIZES if device == "cpu" else (*SIZES, (1025, 128))
    batches = [views_batch(*size) for size in sizes]
    for path in paths(device):
        long = [] if quick else [long_rows(2_001)] if device == "cpu" else [long_rows(17_001), long_rows(70_001)]
        for gate in GATES:
            yield Work(f"{gate} {path}", partial(_everywhere, batches + long, gate, path, device))
    one, tight = batches[-1], views_batch(*sizes[-1], spread=0.03)._replace(name="near the cap")
    for gate in ("PAPER", "CAUTIOUS") if quick else GATES:
        yield Work(f"{gate} tiled, precision", partial(_precisions, one, tight, gate, "tiled", device))
    yield Work("PAPER dense, precision", partial(_precisions, one, tight, "PAPER", "dense", device))
    for gate in GATES:
        yield Work(f"{gate} tiled, repeated", partial(_again, one, gate, device))
    both = [*((gate, "tiled") for gate in GATES), ("PAPER", "dense")]
    for gate, path in both if device == "cuda" else []:
        yield Work(f"{gate} {path}, CUDA graph", partial(_graph, one, gate, path))
    for gate, path in both:
        if not quick or gate == "PAPER":
            yield Work(f"{gate} {path}, compiled", partial(_compiled, one, gate, path, device))


def _everywhere(batches: list[Batch], gate: str, path: str, device: str) -> list[Check]:
    found = []
    for batch in batches:
        with on(path, device):
            values_here = differentiate(loss_of(batch, gate, path), batch.leaves, device, torch.float32)
        found += compared(f"{gate} {path}", batch.name, values_here, *truth(batch, gate))
    return worst(found)


def _precisions(batch: Batch, tight: Batch, gate: str, path: str, device: str) -> list[Check]:
    """Half precision for the embeddings, for all that autocast rules, and TF32 for the products."""
    found, loss = [], loss_of(batch, gate, path)
    for dtype in (torch.bfloat16, torch.float16):
        name = f"{gate} {path}, {str(dtype).removeprefix('torch.')}"
        found += compared(
            f"{name} embeddings",
            batch.name,
            differentiate(loss, batch.leaves, device, dtype),
            *truth(batch, gate, dtype),
        )
        values_here = differentiate(_under_autocast(loss, device, dtype), batch.leaves, device, torch.float32)
        found += compared(f"{name} autocast", batch.name, values_here, *truth(batch, gate))
    exact, bounds = truth(tight, gate)
    # The loss takes 1 - s; the two products of the gradient have no such difference, and may be in TF32.
    bounds = {part: bound + (0.0 if part == "loss" else 4 * TF32) for part, bound in bounds.items()}
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        values_here = differentiate(loss_of(tight, gate, path), tight.leaves, device, torch.float32)
    finally:
        torch.set_float32_matmul_precision(before)
    return found + compared(f"{gate} {path}, TF32 allowed", tight.name, values_here, exact, bounds)


def _under_autocast(loss: LossOf, device: str, dtype: torch.dtype) -> LossOf:
    """The forward pass alone, as PyTorch recommends."""

    def cast(*given: Tensor) -> Tensor:
        with torch.autocast(device, dtype):
            return loss(*given)

    return cast


def _again(batch: Batch, gate: str, device: str) -> list[Check]:
    first, second = (
        differentiate(loss_of(batch, gate, "tiled"), batch.leaves, device, torch.float32) for _ in range(2)
    )
    return compared(f"{gate} tiled, repeated", batch.name, first, second, dict.fromkeys(first, 0.0))


def _compiled(batch: Batch, gate: str, path: str, device: str) -> list[Check]:
    # On a CPU up to the point where code would be generated, which takes a compiler and ten seconds.
    torch.compiler.reset()
    backend = "inductor" if device == "cuda" else "aot_eager"
    way = "dense" if path == "dense" else "tiled"
    module = WEINCELoss(TEMPERATURE, GATES[gate], "sum", implementation=way)
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    values_here = differentiate(lambda a, b, tau: compiled(a, b), batch.leaves, device, torch.float32)
    return compared(f"{gate} {path}, compiled ({backend})", batch.name, values_here, *truth(batch, gate))


def _graph(batch: Batch, gate: str, path: str) -> list[Check]:
    """Captured on other embeddings than it is replayed on."""
    loss, place = loss_of(batch, gate, path), torch.device("cuda")
    static = [torch.randn(leaf.shape, device=place).requires_grad_() for leaf in batch.leaves]
    tau = torch.tensor(TEMPERATURE, device=place, requires_grad=True)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(loss(*static, tau), [*static, tau], allow_unused=True)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total = loss(*static, tau)
        gradients = torch.autograd.grad(total, [*static, tau], allow_unused=True)
    with torch.no_grad():
        for kept, leaf in zip(static, batch.leaves, strict=True):
            kept.copy_(leaf)
    graph.replay()
    torch.cuda.synchronize()
    found = values(total, gradients, static)
    return compared(f"{gate} {path}, CUDA graph", batch.name, found, *truth(batch, gate))
