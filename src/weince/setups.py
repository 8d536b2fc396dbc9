"""The setups: where InfoNCE is used, each as one function from embeddings to a `Contest`.

Each takes embeddings of any scale and any floating-point dtype, and refuses wrong shapes by name. All take

    sample_weight   (N,), >= 0, how much each example counts
    ignored         bool, True is a pair that takes no part: a known false negative
    ids             integers, (N,) or (N, C): two rows with an equal id, in any of the C columns, are never each other's
                    negatives: copies of one text, views of one page. `NO_ID` equals none.

Masks speak of the pairs of one process; ids are compared across processes too.
"""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from weince.checks import check_ids, check_labels, check_mask, check_rows, check_same, check_weights
from weince.contest import NO_ID, Contest, unit_rows

__all__ = [
    "Given",
    "LabelGiven",
    "PairGiven",
    "RetrievalGiven",
    "explicit_negatives",
    "labelled",
    "queued",
    "swapped",
    "two_towers",
    "two_views",
]


class Given(TypedDict, total=False):
    """What every setup takes beside embeddings, for type checkers."""

    sample_weight: Tensor | None
    ignored: Tensor | None
    ids: Tensor | None


class PairGiven(Given, total=False):
    """And those whose two sides may have ids of their own."""

    query_ids: Tensor | None
    key_ids: Tensor | None


class RetrievalGiven(PairGiven, total=False):
    """And `explicit_negatives`."""

    negative_ids: Tensor | None


class LabelGiven(Given, total=False):
    """And `labelled`."""

    other_ids: Tensor | None


