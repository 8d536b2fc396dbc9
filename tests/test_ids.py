"""Equal ids are never each other's negatives, in every setup: the same as the mask that says so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from batches import clusters, whole_of
from weince import NO_ID, Gate, RetrievalLoss, SupervisedLoss, TwoTowerLoss, WEINCELoss, query_key_loss, weince_loss
from weince.setups import explicit_negatives, labelled, two_towers, two_views

A, B = clusters(12, 5)
OWN = torch.stack(clusters(12, 5, seed=4), dim=1)
IDS = torch.tensor([0, 1, 2, 0, 3, 4, 1, 1, 5, 6, 7, 0])
OTHER = torch.tensor([9, 1, 2, 0, 3, 8, 1, 6, 5, 6, 7, 0])
GATE = Gate(tail_min=4)
pytestmark = pytest.mark.usefixtures("tiles_pay")


def same(a: Tensor, b: Tensor, but: Tensor | None = None) -> Tensor:
    return a[:, None] == b


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_two_views():
    both = torch.cat([IDS, IDS])
    expected = whole_of(two_views(A, B, ignored=same(both, both)), 0.2, GATE)
    found = WEINCELoss(0.2, GATE).output(A, B, ids=IDS)
    close(found.per_anchor, expected.per_anchor)
    close(found.weight, expected.weight)
    close(weince_loss(A, B, 0.2, GATE, ids=IDS), expected.loss)
    assert expected.loss != WEINCELoss(0.2, GATE)(A, B)


def test_two_towers_and_where_the_towers_differ():
    expected = TwoTowerLoss(0.2, GATE)(A, B, ignored=same(IDS, IDS))
    close(TwoTowerLoss(0.2, GATE)(A, B, ids=IDS), expected)
    expected = TwoTowerLoss(0.2, GATE)(A, B, ignored=same(IDS, OTHER))
    close(TwoTowerLoss(0.2, GATE)(A, B, query_ids=IDS, key_ids=OTHER), expected)


def test_several_ids_a_row_are_equal_in_any():
    two = torch.stack([IDS, OTHER + 100], dim=1)
    expected = TwoTowerLoss(0.2, GATE)(A, B, ignored=same(IDS, IDS) | same(OTHER, OTHER))
    close(TwoTowerLoss(0.2, GATE)(A, B, ids=two), expected)


def test_no_id_equals_none():
    unknown = torch.full((12,), NO_ID)
    close(TwoTowerLoss(0.2, GATE)(A, B, ids=unknown), TwoTowerLoss(0.2, GATE)(A, B))
    some = torch.where(torch.arange(12) < 6, IDS, NO_ID)
    mask = same(some, some) & (some != NO_ID)[:, None]
    close(TwoTowerLoss(0.2, GATE)(A, B, ids=some), TwoTowerLoss(0.2, GATE)(A, B, ignored=mask))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers_of_any_width(dtype: torch.dtype):
    close(TwoTowerLoss(0.2, GATE)(A, B, ids=IDS.to(dtype)), TwoTowerLoss(0.2, GATE)(A, B, ids=IDS))
    labels = IDS.to(dtype)
    close(SupervisedLoss(0.2, GATE)(A, labels), SupervisedLoss(0.2, GATE)(A, IDS))


def test_retrieval_in_the_batch():
    negative_ids = torch.stack([OTHER, IDS.flip(0)], dim=1)
    columns = torch.cat([IDS, negative_ids[:, 0], negative_ids[:, 1]])
    expected = RetrievalLoss(0.2, GATE)(A, B, OWN, ignored=same(IDS, columns))
    close(RetrievalLoss(0.2, GATE)(A, B, OWN, ids=IDS, negative_ids=negative_ids), expected)
    # Negatives without ids are everybody's.
    columns = torch.cat([IDS, torch.full((24,), NO_ID)])
    expected = RetrievalLoss(0.2, GATE)(A, B, OWN, ignored=same(IDS, columns))
    close(RetrievalLoss(0.2, GATE)(A, B, OWN, ids=IDS), expected)
    shared = OWN[:4, 0]
    expected = RetrievalLoss(0.2, GATE)(A, B, shared, ignored=same(IDS, torch.cat([OTHER, OTHER[:4]])))
    found = RetrievalLoss(0.2, GATE)(A, B, shared, query_ids=IDS, key_ids=OTHER, negative_ids=OTHER[:4])
    close(found, expected)
    close(query_key_loss(A, B, None, 0.2, GATE, ids=IDS), RetrievalLoss(0.2, GATE)(A, B, ids=IDS))


def test_retrieval_with_own_negatives_alone():
    negative_ids = torch.stack([OTHER, IDS.flip(0)], dim=1)
    mask = torch.cat([torch.zeros(12, 1, dtype=torch.bool), negative_ids == IDS[:, None]], dim=1)
    loss = RetrievalLoss(0.2, GATE, in_batch=False)
    close(loss(A, B, OWN, ids=IDS, negative_ids=negative_ids), loss(A, B, OWN, ignored=mask))
    close(query_key_loss(A, B, OWN, 0.2, GATE, ids=IDS, negative_ids=negative_ids), loss(A, B, OWN, ignored=mask))
    shared = OWN[:4, 0]
    mask = torch.cat([torch.zeros(12, 1, dtype=torch.bool), same(IDS, OTHER[:4])], dim=1)
    close(loss(A, B, shared, ids=IDS, negative_ids=OTHER[:4]), loss(A, B, shared, ignored=mask))
    close(loss(A, B, ids=IDS), loss(A, B))


def test_labels_keep_copies_of_their_own_as_positives():
    labels = torch.arange(12) % 4
    expected = SupervisedLoss(0.2, GATE)(A, labels, ignored=same(IDS, IDS) & ~same(labels, labels))
    close(SupervisedLoss(0.2, GATE)(A, labels, ids=IDS), expected)
    expected = SupervisedLoss(0.2, GATE)(
        A, labels, B, labels.flip(0), ignored=same(IDS, OTHER) & ~same(labels, labels.flip(0))
    )
    close(SupervisedLoss(0.2, GATE)(A, labels, B, labels.flip(0), ids=IDS, other_ids=OTHER), expected)


def test_moving_a_copy_to_the_cap_changes_nothing():
    """Two copies of one text in a batch: without ids each is the other's hardest negative."""
    a, b = A.clone(), B.clone()
    a[3], b[3] = a[0], b[0]
    ids = torch.arange(12)
    ids[3] = 0
    found = TwoTowerLoss(0.2, GATE).output(a, b, ids=ids)
    assert float(found.tail.nearness[0]) > 1e-3
    keep = [i for i in range(12) if i != 3]
    alone = TwoTowerLoss(0.2, GATE).output(a[keep], b[keep])
    torch.testing.assert_close(found.tail.nearness[0], alone.tail.nearness[0])
    assert float(TwoTowerLoss(0.2, GATE).output(a, b).tail.nearness[0]) < float(found.tail.nearness[0])


