"""The losses people call: one thin module a setting, `criterion(embeddings, ...)` -> scalar.

All take the same options. Each holds a `ContestLoss` as `.inner`; a forward hook on it sees contests, weights and fits
as they are computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weince.checks import check_finite_rows, check_weights
from weince.gate import Gate
from weince.gather import gather_values, refusing_together
from weince.loss import ContestLoss, Implementation, Reduction, WEINCEOutput
from weince.queue import EmbeddingQueue
from weince.settings import explicit_negatives, labelled, queued, swapped, two_towers, two_views

__all__ = [
    "INFONCE",
    "WEINCE",
    "InfoNCELoss",
    "QueueLoss",
    "RetrievalLoss",
    "SupervisedLoss",
    "TwoTowerLoss",
    "WEINCELoss",
]

INFONCE = Gate(evidence=0.0, slope=1.0)
"""The gate that makes any of these losses plain InfoNCE: weight 0, and no fit."""


class _Setting(nn.Module):
    """What all settings share.

    Args:
        temperature: tau, > 0, a number or a parameter with one element. Tune it.
        gate: how weight and slope are measured on the batch; `INFONCE` for plain InfoNCE.
        reduction: "mean", "sum" or "none" over the anchors.
        eps: floor of the shortfall, in (0, 1).
        label_smoothing: share of the target that is spread over all candidates, in [0, 1).
        check_finite: refuse NaN and infinity by name; synchronises a GPU.
        implementation: "auto", "dense" or "tiled".
        gather_distributed: take candidates and statistics of all processes, see `contest_loss`.

    Attributes:
        inner: the ContestLoss that computes the whole output; hook it to read the statistics.
    """

    def __init__(
        self,
        temperature: Tensor | float = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        eps: float = 1e-6,
        label_smoothing: float = 0.0,
        check_finite: bool = False,
        implementation: Implementation = "auto",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        self.check_finite = check_finite
        self.inner = ContestLoss(
            temperature,
            gate,
            reduction,
            eps=eps,
            label_smoothing=label_smoothing,
            implementation=implementation,
            gather_distributed=gather_distributed,
        )

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if torch.compiler.is_compiling():
            return super().__call__(*inputs, **options)
        with refusing_together(self.inner.gather_distributed):
            return super().__call__(*inputs, **options)

    def _check(self, **embeddings: Tensor | None) -> None:
        if self.check_finite:
            check_finite_rows(**{name: z for name, z in embeddings.items() if z is not None})


class _TwoViews(_Setting):
    def __init__(
        self,
        temperature: Tensor | float = 0.5,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        eps: float = 1e-6,
        label_smoothing: float = 0.0,
        check_finite: bool = False,
        implementation: Implementation = "auto",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(
            temperature,
            gate,
            reduction,
            eps=eps,
            label_smoothing=label_smoothing,
            check_finite=check_finite,
            implementation=implementation,
            gather_distributed=gather_distributed,
        )

    def _output(
        self, z_a: Tensor, z_b: Tensor, sample_weight: Tensor | None = None, ignored: Tensor | None = None
    ) -> WEINCEOutput:
        contest = two_views(z_a, z_b, ignored)
        self._check(z_a=z_a, z_b=z_b)
        check_weights("sample_weight", sample_weight, z_a)
        if sample_weight is not None:
            sample_weight = torch.cat([sample_weight, sample_weight])
        return self.inner(contest, None, sample_weight)


class WEINCE(_TwoViews):
    """`weince_loss` as a module that returns the whole WEINCEOutput. Options as in `WEINCELoss`."""

    def forward(
        self, z_a: Tensor, z_b: Tensor, sample_weight: Tensor | None = None, ignored: Tensor | None = None
    ) -> WEINCEOutput:
        """Output of embeddings z_a and z_b, (N, D) each."""
        return self._output(z_a, z_b, sample_weight, ignored)


class WEINCELoss(_TwoViews):
    """WEINCE of two views: `criterion(z_a, z_b)` -> scalar. See `weince_loss` for the equation and the errors.

    Args:
        temperature: tau, > 0. Tune it: the published 0.5 was not best in our runs (runs/LOG.md).
        gate: how weight and slope are measured on the batch.
        reduction: "mean", "sum" or "none" over the 2N anchors.
        eps: floor of the shortfall, in (0, 1).
        label_smoothing: share of the target that is spread over all candidates, in [0, 1).
        check_finite: refuse NaN and infinity by name; synchronises a GPU.
        implementation: "auto", "dense" or "tiled".
        gather_distributed: take candidates and statistics of all processes, see `contest_loss`.

    Attributes:
        inner: the ContestLoss that computes the whole output; hook it to read the statistics.

    Examples:
        >>> criterion = WEINCELoss(temperature=0.2)
        >>> seen = []
        >>> handle = criterion.inner.register_forward_hook(lambda module, args, output: seen.append(output))
        >>> loss = criterion(torch.randn(16, 8), torch.randn(16, 8))
        >>> loss.ndim, seen[0].weight.shape
        (0, torch.Size([32]))
    """

    def forward(
        self, z_a: Tensor, z_b: Tensor, sample_weight: Tensor | None = None, ignored: Tensor | None = None
    ) -> Tensor:
        """Loss of embeddings z_a and z_b, (N, D) each, with a weight for each example, (N,)."""
        return self._output(z_a, z_b, sample_weight, ignored).loss


class InfoNCELoss(_TwoViews):
    """InfoNCE of two views (NT-Xent): WEINCE with weight 0, by the same code.

        loss = mean over anchors of  -log softmax_{j in C(i)} (s_i. / tau) [i+]

    Args:
        temperature: tau, > 0.
        reduction: "mean", "sum" or "none".
        label_smoothing: share of the target that is spread over all candidates, in [0, 1).
        check_finite: refuse NaN and infinity by name; synchronises a GPU.
        implementation: "auto", "dense" or "tiled".
        gather_distributed: take candidates and statistics of all processes, see `contest_loss`.

    Source: arXiv:1807.03748 (InfoNCE), arXiv:2002.05709 (two views).

    Examples:
        >>> InfoNCELoss(temperature=1.0)(torch.eye(4), torch.eye(4))
        tensor(1.1654)
    """

    def __init__(
        self,
        temperature: Tensor | float = 0.5,
        reduction: Reduction = "mean",
        *,
        label_smoothing: float = 0.0,
        check_finite: bool = False,
        implementation: Implementation = "auto",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(
            temperature,
            INFONCE,
            reduction,
            label_smoothing=label_smoothing,
            check_finite=check_finite,
            implementation=implementation,
            gather_distributed=gather_distributed,
        )

    def forward(
        self, z_a: Tensor, z_b: Tensor, sample_weight: Tensor | None = None, ignored: Tensor | None = None
    ) -> Tensor:
        """Loss of embeddings z_a and z_b, (N, D) each, with a weight for each example, (N,)."""
        return self._output(z_a, z_b, sample_weight, ignored).loss


class TwoTowerLoss(_Setting):
    """CLIP: `criterion(image, text)` -> mean of both directions, each with its own tail statistics.

        loss = (L(a -> b) + L(b -> a)) / 2

    `.inner` runs twice a step, a -> b first. A learnable temperature is given with each call, as CLIP's
    `1 / logit_scale.exp()`, or once as a parameter.

    Args: as in `WEINCELoss`; temperature 0.1 where none is given (CLIP starts at 0.07).

    Source: arXiv:2103.00020 (CLIP), figure 3.

    Examples:
        >>> TwoTowerLoss(temperature=1.0, gate=INFONCE)(torch.eye(4), torch.eye(4))
        tensor(0.7437)
    """

    def forward(
        self,
        a: Tensor,
        b: Tensor,
        temperature: Tensor | None = None,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Loss of embeddings a and b, (N, D) each, row i a pair; `ignored` is (N, N), rows of a, columns of b."""
        there = two_towers(a, b, ignored)
        self._check(a=a, b=b)
        first, second = (self.inner(contest, temperature, sample_weight).loss for contest in (there, swapped(there)))
        return (first + second) / 2


