"""MoCo: keys of earlier batches as negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weince.checks import check_labels, check_mask, check_rows, check_same
from weince.contest import Contest
from weince.gate import Gate
from weince.key_queue import EmbeddingQueue
from weince.options import Keywords, Reduction
from weince.output import LossOutput
from weince.setups.contest_loss import SetupLoss, takes_what
from weince.setups.given import (
    check_width,
    checked_ids,
    complete,
    first_column,
    unit_rows_of,
)
from weince.temperature import Temperature
from weince.units import unit_rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["QueueLoss", "queued"]


def queued(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    *,
    normalised: bool = False,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    query_ids: Tensor | None = None,
    queue_ids: Tensor | None = None,
) -> Contest:
    """MoCo: the own key against a queue of keys from earlier batches.

    Args:
        query: embeddings, (N, D), N >= 1.
        key: the positives, (N, D).
        queue: the negatives of all, (Q, D). No gradient is formed for a queue that needs none.
        normalised: whether the queue's rows have length 1 already.
        sample_weight: of each query, (N,).
        ignored: bool (N, Q).
        query_ids: of each query, (N,) or (N, C).
        queue_ids: of each row of the queue, (Q,) or (Q, C).

    Returns:
        Contest with A = N, M = 1 + Q (the own key first) and K = Q.

    Source: arXiv:1911.05722 (MoCo), algorithm 1.
    """
    check_rows("query", query)
    check_same("key", key, "query", query)
    check_rows("queue", queue, least=0)
    if query.shape[1] != queue.shape[1]:
        width = f"D = {queue.shape[1]} columns, the width of the queue"
        raise ValueError(f"Parameter `query` should have {width}. Found {tuple(query.shape)}.")
    check_rows("queue", queue, query, least=0)
    check_mask("ignored", ignored, (query.shape[0], queue.shape[0]), query)
    anchor_ids, candidate_ids = checked_ids("query_ids", query_ids, query), checked_ids("queue_ids", queue_ids, queue)
    check_width("queue_ids", candidate_ids, anchor_ids)
    if anchor_ids is None or candidate_ids is None:
        anchor_ids = candidate_ids = None
    if ignored is not None:
        ignored = torch.cat([ignored.new_zeros(query.shape[0], 1), ignored], dim=1)
    anchors, own = unit_rows_of(query, key)
    candidates = queue.to(anchors.dtype) if normalised else unit_rows(queue)
    widest = torch.promote_types(anchors.dtype, candidates.dtype)
    rows = (anchors.to(widest), candidates.to(widest), queue.shape[0], own.to(widest).unsqueeze(1))
    contest = Contest(*rows, positive=first_column(query), from_batch=False)
    return complete(contest, sample_weight, ignored, anchor_ids, candidate_ids)


class QueueLoss(SetupLoss):
    """MoCo: `criterion(query, key)` -> scalar, against a queue of earlier keys, which grows by these when training.

    Keys come from the momentum encoder and get no gradient. The queue is a buffer: it is saved with the model and moves
    with it. It starts empty, so the first loss, without any negative, is 0. With `gather_distributed` every process
    appends the keys of all, and the queues stay the same.

    Under `torch.utils.checkpoint` the loss is computed again against the queue as it was.

    Args:
        size: Q, rows of the queue.
        width: D, of the embeddings.
        temperature: as in `SetupLoss`.
        gate: as in `SetupLoss`.
        reduction: as in `SetupLoss`.
        **options: as in `SetupLoss`.

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
        temperature: Temperature = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__(temperature, gate, reduction, **options)
        self.queue = EmbeddingQueue(size, width)
        self._since_compared = 0

    def output(
        self,
        query: Tensor,
        key: Tensor,
        *,
        sample_weight: Tensor | None = None,
        ignored: Tensor | None = None,
        ids: Tensor | None = None,
        query_ids: Tensor | None = None,
        key_ids: Tensor | None = None,
    ) -> LossOutput:
        """Of embeddings query and key, (N, D) each.

        Args:
            query: of the encoder.
            key: of the momentum encoder; row i of both is one example.
            sample_weight: of each query, (N,).
            ignored: bool (N, Q), rows of the queue that take no part.
            ids: integers (N,); a key in the queue with the query's id is not its negative.
            query_ids: of the queries, where they are not those of their keys.
            key_ids: of the keys.
        """
        processes = self.inner.options.processes
        again = not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1  # within a backward
        twice = ids is not None and (query_ids is not None or key_ids is not None)
        if ids is not None:
            query_ids = key_ids = ids
        if isinstance(key, Tensor):
            key = key.detach()

        def make() -> list[Contest]:
            if twice:
                raise ValueError("Parameter `ids` should be given without `query_ids` and `key_ids`. Found both.")
            for name, of_rows in (("query_ids", query_ids), ("key_ids", key_ids)):
                if of_rows is not None:
                    check_labels(name if ids is None else "ids", of_rows, query)
            held = self.queue.filled(processes.values(key) if again and self.training else None)
            return [
                queued(
                    query,
                    key,
                    held.rows,
                    normalised=True,
                    sample_weight=sample_weight,
                    ignored=held.masked(ignored, query),
                    query_ids=query_ids,
                    queue_ids=held.ids,
                )
            ]

        self._compare_queues()
        output = self.inner.of(make, query=query, key=key)
        if self.training and not again:
            # Every process keeps the keys of all, so that all queues stay the same.
            self.queue.append(processes.values(key), None if key_ids is None else processes.values(key_ids.long()))
        return output

    if TYPE_CHECKING:

        @takes_what(output)
        def __call__(self) -> Any: ...

    def _compare_queues(self) -> None:
        """Now and then: queues that differ give every process another loss, and nothing else would tell."""
        processes = self.inner.options.processes
        if torch.compiler.is_compiling() or processes.size == 1:
            return
        if self._since_compared % 100 == 0:
            processes.agree(self.queue.fingerprint(), "the queue")
        self._since_compared += 1
