"""Faults that a run of `experiments/mutate.py` put into the core and no other test noticed."""

from __future__ import annotations

import pytest
import torch

from batches import clusters, views, whole_of
from weince import (
    INFONCE,
    ContestLoss,
    EmbeddingQueue,
    Gate,
    LearnableTemperature,
    QueueLoss,
    ReleasedTopMLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    query_key_loss,
    setups,
)
from weince.evidence import end_of
from weince.released import pooled_slope
from weince.tail import fit_tail

A, B = clusters(12, 5)
LABELS = torch.arange(12) % 4


@pytest.mark.parametrize("estimator", ["line", "maximum_likelihood"])
@pytest.mark.parametrize(("ulps", "valid"), [(12, False), (40, True)])
def test_a_spread_of_three_roundings_is_none_and_one_of_ten_is_one(estimator: str, ulps: int, valid: bool):
    """Shortfalls near 1 / 2 in two heaps that lie so many units of the last place apart."""
    ulp = torch.finfo(torch.float64).eps / 2
    s = torch.full((1, 40), 0.5, dtype=torch.float64)
    s[:, :20] += ulps * ulp
    fit = fit_tail(s, 1e-6, estimator=estimator, lines=estimator == "line")
    assert bool(fit.valid) == valid
    sizes = torch.tensor([40])
    assert bool(fit_tail(s, 1e-6, sizes, estimator, estimator == "line").valid) == valid


def test_how_many_negatives_each_setup_has_at_most():
    own = torch.stack(clusters(12, 5, seed=4), dim=1)
    for contest, most in (
        (setups.two_views(A, B), 22),
        (setups.two_towers(A, B), 11),
        (setups.queued(A, B, B[:7]), 7),
        (setups.labelled(A, LABELS), 11),
        (setups.labelled(A, LABELS, B, LABELS), 12),
        (setups.explicit_negatives(A, B), 11),
        (setups.explicit_negatives(A, B, own), 35),
        (setups.explicit_negatives(A, B, own, in_batch=False), 2),
    ):
        assert contest.negatives == most


def test_ids_of_one_side_alone_say_nothing_of_a_queue():
    bank = torch.cat([A, B]).flip(0)
    expected = whole_of(setups.queued(A, B, bank), 0.2).loss
    for ids in ({"query_ids": LABELS}, {"queue_ids": torch.arange(24)}):
        assert torch.equal(whole_of(setups.queued(A, B, bank, **ids), 0.2).loss, expected)


def test_a_queue_refuses_ids_twice_and_ids_of_another_shape():
    for given in ({"ids": LABELS, "query_ids": LABELS}, {"ids": LABELS, "key_ids": LABELS}):
        with pytest.raises(ValueError, match=r"^Parameter `ids` should be given without"):
            QueueLoss(8, 5)(A, B, **given)
    with pytest.raises(ValueError, match=r"^Parameter `ids` should have shape \(12,\)"):
        EmbeddingQueue(8, 5).append(A.float(), LABELS[:3])


def test_a_queue_weighs_its_queries():
    weight = torch.arange(12, dtype=torch.float64)
    criterion = QueueLoss(24, 5, 0.2)
    criterion(A, B)
    found = criterion.output(A, B, sample_weight=weight)
    torch.testing.assert_close(found.loss, (weight * found.per_anchor).sum() / weight.sum())


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("b", lambda bad: TwoTowerLoss(check_finite=True)(A, bad)),
        ("others", lambda bad: SupervisedLoss(check_finite=True)(A, LABELS, bad, LABELS)),
        ("positive", lambda bad: RetrievalLoss(check_finite=True)(A, bad)),
        ("query", lambda bad: RetrievalLoss(check_finite=True)(bad, A)),
        ("key", lambda bad: QueueLoss(8, 5, check_finite=True)(A, bad)),
    ],
)
def test_every_embedding_is_looked_through(name: str, call):
    bad = B.clone()
    bad[3, 1] = torch.nan
    with pytest.raises(ValueError, match=rf"^Parameter `{name}` should be finite. Found NaN or infinity in 1 row: 3\."):
        call(bad)


