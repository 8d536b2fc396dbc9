"""The loss over thousands of steps of random shapes, settings and degenerate batches: finite, and no growth."""

import gc
import random

import psutil
import pytest
import torch

from conftest import FULL
from weince import Gate, QueueLoss, RetrievalLoss, SupervisedLoss, TwoTowerLoss, WEINCELoss

STEPS = 10_000 if FULL else 500
GATES = [
    Gate(), Gate(evidence="endpoint"), Gate(evidence="nearness*endpoint", tail_min=4), Gate(slope="unit"),
    Gate(evidence="nearness", slope_estimator="maximum_likelihood"), Gate(evidence=1.0, slope=2.0), Gate(slope_max=3.0),
]  # fmt: skip


def batch(draw, generator):
    n, d = draw.randint(2, 70), draw.randint(2, 40)
    a, b = (torch.randn(n, d, generator=generator) for _ in range(2))
    kind = draw.choice(["random", "random", "random", "duplicates", "collapsed", "zeros", "tiny", "huge", "near"])
    if kind == "duplicates":
        b = a.clone()
        a[: n // 2] = a[0]
    elif kind == "collapsed":
        a[:], b[:] = a[0], a[0]
    elif kind == "zeros":
        a[0], b[-1] = 0.0, 0.0
    elif kind == "tiny":
        a, b = a * 1e-30, b * 1e-30
    elif kind == "huge":
        a, b = a * 1e30, b * 1e30
    elif kind == "near":
        b = a + 1e-7 * b
    return a.requires_grad_(), b.requires_grad_()


def loss_of(draw, a, b):
    options = {
        "temperature": draw.choice([0.03, 0.1, 0.5, 1.0]), "gate": draw.choice(GATES),
        "implementation": draw.choice(["dense", "tiled"]), "label_smoothing": draw.choice([0.0, 0.1]),
        "decoupled": draw.choice([False, True]),
    }  # fmt: skip
    setting = draw.choice(["views", "views", "towers", "queue", "labels", "retrieval"])
    if setting == "views":
        return WEINCELoss(**options)(a, b)
    if setting == "towers":
        return TwoTowerLoss(**options)(a, b)
    if setting == "queue":
        temperature = options.pop("temperature")
        return QueueLoss(4 * len(a), a.shape[1], temperature, **options)(a, b)
    if setting == "labels":
        return SupervisedLoss(**options)(a, torch.arange(len(a)) % draw.randint(1, 9))
    return RetrievalLoss(**options)(a, b, b.detach().flip(0)[: draw.randint(1, len(b))])


@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_soak(capsys):
    draw, generator = random.Random(1), torch.Generator().manual_seed(1)
    process, sizes = psutil.Process(), []
    for step in range(STEPS):
        a, b = batch(draw, generator)
        loss = loss_of(draw, a, b)
        loss.backward()
        assert torch.isfinite(loss), step
        for leaf in (a, b):
            assert leaf.grad is None or torch.isfinite(leaf.grad).all(), step
        if step % (STEPS // 10) == STEPS // 10 - 1:
            gc.collect()
            sizes.append(process.memory_info().rss / 2**20)
    with capsys.disabled():
        print(f"\nsoak: {STEPS} steps; MiB at each tenth: {', '.join(f'{size:.0f}' for size in sizes)}")
    assert sizes[-1] - sizes[len(sizes) // 2] < 20  # MiB, over the second half