def two_views(
    z_a: Tensor,
    z_b: Tensor,
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
) -> Contest:
    """SimCLR: every view is an anchor, every other view a candidate, the same example's the positive.

    Args:
        z_a: embeddings of the first view, (N, D), N >= 1.
        z_b: embeddings of the second view, (N, D); row i is the example of row i of z_a.
        sample_weight: of each example, (N,).
        ignored: bool (2N, 2N), all of view a, then all of view b.
        ids: of each example, (N,) or (N, C).

    Returns:
        Contest with A = M = 2N (all of view a, then all of view b) and K = 2N - 2.

    Source: arXiv:2002.05709 (SimCLR), section 2.1.
    """
    check_rows("z_a", z_a)
    check_same("z_b", z_b, "z_a", z_a)
    check_weights("sample_weight", sample_weight, z_a)
    views = unit_rows(torch.cat([z_a, z_b]))
    count = views.shape[0]
    itself = torch.arange(count, device=views.device)
    weights, both = (
        None if of_examples is None else torch.cat([of_examples, of_examples])
        for of_examples in (sample_weight, _ids("ids", ids, z_a))
    )
    contest = Contest(views, views, count - 2, positive=itself.roll(count // 2), itself=itself)
    return _complete(contest, weights, ignored, both, both)


def two_towers(
    a: Tensor,
    b: Tensor,
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
    query_ids: Tensor | None = None,
    key_ids: Tensor | None = None,
) -> Contest:
    """CLIP, one direction: row i of `a` against all rows of `b`, row i the positive. The other: `swapped`.

    Args:
        a: embeddings of the anchors' tower, (N, D), N >= 1.
        b: embeddings of the other tower, (N, D).
        sample_weight: of each pair, (N,).
        ignored: bool (N, N).
        ids: of each pair, (N,) or (N, C).
        query_ids: of the rows of a, where they are not those of b.
        key_ids: of the rows of b.

    Returns:
        Contest with A = M = N and K = N - 1.

    Source: arXiv:2103.00020 (CLIP), figure 3.
    """
    check_rows("a", a)
    check_same("b", b, "a", a)
    anchors, candidates = _units(a, b)
    contest = Contest(anchors, candidates, a.shape[0] - 1, positive=torch.arange(a.shape[0], device=a.device))
    return _complete(contest, sample_weight, ignored, *_both_ids(ids, query_ids, key_ids, a))


def swapped(contest: Contest) -> Contest:
    """The other direction of `two_towers`, on the same unit rows: `swapped(two_towers(a, b))` is `two_towers(b, a)`."""
    return contest._replace(
        anchors=contest.candidates,
        candidates=contest.anchors,
        anchor_ids=contest.candidate_ids,
        candidate_ids=contest.anchor_ids,
        ignored=None if contest.ignored is None else contest.ignored.T,
    )


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
    anchor_ids, candidate_ids = _ids("query_ids", query_ids, query), _ids("queue_ids", queue_ids, queue)
    _check_width("queue_ids", candidate_ids, anchor_ids)
    if anchor_ids is None or candidate_ids is None:
        anchor_ids = candidate_ids = None
    if ignored is not None:
        ignored = torch.cat([ignored.new_zeros(query.shape[0], 1), ignored], dim=1)
    anchors, own = _units(query, key)
    candidates = queue.to(anchors.dtype) if normalised else unit_rows(queue)
    widest = torch.promote_types(anchors.dtype, candidates.dtype)
    rows = (anchors.to(widest), candidates.to(widest), queue.shape[0], own.to(widest).unsqueeze(1))
    contest = Contest(*rows, positive=_first(query), from_batch=False)
    return _complete(contest, sample_weight, ignored, anchor_ids, candidate_ids)


def labelled(
    z: Tensor,
    labels: Tensor,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
    other_ids: Tensor | None = None,
) -> Contest:
    """Supervised: candidates of an anchor's label are its positives, all others its negatives.

    The loss of an anchor is the mean over its positives of their negative log-probability ("out"). An anchor without a
    positive has none and is left out of the mean.

    Args:
        z: embeddings, (A, D), A >= 1; or V views of each example, (N, V, D), which make A = V N anchors, all first
            views before all second ones. What else is given is then of the examples.
        labels: int (A,); or bool (A, M), who is whose positive, which several labels of one row take:
            `(y @ y.T) > 0` of multi-hot y. Of pairs of one process alone: what others gather are negatives.
        others: the candidates, (M, D); without, the anchors themselves, each but itself.
        other_labels: int (M,), with `others`.
        sample_weight: of each anchor, (A,).
        ignored: bool (A, M).
        ids: of each anchor, (A,) or (A, C). Copies of the anchor's label stay its positives.
        other_ids: of each candidate, with `others`.

    Source: arXiv:2004.11362 (SupCon), equation 2.
    """
    if isinstance(z, Tensor) and z.ndim == 3 and others is None:
        views, z = z.shape[1], z.transpose(0, 1).flatten(0, 1)
        labels, sample_weight, ignored, ids = (
            _repeated(given, views) for given in (labels, sample_weight, ignored, ids)
        )
    check_rows("z", z)
    by_matrix = isinstance(labels, Tensor) and labels.dtype == torch.bool
    if not by_matrix:
        check_labels("labels", labels, z)
    for name, given in (("other_labels", other_labels), ("other_ids", other_ids)):
        if others is None and given is not None:
            raise ValueError(f"Parameter `{name}` should be given with `others`. Found it alone.")
    if others is None:
        anchors = candidates = unit_rows(z)
        other_labels, other_ids, itself = labels, ids, torch.arange(z.shape[0], device=z.device)
    else:
        check_rows("others", others, z)
        if by_matrix and other_labels is not None:
            raise ValueError("Parameter `other_labels` should be None where `labels` says who is whose positive.")
        if not by_matrix:
            check_labels("other_labels", other_labels, others)
        anchors, candidates = _units(z, others)
        itself = None
    if by_matrix:
        check_mask("labels", labels, (z.shape[0], candidates.shape[0]), z)
    anchor_ids, candidate_ids = _both_ids(None, ids, other_ids, z, names=("ids", "ids", "other_ids"), keys=candidates)
    contest = Contest(anchors, candidates, candidates.shape[0] - (itself is not None), itself=itself)
    if by_matrix:
        contest = contest._replace(positive=labels)
    else:
        assert other_labels is not None
        contest = contest._replace(anchor_labels=labels.long(), candidate_labels=other_labels.long())
    return _complete(contest, sample_weight, ignored, anchor_ids, candidate_ids)


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
    anchor_ids, ids_of_positives = _both_ids(ids, query_ids, key_ids, query)
    ids_of_negatives = _ids_of_negatives(negative_ids, negatives, anchor_ids)
    count = query.shape[0]
    if in_batch:
        parts, id_parts = [positive], [ids_of_positives]
        if negatives is not None:
            parts.append(negatives.transpose(0, 1).flatten(0, 1) if each_its_own else negatives)
            if ids_of_negatives is not None:
                id_parts.append(ids_of_negatives.transpose(0, 1).flatten(0, 1) if each_its_own else ids_of_negatives)
        anchors, candidates = _units(query, torch.cat(parts))
        own, column = None, torch.arange(count, device=query.device)
        candidate_ids = None if anchor_ids is None else torch.cat([part for part in id_parts if part is not None])
    else:
        alone, shared = positive.unsqueeze(1), query.new_empty(0, query.shape[1])
        candidate_ids = None if anchor_ids is None else anchor_ids[:0]
        if negatives is not None and each_its_own:
            alone = torch.cat([alone, negatives], dim=1)
        elif negatives is not None:
            shared, candidate_ids = negatives, ids_of_negatives
        anchors, own, candidates = _units(query, alone.flatten(0, 1), shared)
        own, column = own.view(alone.shape), _first(query)
    contest = Contest(anchors, candidates, 0, own, column, from_batch=in_batch)
    contest = contest._replace(negatives=contest.columns - 1)
    if own is not None and each_its_own and anchor_ids is not None and ids_of_negatives is not None:
        # A query's own negatives are no shared candidates: their ids make a mask.
        equal = (ids_of_negatives == anchor_ids.unsqueeze(1)) & (ids_of_negatives != NO_ID)
        same = torch.cat([equal.new_zeros(count, 1), equal.any(dim=2)], dim=1)
        check_mask("ignored", ignored, (count, contest.columns), query)
        ignored, anchor_ids, candidate_ids = same if ignored is None else same | ignored, None, None
    return _complete(contest, sample_weight, ignored, anchor_ids, candidate_ids)


def _complete(
    contest: Contest,
    sample_weight: Tensor | None,
    ignored: Tensor | None,
    anchor_ids: Tensor | None,
    candidate_ids: Tensor | None,
) -> Contest:
    """With what was given beside embeddings."""
    check_weights("sample_weight", sample_weight, contest.anchors)
    check_mask("ignored", ignored, (contest.anchors.shape[0], contest.columns), contest.anchors)
    given = {"anchor_ids": anchor_ids, "candidate_ids": candidate_ids}
    return contest._replace(ignored=ignored, sample_weight=sample_weight, **given)


def _repeated(given: Any, views: int) -> Any:
    """Of examples -> of their views: numbers, ids of several columns, or a square mask."""
    if not isinstance(given, Tensor) or not given.ndim:
        return given
    return given.repeat(views, *[views if given.dtype == torch.bool else 1] * (given.ndim - 1))


def _units(*embeddings: Tensor) -> list[Tensor]:
    """Unit rows, all of the widest dtype among them."""
    units = [unit_rows(z) for z in embeddings]
    widest = torch.float64 if any(unit.dtype == torch.float64 for unit in units) else torch.float32
    return [unit.to(widest) for unit in units]


def _first(rows: Tensor) -> Tensor:
    """Column 0 for each."""
    return torch.zeros(rows.shape[0], dtype=torch.long, device=rows.device)


def _ids(name: str, ids: Tensor | None, rows: Tensor) -> Tensor | None:
    """int64 (N, C)."""
    if ids is None:
        return None
    check_ids(name, ids, (rows.shape[0],), rows)
    return _in_columns(ids, 1)


def _in_columns(ids: Tensor, dimensions: int) -> Tensor:
    """int64, with a last dimension of C ids each."""
    return (ids if ids.ndim > dimensions else ids.unsqueeze(-1)).to(torch.int64)


def _both_ids(
    ids: Tensor | None,
    query_ids: Tensor | None,
    key_ids: Tensor | None,
    queries: Tensor,
    names: tuple[str, str, str] = ("ids", "query_ids", "key_ids"),
    keys: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Ids of anchors and candidates: the same for both, or each their own."""
    of_both, of_queries, of_keys = names
    if ids is not None and (query_ids is not None or key_ids is not None):
        raise ValueError(f"Parameter `{of_both}` should be given without `{of_queries}` and `{of_keys}`. Found both.")
    if (query_ids is None) != (key_ids is None):
        alone, missing = (of_queries, of_keys) if key_ids is None else (of_keys, of_queries)
        raise ValueError(f"Parameter `{missing}` should be given with `{alone}`. Found None.")
    if ids is not None:
        own = _ids(of_both, ids, queries)
        return own, own
    found = _ids(of_queries, query_ids, queries), _ids(of_keys, key_ids, queries if keys is None else keys)
    _check_width(of_keys, found[1], found[0])
    return found


def _check_width(name: str, ids: Tensor | None, like: Tensor | None) -> None:
    if ids is not None and like is not None and ids.shape[-1] != like.shape[-1]:
        raise ValueError(
            f"Parameter `{name}` should have as many ids a row as the anchors, {like.shape[-1]}. Found {ids.shape[-1]}."
        )


def _ids_of_negatives(ids: Tensor | None, negatives: Tensor | None, anchor_ids: Tensor | None) -> Tensor | None:
    """int64 (N, H, C) or (H, C), `NO_ID` where they are not known; None where anchors have no ids."""
    if ids is not None and (negatives is None or anchor_ids is None):
        missing = "negatives" if negatives is None else "ids"
        raise ValueError(f"Parameter `{missing}` should be given with `negative_ids`. Found None.")
    if negatives is None or anchor_ids is None:
        return None
    shape = tuple(negatives.shape[:-1])
    if ids is None:
        return torch.full((*shape, anchor_ids.shape[1]), NO_ID, device=negatives.device)
    check_ids("negative_ids", ids, shape, negatives)
    ids = _in_columns(ids, len(shape))
    _check_width("negative_ids", ids, anchor_ids)
    return ids
