"""The modules: each is its contest, and the queue is first in, first out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from batches import clusters, views, whole_of
from weince import (
    INFONCE,
    EmbeddingQueue,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    query_key_loss,
    setups,
)
from weince.contest import unit_rows

A, B = clusters(12, 5)
NEGATIVES = torch.stack(clusters(12, 5, seed=4), dim=1)
LABELS = torch.arange(12) % 4
WEIGHT = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
pytestmark = pytest.mark.usefixtures("tiles_pay")
IGNORED = (torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.2) & ~torch.eye(12, dtype=torch.bool)


def test_two_views_weigh_both_views_of_an_example():
    loss = WEINCELoss(0.2)(A, B, sample_weight=WEIGHT)
    expected = whole_of(setups.two_views(A, B), 0.2, sample_weight=torch.cat([WEIGHT, WEIGHT])).loss
    assert torch.equal(loss, expected)
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[0, 5] = True
    expected = whole_of(setups.two_views(A, B, ignored=mask), 0.2).loss
    assert torch.equal(WEINCELoss(0.2)(A, B, ignored=mask), expected)


def test_two_towers_are_both_directions():
    loss = TwoTowerLoss(0.2)(A, B, sample_weight=WEIGHT, ignored=IGNORED)
    there = whole_of(setups.two_towers(A, B, ignored=IGNORED), 0.2, sample_weight=WEIGHT).loss
    back = whole_of(setups.two_towers(B, A, ignored=IGNORED.T), 0.2, sample_weight=WEIGHT).loss
    torch.testing.assert_close(loss, (there + back) / 2)
    assert not torch.equal(there, back)


def test_labels_and_retrieval_are_their_contests():
    found = SupervisedLoss(0.2)(A, LABELS, B, LABELS.flip(0), sample_weight=WEIGHT, ignored=IGNORED)
    expected = whole_of(setups.labelled(A, LABELS, B, LABELS.flip(0), ignored=IGNORED), 0.2, sample_weight=WEIGHT).loss
    assert torch.equal(found, expected)
    for in_batch in (True, False):
        found = RetrievalLoss(0.2, in_batch=in_batch)(A, B, NEGATIVES, sample_weight=WEIGHT)
        contest = setups.explicit_negatives(A, B, NEGATIVES, in_batch)
        assert torch.equal(found, whole_of(contest, 0.2, sample_weight=WEIGHT).loss)


def test_queries_and_keys():
    assert torch.equal(query_key_loss(A, B, temperature=0.2), RetrievalLoss(0.2)(A, B))
    bank = torch.cat([A, B]).flip(0)
    assert torch.equal(query_key_loss(A, B, bank), whole_of(setups.queued(A, B, bank)).loss)
    alone = RetrievalLoss(in_batch=False)(A, B, NEGATIVES)
    assert torch.equal(query_key_loss(A, B, NEGATIVES), alone)
    # By hand, at weight 0.
    logits = torch.einsum("nd,nkd->nk", unit_rows(A), torch.nn.functional.normalize(NEGATIVES, dim=2))
    logits = torch.cat([(unit_rows(A) * unit_rows(B)).sum(1, keepdim=True), logits], dim=1) / 0.1
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(12, dtype=torch.long))
    torch.testing.assert_close(query_key_loss(A, B, NEGATIVES, gate=INFONCE), expected)


def test_label_smoothing_is_cross_entropys():
    criterion = RetrievalLoss(0.1, INFONCE, label_smoothing=0.2)
    logits = unit_rows(A) @ unit_rows(B).T / 0.1
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(12), label_smoothing=0.2)
    torch.testing.assert_close(criterion(A, B), expected)


def test_a_hook_on_inner_sees_contest_and_output():
    for criterion, inputs, runs in (
        (TwoTowerLoss(), (A, B), 2),
        (SupervisedLoss(), (A, LABELS), 1),
        (RetrievalLoss(), (A, B), 1),
        (QueueLoss(8, 5), (A.float(), B.float()), 1),
    ):
        seen: list[tuple[Tensor, ...]] = []
        criterion.inner.register_forward_hook(lambda module, args, output, seen=seen: seen.append((args[0], output)))
        criterion(*inputs)
        assert [len(output.weight) for _, output in seen] == [12] * runs
        assert all(contest.anchors.shape == (12, 5) for contest, _ in seen)


def test_dtypes_may_differ():
    for criterion, inputs in (
        (TwoTowerLoss(), (A, B.float())),
        (QueueLoss(8, 5), (A, B)),
        (RetrievalLoss(), (A.float(), B, NEGATIVES.half())),
        (SupervisedLoss(), (A, LABELS, B.bfloat16(), LABELS)),
    ):
        loss = criterion(*inputs)
        assert loss.dtype == torch.float64
        assert torch.isfinite(loss)


REFUSED: list[tuple[str, Callable[[], object], type[Exception]]] = [
    ("a", partial(TwoTowerLoss(), A[0], B), ValueError),
    ("b", partial(TwoTowerLoss(), A, B[:3]), ValueError),
    ("b", partial(TwoTowerLoss(), A, B.long()), TypeError),
    ("ignored", partial(TwoTowerLoss(), A, B, ignored=IGNORED[:3]), ValueError),
    ("ignored", partial(TwoTowerLoss(), A, B, ignored=IGNORED.float()), TypeError),
    ("sample_weight", partial(TwoTowerLoss(), A, B, sample_weight=WEIGHT[:3]), ValueError),
    ("sample_weight", partial(WEINCELoss(), A, B, sample_weight=LABELS), TypeError),
    ("logit_scale", partial(TwoTowerLoss(), A, B, logit_scale=torch.ones(3)), TypeError),
    ("logit_scale", partial(TwoTowerLoss(), A, B, logit_scale="low"), TypeError),
    ("logit_scale", partial(TwoTowerLoss(), A, B, logit_scale=torch.nn.Parameter(torch.tensor(2.659))), ValueError),
    ("label_smoothing", partial(TwoTowerLoss, label_smoothing=1.0), ValueError),
    ("a", partial(TwoTowerLoss(check_finite=True), A / 0, B), ValueError),
    ("query", partial(QueueLoss(8, 5), A[:0], B[:0]), ValueError),
    ("key", partial(QueueLoss(8, 5), A, B[:, :3]), ValueError),
    ("query", partial(QueueLoss(8, 4), A, B), ValueError),
    ("size", partial(QueueLoss, 0, 4), ValueError),
    ("width", partial(EmbeddingQueue, 4, 2.5), TypeError),
    ("keys", partial(EmbeddingQueue(4, 5).append, A[:, :2]), ValueError),
    ("labels", partial(SupervisedLoss(), A, LABELS.float()), TypeError),
    ("labels", partial(SupervisedLoss(), A, LABELS[:3]), ValueError),
    ("other_labels", partial(SupervisedLoss(), A, LABELS, B), TypeError),
    ("other_labels", partial(SupervisedLoss(), A, LABELS, None, LABELS), ValueError),
    ("others", partial(SupervisedLoss(), A, LABELS, B[:, :2], LABELS), ValueError),
    ("positive", partial(RetrievalLoss(), A, B[:3]), ValueError),
    ("negatives", partial(RetrievalLoss(), A, B, NEGATIVES[:3]), ValueError),
    ("negatives", partial(RetrievalLoss(), A, B, NEGATIVES[:, :, :2]), ValueError),
    ("negatives", partial(RetrievalLoss(check_finite=True), A, B, NEGATIVES / 0), ValueError),
    ("ignored", partial(RetrievalLoss(), A, B, NEGATIVES, ignored=IGNORED), ValueError),
]


@pytest.mark.parametrize(("name", "call", "kind"), REFUSED)
def test_bad_input_is_refused_by_name(name: str, call: Callable[[], object], kind: type[Exception]):
    with pytest.raises(kind, match=rf"^Parameter `{name}` should .*Found .*\.$"):
        call()


@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_gathering_in_one_process_changes_nothing(implementation):
    alone, gathering = (
        (z_a.requires_grad_(), z_b.requires_grad_()) for z_a, z_b in (views(40, 6, seed=3), views(40, 6, seed=3))
    )
    for batch, gather in ((alone, False), (gathering, True)):
        WEINCELoss(0.2, implementation=implementation, gather_distributed=gather)(*batch).backward()
    for one, other in zip(alone, gathering, strict=True):
        assert torch.equal(one.grad, other.grad)
