"""Retrieval: queries, their positives, and negatives of their own or of the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weince.checks import check_flag, check_mask, check_rows, check_same
from weince.contest import NO_ID, Contest
from weince.gate import Gate
from weince.loss import loss_of
from weince.options import Keywords, Reduction
from weince.output import LossOutput
from weince.setups.contest_loss import SetupLoss, takes_what
from weince.setups.given import (
    RetrievalGiven,
    both_ids,
    complete,
    first_column,
    ids_of_negatives,
    unit_rows_of,
)
from weince.temperature import Temperature

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RetrievalLoss", "explicit_negatives", "query_key_loss"]


def explicit_negatives(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None = None,
    in_batch: bool = True,
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    negative_ids: Tensor | None = None,
) -> Contest:
    """Retrieval: (query, positive, negative, ...), with the other rows' documents as negatives too or without.

    Args:
        query: embeddings, (N, D), N >= 1.
        positive: (N, D).
        negatives: each query's own, (N, H, D); or (H, D), the same for all.
        in_batch: whether every query sees the positives and negatives of all. Otherwise it sees its own positive and
            its own negatives alone.
        sample_weight: of each query, (N,).
        ignored: bool (N, M), in the order of columns below.
        ids: of each row, (N,) or (N, C).
        query_ids: of the queries, where they are not those of the positives.
        key_ids: of the positives.
        negative_ids: of the negatives, (N, H) or (H,), or with C columns; without, they equal none.

    Returns:
        Contest with A = N. In the batch: M = N + N H, all positives, then the first negative of each query, then the
        second, ...; otherwise M = 1 + H.

    Source: arXiv:1705.00652 (in-batch negatives).
    """
    check_rows("query", query)
    check_same("positive", positive, "query", query)
    each_its_own = isinstance(negatives, Tensor) and negatives.ndim == 3
    if negatives is not None:
        if each_its_own and (negatives.shape[0] != query.shape[0] or negatives.shape[2] != query.shape[1]):
            expected = f"({query.shape[0]}, H, {query.shape[1]})"
            raise ValueError(f"Parameter `negatives` should have shape {expected}. Found {tuple(negatives.shape)}.")
        check_rows("negatives", negatives.flatten(0, 1) if each_its_own else negatives, query, least=0)
    anchor_ids, ids_of_positives = both_ids(ids, query_ids, key_ids, query)
    ids_of_theirs = ids_of_negatives(negative_ids, negatives, anchor_ids)
    count = query.shape[0]
    if in_batch:
        parts, id_parts = [positive], [ids_of_positives]
        if negatives is not None:
            parts.append(negatives.transpose(0, 1).flatten(0, 1) if each_its_own else negatives)
            if ids_of_theirs is not None:
                id_parts.append(ids_of_theirs.transpose(0, 1).flatten(0, 1) if each_its_own else ids_of_theirs)
        anchors, candidates = unit_rows_of(query, torch.cat(parts))
        own, column = None, torch.arange(count, device=query.device)
        candidate_ids = None if anchor_ids is None else torch.cat([part for part in id_parts if part is not None])
    else:
        alone, shared = positive.unsqueeze(1), query.new_empty(0, query.shape[1])
        candidate_ids = None if anchor_ids is None else anchor_ids[:0]
        if negatives is not None and each_its_own:
            alone = torch.cat([alone, negatives], dim=1)
        elif negatives is not None:
            shared, candidate_ids = negatives, ids_of_theirs
        anchors, own, candidates = unit_rows_of(query, alone.flatten(0, 1), shared)
        own, column = own.view(alone.shape), first_column(query)
    contest = Contest(anchors, candidates, 0, own, column, from_batch=in_batch)
    contest = contest._replace(negatives=contest.columns - 1)
    if own is not None and each_its_own and anchor_ids is not None and ids_of_theirs is not None:
        # A query's own negatives are no shared candidates: their ids make a mask.
        equal = (ids_of_theirs == anchor_ids.unsqueeze(1)) & (ids_of_theirs != NO_ID)
        same = torch.cat([equal.new_zeros(count, 1), equal.any(dim=2)], dim=1)
        check_mask("ignored", ignored, (count, contest.columns), query)
        ignored, anchor_ids, candidate_ids = same if ignored is None else same | ignored, None, None
    return complete(contest, sample_weight, ignored, anchor_ids, candidate_ids)


def query_key_loss(
    query: Tensor,
    positive_key: Tensor,
    negative_keys: Tensor | None = None,
    temperature: Temperature = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
    negative_ids: Tensor | None = None,
    **options: Unpack[Keywords],
) -> Tensor:
    """For your own loop: queries, their positive keys and negative keys -> loss.

    Args:
        query: embeddings, (N, D).
        positive_key: (N, D).
        negative_keys: (M, D), the same for all queries; (N, H, D), each query's own; or None: the other rows' positive
            keys.
        temperature: tau, > 0.
        gate: as in `Options`.
        reduction: as in `Options`.
        sample_weight: of each query, (N,).
        ignored: bool, as in `weince.setups.explicit_negatives`.
        ids: of each row, (N,) or (N, C).
        query_ids: of the queries, where they are not those of their keys.
        key_ids: of the positive keys.
        negative_ids: of the negative keys.
        **options: the others of `Options`.

    Returns:
        Scalar, or (N,) with reduction "none".

    Examples:
        >>> query_key_loss(torch.randn(4, 8), torch.randn(4, 8), torch.randn(16, 8)).ndim
        0
    """

    def made() -> Contest:
        return explicit_negatives(
            query,
            positive_key,
            negative_keys,
            in_batch=negative_keys is None,
            sample_weight=sample_weight,
            ignored=ignored,
            ids=ids,
            query_ids=query_ids,
            key_ids=key_ids,
            negative_ids=negative_ids,
        )

    return loss_of(
        made, temperature, gate, reduction, options, query=query, positive_key=positive_key, negative_keys=negative_keys
    )


class RetrievalLoss(SetupLoss):
    """Retrieval, sentence embeddings: `criterion(query, positive, negatives)` -> scalar.

    Args:
        temperature: as in `SetupLoss`.
        gate: as in `SetupLoss`.
        reduction: as in `SetupLoss`.
        **options: as in `SetupLoss`.
        in_batch: whether the other rows' positives and negatives are negatives too.

    Source: arXiv:1705.00652 (in-batch negatives).

    Examples:
        >>> RetrievalLoss()(torch.randn(6, 4), torch.randn(6, 4), torch.randn(6, 2, 4)).ndim
        0
    """

    def __init__(
        self,
        temperature: Temperature = 0.1,
        gate: Gate = Gate(),
        reduction: Reduction = "mean",
        *,
        in_batch: bool = True,
        **options: Unpack[Keywords],
    ) -> None:
        super().__init__(temperature, gate, reduction, **options)
        check_flag("in_batch", in_batch)
        self.in_batch = in_batch

    def output(
        self, query: Tensor, positive: Tensor, negatives: Tensor | None = None, **given: Unpack[RetrievalGiven]
    ) -> LossOutput:
        """Of query and positive, (N, D) each, and what else `weince.setups.explicit_negatives` takes.

        Args:
            query: (N, D).
            positive: (N, D); row i of both is a pair.
            negatives: (N, H, D) of each query, or (H, D) of all.
            **given: `sample_weight`, `ignored`, `ids`, or `query_ids` and `key_ids`, and `negative_ids`.
        """

        def make() -> list[Contest]:
            return [explicit_negatives(query, positive, negatives, self.in_batch, **given)]

        return self.inner.of(make, query=query, positive=positive, negatives=negatives)

    if TYPE_CHECKING:

        @takes_what(output)
        def __call__(self) -> Any: ...

    def extra_repr(self) -> str:
        return f"in_batch={self.in_batch}"