@pytest.mark.parametrize(
    ("name", "call", "kind"),
    [
        ("ids", lambda: two_views(A, B, ids=IDS[:3]), ValueError),
        ("ids", lambda: two_views(A, B, ids=IDS.float()), TypeError),
        ("ids", lambda: two_views(A, B, ids=["a"] * 12), TypeError),
        ("ids", lambda: two_views(A, B, ids=IDS[:, None, None]), ValueError),
        ("ids", lambda: two_towers(A, B, ids=IDS, query_ids=IDS), ValueError),
        ("key_ids", lambda: two_towers(A, B, query_ids=IDS), ValueError),
        ("query_ids", lambda: two_towers(A, B, key_ids=IDS), ValueError),
        ("key_ids", lambda: two_towers(A, B, query_ids=IDS, key_ids=torch.stack([IDS, IDS], 1)), ValueError),
        ("ids", lambda: explicit_negatives(A, B, OWN, negative_ids=IDS), ValueError),
        ("negatives", lambda: explicit_negatives(A, B, ids=IDS, negative_ids=IDS), ValueError),
        ("negative_ids", lambda: explicit_negatives(A, B, OWN, ids=IDS, negative_ids=IDS), ValueError),
        ("other_ids", lambda: labelled(A, IDS, ids=IDS, other_ids=IDS), ValueError),
        ("other_ids", lambda: labelled(A, IDS, B, IDS, ids=IDS), ValueError),
        ("ids", lambda: two_views(A, B, ids=IDS.to("meta")), ValueError),
    ],
)
def test_bad_ids_are_refused_by_name(name: str, call, kind: type[Exception]):
    with pytest.raises(kind, match=rf"^Parameter `{name}` should .*Found .*\.$"):
        call()
