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
    Gate,
    InfoNCELoss,
    LossOutput,
    QueueLoss,
    ReleasedTopMLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    contest_loss,
    contest_output,
    query_key_loss,
    setups,
    weince_loss,
)
from weince.units import unit_rows

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
    for criterion, inputs, choices in (
        (TwoTowerLoss(), (A, B), [24]),
        (SupervisedLoss(), (A, LABELS), [12]),
        (RetrievalLoss(), (A, B), [12]),
        (QueueLoss(8, 5), (A.float(), B.float()), [12]),
    ):
        seen: list[tuple[Tensor, ...]] = []
        criterion.inner.register_forward_hook(lambda module, args, output, seen=seen: seen.append((args[0], output)))
        criterion(*inputs)
        assert [len(output.weight) for _, output in seen] == choices
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
    ("decoupled", partial(TwoTowerLoss, decoupled=1), TypeError),
    ("matmul_precision", partial(TwoTowerLoss, matmul_precision="tf32"), ValueError),
    ("matmul_precision", partial(weince_loss, A, B, matmul_precision=None), ValueError),
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


@pytest.mark.parametrize(
    ("criterion", "inputs"),
    [
        (WEINCELoss(0.2), (A, B)),
        (TwoTowerLoss(0.2), (A, B)),
        (SupervisedLoss(0.2), (A, LABELS)),
        (RetrievalLoss(0.2), (A, B, NEGATIVES)),
        (QueueLoss(8, 5, 0.2), (A.float(), B.float())),
    ],
)
def test_the_whole_output_is_had_one_way(criterion, inputs):
    criterion.eval()
    output = criterion.output(*inputs)
    assert isinstance(output, LossOutput)
    assert torch.equal(output.loss, criterion(*inputs))
    anchors = 24 if isinstance(criterion, (WEINCELoss, TwoTowerLoss)) else 12
    for part in (output.per_anchor, output.weight, output.slope, output.counted, *(output.tail or ())):
        assert part.shape == (anchors,)
    assert torch.equal(contest_output(setups.two_views(A, B), 0.2).slope, WEINCELoss(0.2).output(A, B).slope)


def test_functions_and_modules_return_losses():
    for loss in (weince_loss(A, B), query_key_loss(A, B), contest_loss(setups.two_views(A, B)), WEINCELoss()(A, B)):
        assert (type(loss), loss.shape) == (Tensor, ())
    z = A.clone().requires_grad_()
    weince_loss(z, B, 0.2, INFONCE, "mean", sample_weight=WEIGHT, label_smoothing=0.1).backward()
    expected = WEINCELoss(0.2, INFONCE, label_smoothing=0.1)(A, B, sample_weight=WEIGHT)
    found = weince_loss(A, B, 0.2, INFONCE, "mean", sample_weight=WEIGHT, label_smoothing=0.1)
    assert torch.equal(found, expected)
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[0, 3] = True
    found = query_key_loss(A, B, None, 0.2, sample_weight=WEIGHT, ignored=mask, label_smoothing=0.1, eps=1e-3)
    expected = RetrievalLoss(0.2, label_smoothing=0.1, eps=1e-3)(A, B, sample_weight=WEIGHT, ignored=mask)
    assert torch.equal(found, expected)
    with pytest.raises(TypeError, match="nonsense"):
        weince_loss(A, B, nonsense=1)
    with pytest.raises(TypeError, match="nonsense"):
        WEINCELoss(nonsense=1)
    with pytest.raises(TypeError, match="nonsense"):
        WEINCELoss()(A, B, nonsense=1)


def test_repr_tells_every_option():
    shown = repr(
        RetrievalLoss(0.2, Gate(margin=3.0), "sum", in_batch=False, eps=1e-3, label_smoothing=0.1, check_finite=True,
                      decoupled=True, implementation="dense", matmul_precision="torch", gather_distributed=True)
    )  # fmt: skip
    for part in (
        "temperature=0.2", "margin=3.0", "reduction='sum'", "in_batch=False", "eps=0.001", "label_smoothing=0.1",
        "check_finite=True", "decoupled=True", "implementation='dense'", "matmul_precision='torch'",
        "gather_distributed=True",
    ):  # fmt: skip
        assert part in shown, part
    assert "size=8, width=5" in repr(QueueLoss(8, 5))
    assert "temperature=0.25" in repr(WEINCELoss(torch.tensor(0.25)))