def test_the_edges_of_what_is_taken():
    assert LearnableTemperature(0.1, bounds=(0.1, 0.1))().item() == pytest.approx(0.1)
    weight = torch.tensor([0.0, 1.0] * 6, dtype=torch.float64)
    assert TwoTowerLoss()(A, B, sample_weight=weight).isfinite()
    assert not INFONCE.needs_fit


def test_a_batch_without_any_tail_has_no_end():
    a, b = views(3, 4)
    tail = whole_of(setups.two_views(a, b), gate=Gate(evidence="endpoint")).tail
    end = end_of(tail)
    assert end.place.item() == 0
    assert end.statistic.item() == 0
    assert end.trust.isfinite()


def test_a_sample_weight_that_learns_gets_no_gradient():
    """On both paths; a weight is what an example counts, and no part of the model."""
    for implementation in ("dense", "tiled"):
        weight = torch.rand(12, dtype=torch.float64).requires_grad_()
        z = A.clone().requires_grad_()
        WEINCELoss(implementation=implementation)(z, B, sample_weight=weight).backward()
        assert z.grad is not None
        assert weight.grad is None


def test_the_function_of_queries_and_keys_passes_on_all_that_it_takes():
    generator = torch.Generator().manual_seed(3)
    negatives = torch.randn(12, 2, 5, generator=generator, dtype=torch.float64)
    plain = query_key_loss(A, B, negatives, 0.2)
    masks = torch.zeros(12, 3, dtype=torch.bool)
    masks[4, 1] = True
    given = [
        {"sample_weight": torch.rand(12, generator=generator, dtype=torch.float64)},
        {"ignored": masks},
        {"query_ids": torch.arange(12), "key_ids": torch.arange(12), "negative_ids": torch.arange(24).view(12, 2) // 2},
        {"ids": torch.arange(12), "negative_ids": torch.arange(24).view(12, 2) // 4},
    ]
    for one in given:
        loss = query_key_loss(A, B, negatives, 0.2, **one)
        assert loss != plain, one
        assert loss == RetrievalLoss(0.2, in_batch=False)(A, B, negatives, **one), one
    in_batch = query_key_loss(A, B, temperature=0.2, query_ids=LABELS, key_ids=LABELS)
    assert in_batch == RetrievalLoss(0.2)(A, B, query_ids=LABELS, key_ids=LABELS)
    assert in_batch != query_key_loss(A, B, temperature=0.2)
    for name in ("query", "positive_key", "negative_keys"):
        bad = {"query": A, "positive_key": B, "negative_keys": negatives}
        bad[name] = bad[name].clone()
        bad[name][0] = float("nan")
        with pytest.raises(ValueError, match=f"`{name}`"):
            query_key_loss(**bad, check_finite=True)


def test_the_temperature_where_none_is_given():
    contest = setups.two_views(A, B)
    assert ContestLoss()(contest).loss == ContestLoss(0.1)(contest).loss
    for loss in (WEINCELoss, TwoTowerLoss, RetrievalLoss):
        assert loss()(A, B) == loss(0.1)(A, B)


def test_the_released_slope_moves_while_training_alone_and_by_its_momentum():
    criterion = ReleasedTopMLoss(momentum=0.75)
    before = criterion.slope.clone()
    criterion.eval()(A, B)
    assert criterion.slope == before
    criterion.train()(A, B)
    pooled = pooled_slope(setups.two_views(A, B), criterion.eps, criterion.processes)
    expected = 0.75 * before + 0.25 * pooled.slope.clamp(0.5, 16.0)
    assert criterion.slope == pytest.approx(float(expected if pooled.r2 >= 0.85 else before))
