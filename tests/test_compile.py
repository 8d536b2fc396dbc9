"""torch.compile without a graph break: the same loss, gradient and running slope."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from batches import clusters
from weince import InfoNCELoss, ReleasedTopMLoss, RetrievalLoss, SupervisedLoss, TwoTowerLoss, WEINCELoss


def step(criterion: nn.Module, n: int, d: int) -> tuple[Tensor, ...]:
    z_a, z_b = (z.requires_grad_() for z in clusters(n, d, dtype=torch.float32))
    loss = criterion(z_a, z_b)
    return loss.detach(), *torch.autograd.grad(loss, (z_a, z_b)), *(value.clone() for value in criterion.buffers())


# Generating code takes ten seconds, so it is done once for every shape, and not for what the released terms add: a
# buffer that moves, which is settled before code is generated. "aot_eager" stops there.
@pytest.mark.parametrize(
    ("make", "backend", "dynamic"),
    [
        (WEINCELoss, "inductor", True),
        (InfoNCELoss, "inductor", True),
        (WEINCELoss, "aot_eager", None),
        (partial(WEINCELoss, decoupled=True), "aot_eager", None),
        (InfoNCELoss, "aot_eager", None),
        (ReleasedTopMLoss, "aot_eager", None),
    ],
)
def test_compiled_is_eager(make: Callable[[], nn.Module], backend: str, dynamic: bool | None):
    torch.compiler.reset()
    eager, compiled = make(), torch.compile(make(), fullgraph=True, backend=backend, dynamic=dynamic)
    for n, d in ((12, 8), (20, 5)):
        for found, expected in zip(step(compiled, n, d), step(eager, n, d), strict=True):
            # Sums in another order, in float32; gradients relative to their largest entry.
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("compiled", [TwoTowerLoss, SupervisedLoss, RetrievalLoss])
def test_settings_compile_without_a_graph_break(compiled: type):
    torch.compiler.reset()
    a, b = clusters(12, 5)
    inputs = (a, torch.arange(12) % 4) if compiled is SupervisedLoss else (a, b)
    expected = compiled()(*inputs)
    found = torch.compile(compiled(), fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(found, expected)