def test_a_batch_of_one_has_loss_zero():
    """It ends an epoch, as elsewhere."""
    a, b = A[:1].clone().requires_grad_(), B[:1]
    for loss in (
        WEINCELoss()(a, b), InfoNCELoss()(a, b), TwoTowerLoss()(a, b), RetrievalLoss()(a, b), weince_loss(a, b),
        ReleasedTopMLoss()(a, b), SupervisedLoss()(a, LABELS[:1]), query_key_loss(a, b), QueueLoss(4, 5)(a, b),
    ):  # fmt: skip
        assert loss.item() == 0.0
        loss.backward()
    assert not a.grad.any()


def test_positives_by_a_matrix_are_positives_by_labels_and_more():
    by_labels = SupervisedLoss(0.2)(A, LABELS, sample_weight=WEIGHT)
    assert torch.allclose(SupervisedLoss(0.2)(A, LABELS[:, None] == LABELS, sample_weight=WEIGHT), by_labels)
    by_labels = SupervisedLoss(0.2)(A, LABELS, B, LABELS.flip(0))
    assert torch.allclose(SupervisedLoss(0.2)(A, LABELS[:, None] == LABELS.flip(0), B), by_labels)
    several = torch.rand(12, 6, generator=torch.Generator().manual_seed(2)) < 0.3  # several labels a row
    together = (several.float() @ several.float().T) > 0
    output = SupervisedLoss(0.2, INFONCE).output(A, together)
    logits = (unit_rows(A) @ unit_rows(A).T / 0.2).masked_fill(torch.eye(12, dtype=torch.bool), float("-inf"))
    share = logits.log_softmax(1)
    for i in range(12):
        others = [j for j in range(12) if j != i and together[i, j]]
        expected = -share[i, others].mean() if others else torch.zeros((), dtype=torch.float64)
        torch.testing.assert_close(output.per_anchor[i], expected)


def test_views_of_the_reference_supcon():
    views = torch.stack([A, B, NEGATIVES[:, 0]], dim=1)
    flat, labels = torch.cat([A, B, NEGATIVES[:, 0]]), LABELS.repeat(3)
    weight, ids = WEIGHT.repeat(3), torch.arange(12).repeat(3)
    assert torch.equal(SupervisedLoss(0.2)(views, LABELS), SupervisedLoss(0.2)(flat, labels))
    found = SupervisedLoss(0.2)(views, LABELS, sample_weight=WEIGHT, ids=torch.arange(12), ignored=IGNORED)
    expected = SupervisedLoss(0.2)(flat, labels, sample_weight=weight, ids=ids, ignored=IGNORED.repeat(3, 3))
    assert torch.equal(found, expected)
    same = LABELS[:, None] == LABELS
    assert torch.equal(SupervisedLoss(0.2)(views, same), SupervisedLoss(0.2)(flat, same.repeat(3, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(QueueLoss(8, 4), A, B), r"`query` should have D = 4 columns, the width of the queue. Found \(12, 5\)"),
        (partial(RetrievalLoss(), A, B, NEGATIVES[:, :, :2]), r"`negatives` .* \(12, H, 5\). Found \(12, 2, 2\)"),
        (partial(RetrievalLoss(), A, B, NEGATIVES[:3]), r"`negatives` .* \(12, H, 5\). Found \(3, 2, 5\)"),
        (partial(TwoTowerLoss(), A, B, sample_weight=WEIGHT - 2), r"`sample_weight` should be >= 0. Found -1\."),
        (
            partial(TwoTowerLoss(), A, B, sample_weight=WEIGHT * float("nan")),
            r"`sample_weight` should be >= 0. Found nan",
        ),
        (partial(SupervisedLoss(), A, LABELS[:, None] == LABELS, B, LABELS), r"`other_labels` should be None"),
        (partial(SupervisedLoss(), A, (LABELS[:, None] == LABELS)[:3]), r"`labels` should have shape \(12, 12\)"),
        (partial(WEINCELoss, group=3), r"`group` should be a torch.distributed group. Found int"),
        (partial(WEINCELoss, gather_distributed="yes"), r"`gather_distributed` should be True or False. Found 'yes'"),
        (partial(RetrievalLoss, in_batch=1), r"`in_batch` should be True or False. Found 1"),
    ],
)
def test_messages_name_what_was_given(call: Callable[[], object], message: str):
    with pytest.raises((TypeError, ValueError), match="^Parameter " + message):
        call()
