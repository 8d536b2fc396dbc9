"""The modules: each is its contest, and the queue is first in, first out."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from batches import clusters, views
from weince import (
    INFONCE,
    EmbeddingQueue,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    contest_loss,
    query_key_loss,
    settings,
)
from weince.candidates import unit_rows

A, B = clusters(12, 5)
NEGATIVES = torch.stack(clusters(12, 5, seed=4), dim=1)
LABELS = torch.arange(12) % 4
WEIGHT = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IGNORED = (torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.2) & ~torch.eye(12, dtype=torch.bool)


def test_two_views_weigh_both_views_of_an_example():
    loss = WEINCELoss(0.2)(A, B, sample_weight=WEIGHT)
    expected = contest_loss(settings.two_views(A, B), 0.2, sample_weight=torch.cat([WEIGHT, WEIGHT])).loss
    assert torch.equal(loss, expected)
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[0, 5] = True
    expected = contest_loss(settings.two_views(A, B, mask), 0.2).loss
    assert torch.equal(WEINCELoss(0.2)(A, B, ignored=mask), expected)


def test_two_towers_are_both_directions():
    loss = TwoTowerLoss(0.2)(A, B, sample_weight=WEIGHT, ignored=IGNORED)
    there = contest_loss(settings.two_towers(A, B, IGNORED), 0.2, sample_weight=WEIGHT).loss
    back = contest_loss(settings.two_towers(B, A, IGNORED.T), 0.2, sample_weight=WEIGHT).loss
    torch.testing.assert_close(loss, (there + back) / 2)
    assert not torch.equal(there, back)


@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_a_temperature_learns_as_parameter_and_as_argument(implementation: str):
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (with_call,) = torch.autograd.grad(
        TwoTowerLoss(implementation=implementation)(A, B, temperature=1 / scale.exp()), scale
    )
    own = torch.nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
    step = 1e-6
    with torch.no_grad():
        losses = [TwoTowerLoss(gate=INFONCE)(A, B, temperature=1 / (own + sign * step).exp()) for sign in (1.0, -1.0)]
    (of_infonce,) = torch.autograd.grad(
        TwoTowerLoss(gate=INFONCE, implementation=implementation)(A, B, temperature=1 / own.exp()), own
    )
    assert of_infonce.item() == pytest.approx(float(losses[0] - losses[1]) / (2 * step), rel=1e-6)
    assert with_call.item() != 0
    criterion = TwoTowerLoss(torch.nn.Parameter(torch.tensor(0.1)), implementation=implementation)
    assert len(list(criterion.parameters())) == 1
    criterion(A, B).backward()
    assert criterion.inner.temperature.grad is not None


def test_labels_and_retrieval_are_their_contests():
    found = SupervisedLoss(0.2)(A, LABELS, B, LABELS.flip(0), WEIGHT, IGNORED)
    expected = contest_loss(settings.labelled(A, LABELS, B, LABELS.flip(0), IGNORED), 0.2, sample_weight=WEIGHT).loss
    assert torch.equal(found, expected)
    for in_batch in (True, False):
        found = RetrievalLoss(0.2, in_batch=in_batch)(A, B, NEGATIVES, WEIGHT)
        contest = settings.explicit_negatives(A, B, NEGATIVES, in_batch)
        assert torch.equal(found, contest_loss(contest, 0.2, sample_weight=WEIGHT).loss)


def test_queries_and_keys():
    assert torch.equal(query_key_loss(A, B, temperature=0.2), RetrievalLoss(0.2)(A, B))
    bank = torch.cat([A, B]).flip(0)
    assert torch.equal(query_key_loss(A, B, bank), contest_loss(settings.queued(A, B, bank)).loss)
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


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 11, 25])
def test_the_queue_keeps_the_last_keys_in_any_batch(batch: int):
    queue, kept = EmbeddingQueue(10, 5), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        keys = torch.randn(batch, 5, generator=generator)
        queue.append(keys)
        kept += list(unit_rows(keys))
        newest = kept[-10:]
        rows = queue.rows if len(kept) >= 10 else queue.rows[: len(kept)]
        assert {tuple(row.tolist()) for row in rows} == {tuple(row.tolist()) for row in newest}
        assert int(queue.seen) == len(kept)
        # The oldest is the next to go.
        if len(kept) >= 10:
            assert torch.equal(queue.rows[int(queue.seen) % 10], newest[0])


def test_a_checkpoint_holds_the_queue():
    one, other = QueueLoss(16, 5), QueueLoss(16, 5)
    for _ in range(3):
        one(A.float(), B.float())
    buffer = io.BytesIO()
    torch.save(one.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(2):
        assert torch.equal(one(A.float(), B.float()), other(A.float(), B.float()))
    assert torch.equal(one.queue.rows, other.queue.rows)


def test_the_queue_serves_before_it_grows_and_rests_in_evaluation():
    criterion = QueueLoss(8, 5, 0.2)
    before = criterion.queue.rows.clone()
    query = A.float().requires_grad_()
    loss = criterion(query, B.float())
    assert torch.equal(loss, contest_loss(settings.queued(A.float(), B.float(), before), 0.2).loss)
    loss.backward()  # rows that were replaced meanwhile do not disturb it
    criterion.eval()
    rows = criterion.queue.rows.clone()
    criterion(A.float(), B.float())
    assert torch.equal(criterion.queue.rows, rows)


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


def test_a_tensor_temperature_moves_and_is_saved_with_the_module():
    criterion = WEINCELoss(torch.tensor(0.2)).double()
    assert criterion.inner.temperature.dtype == torch.float64
    assert list(criterion.state_dict()) == ["inner.temperature"]
    torch.testing.assert_close(criterion(A, B), WEINCELoss(0.2)(A, B), rtol=1e-7, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")  # PyTorch of itself
def test_torch_func_takes_the_dense_loss_and_the_tiles_say_so():
    def loss(z: Tensor, implementation: str = "auto") -> Tensor:
        return contest_loss(settings.two_views(z, B), 0.3, implementation=implementation).loss

    z = A.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(z), z)
    torch.testing.assert_close(torch.func.grad(loss)(A), expected)
    tangent = torch.ones_like(A)
    _, along = torch.func.jvp(loss, (A,), (tangent,))
    torch.testing.assert_close(along, (expected * tangent).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(A, tangent)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(loss(dual)).tangent, along)
        with pytest.raises(RuntimeError, match='Give implementation="dense" or "auto"'):
            loss(dual, "tiled")
    with pytest.raises(RuntimeError, match='Give implementation="dense" or "auto"'):
        torch.func.grad(loss)(A, "tiled")


REFUSED: list[tuple[str, Callable[[], object], type[Exception]]] = [
    ("a", partial(TwoTowerLoss(), A[0], B), ValueError),
    ("b", partial(TwoTowerLoss(), A, B[:3]), ValueError),
    ("b", partial(TwoTowerLoss(), A, B.long()), TypeError),
    ("ignored", partial(TwoTowerLoss(), A, B, ignored=IGNORED[:3]), ValueError),
    ("ignored", partial(TwoTowerLoss(), A, B, ignored=IGNORED.float()), TypeError),
    ("sample_weight", partial(TwoTowerLoss(), A, B, sample_weight=WEIGHT[:3]), ValueError),
    ("sample_weight", partial(WEINCELoss(), A, B, sample_weight=LABELS), TypeError),
    ("temperature", partial(TwoTowerLoss(), A, B, temperature=torch.ones(3)), ValueError),
    ("temperature", partial(TwoTowerLoss(), A, B, temperature="low"), TypeError),
    ("label_smoothing", partial(TwoTowerLoss, label_smoothing=1.0), ValueError),
    ("a", partial(TwoTowerLoss(check_finite=True), A / 0, B), ValueError),
    ("query", partial(QueueLoss(8, 5), A[:0], B[:0]), ValueError),
    ("key", partial(QueueLoss(8, 5), A, B[:, :3]), ValueError),
    ("queue", partial(QueueLoss(8, 4), A, B), ValueError),
    ("size", partial(QueueLoss, 0, 4), ValueError),
    ("width", partial(EmbeddingQueue, 4, 2.5), ValueError),
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