class QueueLoss(_Setting):
    """MoCo: `criterion(query, key)` -> scalar, against a queue of earlier keys, which grows by these when training.

    The queue is a buffer: it is saved with the model, moves with it, and starts with random unit rows, as MoCo's does.
    Keys come from the momentum encoder, without gradient.

    Args:
        size: Q, rows of the queue.
        width: D, of the embeddings.
        temperature, gate, reduction, eps, label_smoothing, check_finite, implementation, gather_distributed: as in
            `WEINCELoss`.

    Source: arXiv:1911.05722 (MoCo), algorithm 1.

    Examples:
        >>> criterion = QueueLoss(size=64, width=8)
        >>> criterion(torch.randn(4, 8), torch.randn(4, 8)).ndim, int(criterion.queue.seen)
        (0, 4)
    """

    def __init__(
        self,
        size: int,
        width: int,
        temperature: Tensor | float = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        eps: float = 1e-6,
        label_smoothing: float = 0.0,
        check_finite: bool = False,
        implementation: Implementation = "auto",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(
            temperature,
            gate,
            reduction,
            eps=eps,
            label_smoothing=label_smoothing,
            check_finite=check_finite,
            implementation=implementation,
            gather_distributed=gather_distributed,
        )
        self.queue = EmbeddingQueue(size, width)

    def forward(
        self, query: Tensor, key: Tensor, sample_weight: Tensor | None = None, ignored: Tensor | None = None
    ) -> Tensor:
        """Loss of query and key, (N, D) each; `ignored` is (N, Q), by rows of the queue."""
        # The rows as they are now: those of this batch replace some of them before backward.
        contest = queued(query, key, self.queue.rows.clone(), ignored)
        self._check(query=query, key=key)
        loss = self.inner(contest, None, sample_weight).loss
        if self.training:
            # Every process keeps the keys of all, so that all queues stay the same.
            self.queue.append(gather_values(key) if self.inner.gather_distributed else key)
        return loss


class SupervisedLoss(_Setting):
    """Labels: `criterion(z, labels)` -> scalar, mean over an anchor's positives of their negative log-probability.

    An anchor whose label no candidate shares is left out; `.inner`'s output counts them as `skipped`.

    Args: as in `WEINCELoss`; temperature 0.1 where none is given.

    Source: arXiv:2004.11362 (SupCon), equation 2.

    Examples:
        >>> SupervisedLoss()(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 3])).ndim
        0
    """

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        others: Tensor | None = None,
        other_labels: Tensor | None = None,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Loss of embeddings z, (A, D), with labels (A,), among themselves or against `others`, (M, D)."""
        contest = labelled(z, labels, others, other_labels, ignored)
        self._check(z=z, others=others)
        return self.inner(contest, None, sample_weight).loss


class RetrievalLoss(_Setting):
    """Retrieval, sentence embeddings: `criterion(query, positive, negatives)` -> scalar.

    Args: as in `WEINCELoss`; temperature 0.1 where none is given; and
        in_batch: whether the other rows' positives and negatives are negatives too.

    Source: arXiv:1705.00652 (in-batch negatives).

    Examples:
        >>> RetrievalLoss()(torch.randn(6, 4), torch.randn(6, 4), torch.randn(6, 2, 4)).ndim
        0
    """

    def __init__(
        self,
        temperature: Tensor | float = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        in_batch: bool = True,
        eps: float = 1e-6,
        label_smoothing: float = 0.0,
        check_finite: bool = False,
        implementation: Implementation = "auto",
        gather_distributed: bool = False,
    ) -> None:
        super().__init__(
            temperature,
            gate,
            reduction,
            eps=eps,
            label_smoothing=label_smoothing,
            check_finite=check_finite,
            implementation=implementation,
            gather_distributed=gather_distributed,
        )
        self.in_batch = in_batch

    def forward(
        self,
        query: Tensor,
        positive: Tensor,
        negatives: Tensor | None = None,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
    ) -> Tensor:
        """Loss of query and positive, (N, D) each, with negatives (N, H, D) of each, or (H, D) of all."""
        contest = explicit_negatives(query, positive, negatives, self.in_batch, ignored)
        self._check(query=query, positive=positive, negatives=negatives)
        return self.inner(contest, None, sample_weight).loss
