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
from weince import INFONCE, LearnableTemperature, RetrievalLoss
from weince.adapters.sentence_transformers import CachedWEINCELoss, WEINCELoss, _text_ids
from weince.setups import explicit_negatives, two_towers


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
    assert config["matmul_precision"] == "highest"
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


def tokens(model: SentenceTransformer, columns: list[list[str]]) -> list[dict[str, Tensor]]:
    return [model.preprocess(column) if hasattr(model, "preprocess") else model.tokenize(column) for column in columns]


LINES = [
    ["a cat", "a dog", "rain", "a cat", "snow", "a bird"],  # 0 and 3: one query
    ["cats sleep", "dogs bark", "rain falls", "cats purr", "dogs bark", "a cat"],  # 1 and 4: one text; 5: a query's
    ["a fish", "a fish", "cats sleep", "sun", "rain", "wind"],  # of 2 it is 0's positive, of 4 it is 2's query
]


def test_equal_texts_are_never_negatives(model: SentenceTransformer):
    """Against the mask that a person would write, for both directions, padded differently in each column."""
    model.eval()
    query, positive, negative = LINES
    n = len(query)
    documents = positive + negative
    there = torch.zeros(n, 2 * n, dtype=torch.bool)
    back = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j, document in enumerate(documents):
            there[i, j] = document in (positive[i], query[i]) or (j < n and query[j] == query[i])
        for j in range(n):
            back[i, j] = positive[j] == positive[i] or query[j] in (query[i], positive[i])
    columns = tokens(model, LINES)
    z_q, z_p, z_n = (model(dict(column))["sentence_embedding"].detach() for column in columns)
    for directions in (("query_to_doc",), ("query_to_doc", "doc_to_query")):
        criterion = WEINCELoss(model, 10.0, directions=directions, ignore_equal_texts=True)
        expected = [whole_of(explicit_negatives(z_q, z_p, z_n.unsqueeze(1), ignored=there), 0.1).loss]
        if len(directions) == 2:
            expected.append(whole_of(two_towers(z_p, z_q, ignored=back), 0.1).loss)
        found = criterion(tokens(model, LINES)).detach()
        torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)
        cached = CachedWEINCELoss(model, 10.0, directions=directions, mini_batch_size=4, ignore_equal_texts=True)
        torch.testing.assert_close(cached(tokens(model, LINES)).detach(), found, rtol=1e-4, atol=1e-5)
        plain = WEINCELoss(model, 10.0, directions=directions)(tokens(model, LINES)).detach()
        assert abs(float(plain - found)) > 1e-3


def test_equal_texts_are_known_by_their_tokens_in_any_padding():
    narrow = {"input_ids": torch.tensor([[5, 7, 0], [5, 7, 9]]), "attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    wide = {name: torch.nn.functional.pad(value, (0, 4)) for name, value in narrow.items()}
    assert torch.equal(_text_ids(narrow), _text_ids(wide))
    many = torch.randint(0, 30000, (20000, 12), generator=torch.Generator().manual_seed(0))
    assert len(_text_ids({"input_ids": many}).unique()) == len(many.unique(dim=0))
    assert len(_text_ids({"input_ids": many.sort(dim=1).values.flip(1)}).unique()) == len(
        many.sort(1).values.unique(dim=0)
    )
    with pytest.raises(ValueError, match=r"known by `input_ids`.*Found \['pixel_values'\]"):
        _text_ids({"pixel_values": torch.zeros(2, 3)})


def test_a_temperature_that_learns_and_smoothing(model: SentenceTransformer):
    temperature = LearnableTemperature(0.05)
    leaves = columns(3)
    loss = WEINCELoss(model, temperature=temperature, label_smoothing=0.1).compute_loss_from_embeddings(leaves)
    loss.backward()
    assert temperature.logit_scale.grad.item() != 0
    expected = RetrievalLoss(0.05, label_smoothing=0.1)(leaves[0], leaves[1], leaves[2].unsqueeze(1))
    torch.testing.assert_close(loss.detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    assert "logit_scale" in dict(CachedWEINCELoss(model, temperature=temperature).named_parameters()).__str__()
