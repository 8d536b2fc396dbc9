"""Rivals against the libraries that have them, in value and in gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from batches import clusters
from weince.lab.rivals import (
    DCL,
    MACL,
    HardnessWeighted,
    LearntTemperature,
    Setup,
    SigLIP,
    in_setup,
)


def agree(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *rows: Tensor, tolerance: float = 1e-5) -> None:
    found = []
    for loss in (ours, theirs):
        leaves = [row.clone().requires_grad_() for row in rows]
        value = loss(*leaves)
        found.append((value.detach(), *torch.autograd.grad(value, leaves)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def ours(loss: nn.Module, setup: Setup = "two-views") -> nn.Module:
    return in_setup(loss, setup)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_dcl_is_lightlys(tau: float):
    lightly = pytest.importorskip("lightly.loss")
    agree(ours(DCL(tau)), lightly.DCLLoss(temperature=tau), *clusters(12, 6))


@pytest.mark.parametrize(("alpha", "threshold"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.3)])
def test_macl_is_lightlys(alpha: float, threshold: float):
    lightly = pytest.importorskip("lightly.loss")
    agree(
        ours(MACL(0.2, alpha, threshold)),
        lightly.MACLLoss(temperature=0.2, alpha=alpha, A_0=threshold),
        *clusters(12, 6),
    )


def unit(z: Tensor) -> Tensor:
    return nn.functional.normalize(z, dim=1)


def test_siglip_is_open_clips():
    open_clip = pytest.importorskip("open_clip.loss")
    loss = SigLIP(20.0, -7.0).double()
    towers, library = ours(loss, "two-towers"), open_clip.SigLipLoss()
    scale, bias = loss.temperature.logit_scale, loss.bias

    def theirs(a: Tensor, b: Tensor) -> Tensor:
        return library(unit(a), unit(b), scale.exp(), bias)

    agree(towers, theirs, *clusters(12, 6), tolerance=1e-6)
    a, b = clusters(12, 6)
    gradients = [torch.autograd.grad(of(a, b), [scale, bias]) for of in (towers, theirs)]
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-6)


def test_a_learnt_temperature_is_open_clips():
    open_clip = pytest.importorskip("open_clip.loss")
    loss = LearntTemperature(0.07).double()
    towers, library, scale = ours(loss, "two-towers"), open_clip.ClipLoss(), loss.temperature.logit_scale

    def theirs(a: Tensor, b: Tensor) -> Tensor:
        return library(unit(a), unit(b), scale.exp())

    agree(towers, theirs, *clusters(12, 6), tolerance=1e-6)
    a, b = clusters(12, 6)
    one, other = (torch.autograd.grad(of(a, b), scale)[0] for of in (towers, theirs))
    assert torch.allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(("mode", "negatives"), [("in_batch_negatives", 0), ("all_negatives", 0), ("all_negatives", 2)])
def test_hardness_is_sentence_transformers(mode: str, negatives: int):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    model = sentence_transformers.SentenceTransformer(
        modules=[sentence_transformers.sentence_transformer.modules.Normalize()], device="cpu"
    )
    library = losses.MultipleNegativesRankingLoss(model, scale=10.0, hardness_mode=mode, hardness_strength=5.0)
    a, b = clusters(12, 6)
    own = [clusters(12, 6, seed=seed)[0] for seed in range(1, 1 + negatives)]
    retrieval = ours(HardnessWeighted(0.1, 5.0), "retrieval")

    def here(query: Tensor, positive: Tensor, *rest: Tensor) -> Tensor:
        return retrieval(query, positive, torch.stack(rest, dim=1) if rest else None)

    agree(here, lambda *rows: library.compute_loss_from_embeddings(list(rows), None), a, b, *own)
