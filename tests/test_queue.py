"""The queue: first in, first out, nothing that no key has filled, nothing that is not finite, and as it was."""

from __future__ import annotations

import io

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import weince.key_queue
from batches import clusters, whole_of
from weince import EmbeddingQueue, Gate, QueueLoss, setups
from weince.units import unit_rows

A, B = (z.float() for z in clusters(12, 5))
pytestmark = pytest.mark.usefixtures("tiles_pay")


@pytest.fixture(params=[True, False], ids=["readable", "as on a GPU"])
def readable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether how full a queue is can be read without waiting for a device."""
    if not request.param:
        monkeypatch.setattr(weince.key_queue, "is_readable", lambda value: False)
    return request.param


@pytest.mark.parametrize("batch", [1, 3, 7, 10, 11, 25])
def test_the_last_keys_are_kept_in_any_batch(batch: int):
    queue, kept = EmbeddingQueue(10, 5), []
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        keys = torch.randn(batch, 5, generator=generator)
        names = torch.arange(batch) + 100 * step
        queue.append(keys, names)
        kept += list(zip(unit_rows(keys).tolist(), names.tolist(), strict=True))
        newest = kept[-10:]
        held = queue.filled()
        assert held.empty is None
        found = zip(held.rows.tolist(), held.ids.tolist(), strict=True)
        assert {(tuple(row), name) for row, name in found} == {(tuple(row), name) for row, name in newest}
        assert int(queue.seen) == len(kept)
        assert bool(queue.is_full) == (len(kept) >= 10)
        # The oldest is the next to go.
        if len(kept) >= 10:
            assert queue.rows[int(queue.seen) % 10].tolist() == newest[0][0]


def test_rows_that_no_key_has_filled_are_nobodys_negatives(readable: bool):
    """The statistics are those of the keys that are there, whatever the size of the queue."""
    earlier = [z.float() for seed in (1, 2) for z in clusters(20, 5, seed=seed)]
    criterion = QueueLoss(4096, 5, 0.2)
    for keys in earlier:
        criterion.queue.append(keys)
    found = criterion.output(A, B)
    expected = whole_of(setups.queued(A, B, torch.cat(earlier)), 0.2)
    torch.testing.assert_close(found.per_anchor, expected.per_anchor, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.tail.slope, expected.tail.slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-4)


def test_the_first_loss_has_no_negatives_and_is_zero(readable: bool):
    criterion, query = QueueLoss(64, 5), A.clone().requires_grad_()
    loss = criterion(query, B)
    loss.backward()
    assert loss.item() == 0
    assert not query.grad.any()
    assert criterion(A, B).item() > 0


def test_both_ways_of_knowing_how_full_it_is_agree_once_it_is_full(monkeypatch: pytest.MonkeyPatch):
    losses = []
    for reads in (True, False):
        if not reads:
            monkeypatch.setattr(weince.key_queue, "is_readable", lambda value: False)
        criterion = QueueLoss(16, 5, 0.2)
        losses.append([criterion(A, B).item() for _ in range(5)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_keys_that_are_not_finite_are_left_out(value: float, readable: bool):
    """A step that a GradScaler skips leaves no trace; the other keys of its batch stay."""
    good, bad = QueueLoss(20, 5, 0.2), QueueLoss(20, 5, 0.2)
    broken = B.clone()
    broken[2, 1], broken[7] = value, value
    whole = torch.tensor([row for row in range(12) if row not in (2, 7)])
    names = torch.arange(12)
    for keys, ids in ((broken, names), (A, names + 20), (broken, names + 40)):
        good.queue.append(keys[whole] if keys is broken else keys, ids[whole] if keys is broken else ids)
        bad.queue.append(keys, ids)
        assert int(bad.queue.seen) == int(good.queue.seen)
        assert torch.equal(bad.queue.rows, good.queue.rows)
        assert torch.equal(bad.queue.ids, good.queue.ids)
    assert bad(A, B).isfinite()


def test_it_holds_what_came_before_this_batch_and_rests_in_evaluation():
    criterion = QueueLoss(8, 5, 0.2)
    criterion(A, B)
    before = criterion.queue.rows.clone()
    query = A.clone().requires_grad_()
    loss = criterion(query, B)
    torch.testing.assert_close(loss, whole_of(setups.queued(A, B, before), 0.2).loss, rtol=1e-6, atol=1e-6)
    loss.backward()  # rows that were replaced meanwhile do not disturb it
    criterion.eval()
    rows = criterion.queue.rows.clone()
    criterion(A, B)
    assert torch.equal(criterion.queue.rows, rows)


def test_a_key_gets_no_gradient():
    criterion = QueueLoss(8, 5)
    criterion(A, B)
    key = B.clone().requires_grad_()
    query = A.clone().requires_grad_()
    criterion(query, key).backward()
    assert key.grad is None
    assert query.grad.any()


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_under_a_checkpoint_it_is_as_it_was(reentrant: bool):
    found = []
    for again in (True, False):
        torch.manual_seed(0)
        criterion, layer = QueueLoss(30, 5, 0.2), torch.nn.Linear(5, 5)
        gradients = []
        for seed in range(4):
            query, key = (z.float() for z in clusters(12, 5, seed=seed))
            query.requires_grad_()

            def step(query, key, criterion=criterion, layer=layer):
                return criterion(layer(query), key)

            loss = checkpoint(step, query, key, use_reentrant=reentrant) if again else step(query, key)
            loss.backward()
            gradients.append((loss.detach(), query.grad))
        found.append((gradients, criterion.queue.rows.clone(), criterion.queue.seen.clone()))
    (with_checkpoint, rows, seen), (plain, expected_rows, expected_seen) = found
    assert torch.equal(rows, expected_rows)
    assert torch.equal(seen, expected_seen)
    for pair in zip(with_checkpoint, plain, strict=True):
        for one, other in zip(*pair, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_recomputation_that_cannot_be_as_it_was_says_so():
    criterion = QueueLoss(30, 5, 0.2)
    criterion(A, B)
    query = A.clone().requires_grad_()
    first = checkpoint(lambda q, k: criterion(q, k), query, B, use_reentrant=False)
    second = checkpoint(lambda q, k: criterion(q, k), query, A, use_reentrant=False)
    with pytest.raises(RuntimeError, match="The queue has gone on since these keys came"):
        (first + second).backward()


def test_a_checkpoint_file_holds_the_queue():
    one, other = QueueLoss(16, 5), QueueLoss(16, 5)
    for _ in range(3):
        one(A, B, ids=torch.arange(12))
    buffer = io.BytesIO()
    torch.save(one.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for _ in range(2):
        assert torch.equal(one(A, B), other(A, B))
    assert torch.equal(one.queue.rows, other.queue.rows)
    assert torch.equal(one.queue.ids, other.queue.ids)


def test_own_old_keys_are_known_by_their_ids(readable: bool):
    """The second epoch over the same examples meets their keys of the first."""
    criterion = QueueLoss(24, 5, 0.2)
    ids = torch.arange(12, dtype=torch.int32)
    criterion(A, B, ids=ids)
    found = criterion.output(A, B, ids=ids)
    expected = whole_of(setups.queued(A, B, B, ignored=torch.eye(12, dtype=torch.bool)), 0.2)
    torch.testing.assert_close(found.per_anchor, expected.per_anchor, rtol=1e-5, atol=1e-6)
    without = criterion.eval().output(A, B)
    assert (without.per_anchor != found.per_anchor).all()
    # Keys that came without an id equal none, and the query's and the key's may differ.
    criterion.train()
    criterion(A, B)
    criterion(A, B, query_ids=ids, key_ids=ids + 100)
    assert criterion.queue.ids[criterion.queue.ids >= 0].tolist() == list(range(100, 112))


def test_masks_of_the_rows_speak_of_the_rows_that_are_there(readable: bool):
    criterion = QueueLoss(24, 5, 0.2)
    criterion(A, B)
    ignored = torch.zeros(12, 24, dtype=torch.bool)
    ignored[:, 3] = True
    found = criterion.output(A, B, ignored=ignored)
    expected = whole_of(setups.queued(A, B, B, ignored=ignored[:, :12]), 0.2)
    torch.testing.assert_close(found.per_anchor, expected.per_anchor, rtol=1e-5, atol=1e-6)


def test_a_full_queue_is_not_normalised_anew():
    """One copy of it a step: the queue of MoCo is 32 MiB."""
    criterion = QueueLoss(4096, 5, 0.2, gate=Gate(evidence=0.0, slope=1.0))
    criterion.queue.append(torch.randn(4096, 5))
    with torch.profiler.profile(record_shapes=True) as profile:
        criterion(A, B)
    large = [e.name for e in profile.events() if [4096, 5] in e.input_shapes and e.name in ("aten::div", "aten::abs")]
    assert large == []


def test_a_batch_with_a_key_that_is_no_number_is_computed_again_too():
    """A step that GradScaler will skip must not end in an error."""
    criterion, query, key = QueueLoss(30, 5, 0.2), A.clone().requires_grad_(), B.clone()
    criterion(A, B)
    key[3] = torch.nan
    checkpoint(lambda q, k: criterion(q, k), query, key, use_reentrant=False).backward()
    assert not query.grad[3].isfinite().any()
