"""The adapter against open_clip itself."""

from __future__ import annotations

import pytest
import torch
from open_clip import ClipLoss
from torch import Tensor

from batches import clusters, whole_of
from weince import INFONCE, TwoTowerLoss
from weince.adapters.open_clip import WEINCELoss
from weince.setups import two_towers
from weince.units import unit_rows


def features(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    image, text = (z.requires_grad_() for z in clusters(21, 6, dtype=dtype))
    return image, text, torch.tensor(14.0, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("bias", [False, True])
def test_weight_zero_is_clip_with_the_gradient_of_its_scale(bias: bool):
    found = []
    for criterion in (WEINCELoss(gate=INFONCE), ClipLoss()):
        inputs = features()
        extra = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True) if bias else None
        image, text, scale = inputs
        # Features arrive normalised, as the model leaves them.
        loss = criterion(unit_rows(image), unit_rows(text), scale, extra, output_dict=True)["contrastive_loss"]
        leaves = (*inputs, extra) if extra is not None else inputs
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_each_direction_has_the_cores_statistics():
    criterion, seen = WEINCELoss(), []
    criterion.inner.register_forward_hook(lambda module, arguments, output: seen.append(output))
    image, text, scale = features()
    loss = criterion(image, text, scale)
    expected = [whole_of(two_towers(*pair), 1 / scale) for pair in ((image, text), (text, image))]
    parts = seen[0].parts(2)
    for output, direction in zip(parts, expected, strict=True):
        torch.testing.assert_close(output.weight, direction.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss, (expected[0].loss + expected[1].loss) / 2)
    assert not torch.equal(parts[0].weight, parts[1].weight)


def test_it_compiles_without_a_graph_break():
    torch.compiler.reset()
    criterion = WEINCELoss()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    found = []
    for step in (criterion, compiled):
        inputs = features(torch.float32)
        loss = step(*inputs)
        found.append((loss.detach(), *torch.autograd.grad(loss, inputs)))
    for eager, graph in zip(*found, strict=True):
        torch.testing.assert_close(graph, eager, rtol=2e-5, atol=2e-6)


def test_a_local_loss_without_gradient_to_the_other_processes_is_refused():
    with pytest.raises(NotImplementedError, match="Parameter `gather_with_grad`"):
        WEINCELoss(local_loss=True, world_size=2)


def test_what_every_loss_takes():
    image, text, scale = features(torch.float32)
    weight, ids = torch.rand(21), torch.arange(21) // 2
    options = {"sample_weight": weight, "ids": ids}
    expected = TwoTowerLoss(label_smoothing=0.1)(image, text, logit_scale=scale, **options)
    torch.testing.assert_close(WEINCELoss(label_smoothing=0.1)(image, text, scale, **options), expected)
    ignored = ids[:, None] == ids
    found = WEINCELoss()(image, text, scale, ignored=ignored)
    torch.testing.assert_close(found, WEINCELoss()(image, text, scale, ids=ids), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_batches_and_half_precision(n: int, dtype: torch.dtype):
    image, text = (unit_rows(z).to(dtype) for z in clusters(n, 6))
    scale = torch.tensor(14.0, dtype=dtype)
    found, expected = (criterion(image, text, scale) for criterion in (WEINCELoss(gate=INFONCE), ClipLoss()))
    torch.testing.assert_close(
        found.float(), expected.float(), rtol=1e-5 if dtype == torch.float32 else 0.05, atol=1e-2
    )
