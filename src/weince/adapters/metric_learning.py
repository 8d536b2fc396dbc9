"""pytorch-metric-learning: `WEINCELoss` in place of its `NTXentLoss` or `SupConLoss`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weince.adapters import needs
from weince.candidates import Candidates, unit_rows
from weince.gate import Gate
from weince.loss import ContestLoss
from weince.settings import labelled

with needs("pytorch-metric-learning", tested="2.9"):
    from pytorch_metric_learning import losses
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.loss_and_miner_utils import convert_to_pairs

__all__ = ["CrossBatchMemory", "SelfSupervisedLoss", "WEINCELoss"]


class WEINCELoss(losses.BaseMetricLossFunction):
    """WEINCE for labelled embeddings, with miners, reducers and reference embeddings of pytorch-metric-learning.

    One loss an anchor ("element" reduction), the mean over its positives, as `SupConLoss`; with one positive each it is
    what `NTXentLoss` minimises too, without that one's matrix of pairs by pairs. Anchors without a positive are left
    out. A miner's pairs are the positives and negatives; candidates that it names for neither take no part.

    Args:
        temperature: tau, > 0.
        gate: how weight and slope are measured; `weince.INFONCE` is `SupConLoss`.
        kwargs: `reducer`, `embedding_regularizer`, ... of `BaseMetricLossFunction`; `distance` is cosine similarity.

    Examples:
        >>> WEINCELoss()(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])).ndim
        0
    """

    def __init__(self, temperature: float = 0.07, gate: Gate = Gate(), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.distance, CosineSimilarity) or self.distance.power != 1:
            found = f"{type(self.distance).__name__} of power {self.distance.power}"
            raise ValueError(f"Parameter `distance` should be CosineSimilarity(), which has a cap. Found {found}.")
        self.inner = ContestLoss(temperature, gate, "none")
        self.temperature = temperature
        self.add_to_recordable_attributes(list_of_names=["temperature"], is_stat=False)

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
            # Whatever they are, floats or booleans: labels are equal or not.
            numbers = torch.cat([labels, ref_labels.to(labels)]).unique(return_inverse=True)[1]
            contest = labelled(embeddings, numbers[: len(labels)], ref_emb, numbers[len(labels) :])
        output = self.inner(contest)
        counted = output.counted.nonzero().flatten()
        if not len(counted):
            return self.zero_losses()
        found = {"losses": output.loss[counted], "indices": counted, "reduction_type": "element"}
        return {"loss": found}

    def get_default_distance(self) -> Any:
        """Cosine similarity: the shortfall is a distance to its cap."""
        return CosineSimilarity()


def _of_pairs(anchors: Tensor, candidates: Tensor, pairs: tuple[Tensor, ...]) -> Candidates:
    a1, positive, a2, negative = pairs
    masks = torch.zeros(2, len(anchors), len(candidates), dtype=torch.bool, device=anchors.device)
    masks[0, a1, positive] = True
    masks[1, a2, negative] = True
    units = unit_rows(anchors)
    others = units if candidates is anchors else unit_rows(candidates)
    return Candidates(units, others, len(candidates), positive=masks[0], ignored=~(masks[0] | masks[1]))


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
