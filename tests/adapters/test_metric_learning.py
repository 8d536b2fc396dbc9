"""The adapter against pytorch-metric-learning itself."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.miners import MultiSimilarityMiner, PairMarginMiner, TripletMarginMiner
from pytorch_metric_learning.reducers import AvgNonZeroReducer, MeanReducer
from torch import Tensor

from batches import clusters, whole_of
from contests import LABELS
from weince import INFONCE, LearnableTemperature, SupervisedLoss
from weince.adapters.metric_learning import CrossBatchMemory, SelfSupervisedLoss, WEINCELoss
from weince.setups import labelled


def gradients(criterion: torch.nn.Module, z: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    loss = criterion(z, *rest)
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


Z, OTHERS = clusters(14, 6, dtype=torch.float32)


def test_weight_zero_is_the_supervised_contrastive_loss():
    # It averages over anchors with a loss above zero: those with a positive, here.
    theirs = losses.SupConLoss(0.2, reducer=AvgNonZeroReducer())
    same(gradients(WEINCELoss(0.2, INFONCE), Z, LABELS), gradients(theirs, Z, LABELS))
    against = (None, OTHERS, LABELS.flip(0))
    same(gradients(WEINCELoss(0.2, INFONCE), Z, LABELS, *against), gradients(theirs, Z, LABELS, *against))


@pytest.mark.parametrize("miner", [MultiSimilarityMiner(0.3), TripletMarginMiner(0.3)])
def test_a_miners_pairs_are_the_contest(miner: torch.nn.Module):
    pairs = miner(Z, LABELS)
    theirs = losses.SupConLoss(0.2, reducer=AvgNonZeroReducer())
    same(gradients(WEINCELoss(0.2, INFONCE), Z, LABELS, pairs), gradients(theirs, Z, LABELS, pairs))


def test_weight_zero_with_one_positive_is_ntxent_through_both_wrappers():
    ours = SelfSupervisedLoss(WEINCELoss(0.2, INFONCE))
    theirs = losses.SelfSupervisedLoss(losses.NTXentLoss(0.2))
    same(gradients(ours, Z, OTHERS), gradients(theirs, Z, OTHERS))


def test_a_memory_of_earlier_batches():
    """Memory of 20 rows, batches of 14: full in the middle of the second."""
    ours = CrossBatchMemory(WEINCELoss(0.2, INFONCE), 6, memory_size=20)
    theirs = losses.CrossBatchMemory(losses.SupConLoss(0.2, reducer=AvgNonZeroReducer()), 6, memory_size=20)
    for seed in range(4):
        z = clusters(14, 6, seed=seed, dtype=torch.float32)[0]
        same(gradients(ours, z, LABELS), gradients(theirs, z, LABELS))
    with pytest.raises(Exception, match="not supported"):
        losses.CrossBatchMemory(WEINCELoss(), 6)  # the original knows losses by name


def test_reducers_get_the_losses_of_anchors_with_a_positive_and_statistics_are_the_cores():
    criterion, seen = WEINCELoss(0.2, reducer=MeanReducer()), []
    criterion.inner.register_forward_hook(lambda module, arguments, output: seen.append(output))
    loss = criterion(Z, LABELS)
    expected = whole_of(labelled(Z, LABELS), 0.2)
    torch.testing.assert_close(loss, expected.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(seen[0].weight, expected.weight, rtol=1e-6, atol=1e-6)


def test_no_positive_at_all_is_a_zero_loss_with_a_graph():
    z = Z.clone().requires_grad_()
    loss = WEINCELoss()(z, torch.arange(14))
    loss.backward()
    assert loss.item() == 0.0
    assert not z.grad.any()


@pytest.mark.parametrize("distance", [LpDistance(), CosineSimilarity(power=2)])
def test_other_distances_are_refused(distance: torch.nn.Module):
    with pytest.raises(ValueError, match=r"^Parameter `distance` should be CosineSimilarity\(\).*Found .* of power"):
        WEINCELoss(distance=distance)


def test_labels_of_any_kind_and_reference_labels_of_their_own():
    theirs = losses.SupConLoss(0.2)
    for labels in (LABELS.float(), LABELS > 2):
        same(gradients(WEINCELoss(0.2, INFONCE), Z, labels), gradients(theirs, Z, labels))
    # The same embeddings with other labels are references, which an anchor may meet itself among.
    for others in (LABELS.clone(), LABELS.flip(0)):
        found = [criterion(Z, LABELS, ref_emb=Z, ref_labels=others) for criterion in (WEINCELoss(0.2, INFONCE), theirs)]
        torch.testing.assert_close(*found, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("labels", "others", "equal"),
    [
        (torch.arange(4, dtype=torch.uint8), torch.arange(256, 260), False),
        (torch.arange(4, dtype=torch.uint8), torch.arange(4), True),
        (torch.tensor([0.5, 1.5, 2.5, 3.5]), torch.arange(4), False),
        (torch.arange(4), torch.tensor([0.5, 1.5, 2.5, 3.5]), False),
        (torch.arange(4, dtype=torch.int8), torch.arange(4.0), True),
        (torch.arange(4) + 2**53, torch.arange(4) + 2**53 + 4, False),
        (torch.tensor([True, False, True, False]), torch.tensor([1, 0, 1, 0]), True),
    ],
)
def test_labels_of_two_kinds_are_equal_where_their_numbers_are(labels: Tensor, others: Tensor, equal: bool):
    z, references = clusters(4, 6, dtype=torch.float32)
    found = WEINCELoss(0.2, INFONCE)(z, labels, ref_emb=references, ref_labels=others)
    expected = losses.SupConLoss(0.2)(z, labels, ref_emb=references, ref_labels=others)
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-5, atol=1e-6)
    assert (float(found) > 0) == equal


@pytest.mark.parametrize("miner", [PairMarginMiner(), TripletMarginMiner(0.3), MultiSimilarityMiner(0.3)])
@pytest.mark.parametrize("labels", [LABELS, torch.zeros(14, dtype=torch.long), torch.arange(14)])
def test_weight_zero_is_supcon_with_every_default(miner: torch.nn.Module, labels: Tensor):
    """Whatever the pairs: of one class alone there is no negative, and theirs is 0."""
    for pairs in (None, miner(Z, labels)):
        same(gradients(WEINCELoss(0.2, INFONCE), Z, labels, pairs), gradients(losses.SupConLoss(0.2), Z, labels, pairs))


def test_weight_zero_is_ntxent_with_one_positive_and_the_mean():
    labels = torch.arange(7).repeat(2)
    ours, theirs = WEINCELoss(0.2, INFONCE, reducer=MeanReducer()), losses.NTXentLoss(0.2)
    same(gradients(ours, Z, labels), gradients(theirs, Z, labels))
    several = torch.arange(7).repeat_interleave(2) // 2
    assert abs(float(ours(Z, several)) - float(theirs(Z, several))) > 1e-3  # theirs leaves other positives out


@pytest.mark.parametrize("count", [1, 3])
def test_no_valid_pair_at_all(count: int):
    for labels in (torch.zeros(count, dtype=torch.long), torch.arange(count)):
        z = Z[:count].clone().requires_grad_()
        loss = WEINCELoss(0.1)(z, labels)
        loss.backward()
        assert loss.item() == 0


def test_smoothing_and_a_temperature_that_learns():
    temperature = LearnableTemperature(0.2)
    criterion = WEINCELoss(temperature, label_smoothing=0.1)
    loss = criterion(Z, LABELS)
    loss.backward()
    assert temperature.logit_scale.grad.item() != 0
    assert criterion.temperature == pytest.approx(0.2)
    torch.testing.assert_close(loss.detach(), SupervisedLoss(0.2, label_smoothing=0.1)(Z, LABELS))
