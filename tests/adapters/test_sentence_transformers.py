"""The adapter against sentence-transformers itself, with a real model from an installed package."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.util import dot_score
from torch import Tensor

from batches import clusters, whole_of
from examples import load
from weince import INFONCE
from weince.adapters.sentence_transformers import CachedWEINCELoss, WEINCELoss
from weince.setups import explicit_negatives


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return load("sentence_transformers_simcse").minilm()


def columns(count: int) -> list[Tensor]:
    pairs = [*clusters(17, 6, dtype=torch.float32), *clusters(17, 6, seed=5, dtype=torch.float32)]
    return [column.clone().requires_grad_() for column in pairs[:count]]


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("directions", [("query_to_doc",), ("query_to_doc", "doc_to_query")])
def test_weight_zero_is_multiple_negatives_ranking(count: int, directions: tuple, model: SentenceTransformer):
    theirs = MultipleNegativesRankingLoss(model, 20.0, directions=directions, partition_mode="per_direction")
    found = []
    for criterion in (WEINCELoss(model, 20.0, directions=directions, gate=INFONCE), theirs):
        leaves = columns(count)
        loss = criterion.compute_loss_from_embeddings(leaves, None)
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=5e-5, atol=5e-6)


def test_statistics_are_the_cores(model: SentenceTransformer):
    criterion, seen = WEINCELoss(model), []
    criterion.inner.register_forward_hook(lambda module, arguments, output: seen.append(output))
    query, positive, *negatives = columns(4)
    criterion.compute_loss_from_embeddings([query, positive, *negatives])
    expected = whole_of(explicit_negatives(query, positive, torch.stack(negatives, 1)), 0.05)
    torch.testing.assert_close(seen[0].weight, expected.weight, rtol=1e-6, atol=1e-6)


def test_the_cached_loss_has_the_same_loss_and_gradient(model: SentenceTransformer):
    model.eval()  # without dropout both see the same embeddings
    lines = [["a cat sat", "the cat sat down"], ["dogs bark", "a dog barks"], ["rain falls", "it rains"], ["go", "run"]]
    found = []
    for criterion in (WEINCELoss(model), CachedWEINCELoss(model, mini_batch_size=3)):
        model.zero_grad()
        tokens = [model.preprocess(list(column)) if hasattr(model, "preprocess") else model.tokenize(list(column))
                  for column in zip(*lines, strict=True)]  # fmt: skip
        loss = criterion(tokens, None)
        loss.backward()
        gradient = next(p.grad.clone() for p in model.parameters() if p.grad is not None and p.ndim == 2)
        found.append((loss.detach(), gradient))
    for plain, cached in zip(*found, strict=True):
        torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


def test_settings_for_the_model_card(model: SentenceTransformer):
    config = WEINCELoss(model, scale=15.0).get_config_dict()
    assert config["scale"] == 15.0
    assert config["gate"]["kappa_rho"] == 10.0
    assert "2606.00262" in CachedWEINCELoss(model).citation


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scale", {"scale": 0.0}),
        ("similarity_fct", {"similarity_fct": dot_score}),
        ("directions", {"directions": ("doc_to_query",)}),
    ],
)
def test_bad_settings_are_refused(name: str, options: dict, model: SentenceTransformer):
    with pytest.raises(ValueError, match=f"^Parameter `{name}` should "):
        WEINCELoss(model, **options)
