"""pytorch-metric-learning: `WEINCELoss` in place of its `NTXentLoss` or `SupConLoss`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weince.adapters import needs
from weince.contest import Contest
from weince.gate import Gate
from weince.setups import ContestLoss, labelled
from weince.temperature import LearnableTemperature, Temperature
from weince.units import unit_rows

with needs("pytorch-metric-learning", tested="2.9"):
    from pytorch_metric_learning import losses
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.reducers import AvgNonZeroReducer
    from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_pairs

__all__ = ["CrossBatchMemory", "SelfSupervisedLoss", "WEINCELoss"]


class WEINCELoss(losses.BaseMetricLossFunction):
    """WEINCE for labelled embeddings, with miners, reducers and reference embeddings of pytorch-metric-learning.

    One loss an anchor ("element" reduction), the mean over its positives. A miner's pairs are the positives and
    negatives; candidates that it names for neither take no part. With `gate=weince.INFONCE` it is `SupConLoss`, in
    value and gradient, at the same temperature and reducer: theirs too is the mean over the anchors whose loss is above
    0 (`AvgNonZeroReducer`), and 0 for a batch without any negative. It is `NTXentLoss` where every anchor has one
    positive and `reducer=MeanReducer()` is given, without that one's matrix of pairs by pairs; with several positives
    the two differ, since `NTXentLoss` leaves the other positives out of a pair's denominator.

    Masks are what miners are for, sample weights what reducers are for; `label_smoothing` has no counterpart there.

    Args:
        temperature: tau, > 0.
        gate: how weight and slope are measured.
        label_smoothing: share of the target that is spread over all candidates, in [0, 1).
        **kwargs: `reducer`, `embedding_regularizer`, ... of `BaseMetricLossFunction`; `distance` is cosine similarity.

    Examples:
        >>> WEINCELoss()(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])).ndim
        0
    """

    def __init__(
        self, temperature: Temperature = 0.07, gate: Gate = Gate(), label_smoothing: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.distance, CosineSimilarity) or self.distance.power != 1:
            found = f"{type(self.distance).__name__} of power {self.distance.power}"
            raise ValueError(f"Parameter `distance` should be CosineSimilarity(), which has a cap. Found {found}.")
        self.inner = ContestLoss(temperature, gate, "none", label_smoothing=label_smoothing)
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

    @property
    def temperature(self) -> float:
        """Tau as it is now, for the records."""
        tau = self.inner.temperature
        tau = tau() if isinstance(tau, LearnableTemperature) else tau
        return tau.item() if isinstance(tau, Tensor) else tau

    def compute_loss(
        self,
        embeddings: Tensor,
        labels: Tensor | None,
        indices_tuple: tuple[Tensor, ...] | None,
        ref_emb: Tensor,
        ref_labels: Any,
    ) -> dict[str, dict[str, Any]]:
        """Losses of the anchors that have a positive, for the reducer."""
        alone = ref_emb is embeddings and ref_labels is labels
        if indices_tuple is not None:
            contest = _of_pairs(embeddings, ref_emb, convert_to_pairs(indices_tuple, labels, ref_labels))
        elif labels is None:
            raise ValueError("Parameter `labels` should be given without `indices_tuple`. Found None.")
        elif alone:
            contest = labelled(embeddings, labels.unique(return_inverse=True)[1])
        else:
            numbers = _numbered(labels, ref_labels.to(labels.device))
            contest = labelled(embeddings, numbers[: len(labels)], ref_emb, numbers[len(labels) :])
        output = self.inner(contest)
        counted = output.counted.nonzero().flatten()
        if not len(counted) or not bool((contest.roles().negative_count() > 0).any()):
            return self.zero_losses()
        found = {"losses": output.loss[counted], "indices": counted, "reduction_type": "element"}
        return {"loss": found}

    def get_default_reducer(self) -> Any:
        """The mean over anchors with a loss above 0, as of `SupConLoss`."""
        return AvgNonZeroReducer()

    def get_default_distance(self) -> Any:
        """Cosine similarity: the shortfall is a distance to its cap."""
        return CosineSimilarity()


def _numbered(labels: Tensor, others: Tensor) -> Tensor:
    """The same number for equal labels, whatever their types: 0..3 in a byte is not 256..259."""
    widest = torch.int64
    if labels.is_floating_point() or others.is_floating_point():
        widest = torch.float64
    return torch.cat([labels.to(widest), others.to(widest)]).unique(return_inverse=True)[1]


def _of_pairs(anchors: Tensor, candidates: Tensor, pairs: tuple[Tensor, ...]) -> Contest:
    a1, positive, a2, negative = pairs
    masks = torch.zeros(2, len(anchors), len(candidates), dtype=torch.bool, device=anchors.device)
    masks[0, a1, positive] = True
    masks[1, a2, negative] = True
    units = unit_rows(anchors)
    others = units if candidates is anchors else unit_rows(candidates)
    return Contest(units, others, len(candidates), positive=masks[0], ignored=~(masks[0] | masks[1]))


class SelfSupervisedLoss(losses.SelfSupervisedLoss):
    """`losses.SelfSupervisedLoss` that takes this loss too: the original knows losses by name."""

    @staticmethod
    def supported_losses() -> list[str]:
        """Names of the losses that it takes."""
        return [*losses.SelfSupervisedLoss.supported_losses(), "WEINCELoss"]


class CrossBatchMemory(losses.CrossBatchMemory):
    """`losses.CrossBatchMemory` that takes this loss too: the original knows losses by name."""

    @staticmethod
    def supported_losses() -> list[str]:
        """Names of the losses that it takes."""
        return [*losses.CrossBatchMemory.supported_losses(), "WEINCELoss"]
