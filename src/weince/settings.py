"""The settings: where InfoNCE is used, each as one function from embeddings to `Candidates`.

Each takes embeddings of any scale and any floating-point dtype, and refuses wrong shapes by name. Where it takes
`ignored`, a bool mask, True is a pair that takes no part: a duplicate, a known false negative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from weince.candidates import Candidates, unit_rows
from weince.checks import check_embeddings, check_labels, check_mask, check_rows, check_same

__all__ = ["explicit_negatives", "labelled", "queued", "swapped", "two_towers", "two_views"]


def two_views(z_a: Tensor, z_b: Tensor, ignored: Tensor | None = None) -> Candidates:
    """SimCLR: every view is an anchor, every other view a candidate, the same example's the positive.

    Args:
        z_a: embeddings of the first view, (N, D), N >= 2.
        z_b: embeddings of the second view, (N, D); row i is the example of row i of z_a.
        ignored: bool (2N, 2N), all of view a, then all of view b.

    Returns:
        Candidates with A = M = 2N (all of view a, then all of view b) and K = 2N - 2.

    Source: arXiv:2002.05709 (SimCLR), section 2.1.
    """
    check_embeddings(z_a, z_b)
    views = unit_rows(torch.cat([z_a, z_b]))
    count = views.shape[0]
    check_mask("ignored", ignored, (count, count), views)
    itself = torch.arange(count, device=views.device)
    return Candidates(views, views, count - 2, positive=itself.roll(count // 2), itself=itself, ignored=ignored)


def two_towers(a: Tensor, b: Tensor, ignored: Tensor | None = None) -> Candidates:
    """CLIP, one direction: row i of `a` against all rows of `b`, row i the positive. The other: `swapped`.

    Args:
        a: embeddings of the anchors' tower, (N, D), N >= 1.
        b: embeddings of the other tower, (N, D).
        ignored: bool (N, N).

    Returns:
        Candidates with A = M = N and K = N - 1.

    Source: arXiv:2103.00020 (CLIP), figure 3.
    """
    check_rows("a", a)
    check_same("b", b, "a", a)
    check_mask("ignored", ignored, (len(a), len(a)), a)
    positive = torch.arange(len(a), device=a.device)
    anchors, candidates = _units(a, b)
    return Candidates(anchors, candidates, len(a) - 1, positive=positive, ignored=ignored)


def swapped(contest: Candidates) -> Candidates:
    """The other direction of `two_towers`, on the same unit rows: `swapped(two_towers(a, b))` is `two_towers(b, a)`."""
    ignored = None if contest.ignored is None else contest.ignored.T
    return contest._replace(anchors=contest.candidates, candidates=contest.anchors, ignored=ignored)


def queued(query: Tensor, key: Tensor, queue: Tensor, ignored: Tensor | None = None) -> Candidates:
    """MoCo: the own key against a queue of keys from earlier batches.

    Args:
        query: embeddings, (N, D), N >= 1.
        key: the positives, (N, D).
        queue: the negatives of all, (Q, D). No gradient is formed for a queue that needs none.
        ignored: bool (N, Q).

    Returns:
        Candidates with A = N, M = 1 + Q (the own key first) and K = Q.

    Source: arXiv:1911.05722 (MoCo), algorithm 1.
    """
    check_rows("query", query)
    check_same("key", key, "query", query)
    check_rows("queue", queue, query, least=0)
    check_mask("ignored", ignored, (len(query), len(queue)), query)
    if ignored is not None:
        ignored = torch.cat(
            [torch.zeros_like(ignored[:, :1]) if len(queue) else ignored.new_zeros(len(query), 1), ignored], 1
        )
    anchors, own, candidates = _units(query, key, queue)
    positive = _first(query)
    own = own.unsqueeze(1)
    return Candidates(anchors, candidates, len(queue), own, positive, ignored=ignored, from_batch=False)


def labelled(
    z: Tensor,
    labels: Tensor,
    others: Tensor | None = None,
    other_labels: Tensor | None = None,
    ignored: Tensor | None = None,
) -> Candidates:
    """Supervised: candidates of an anchor's label are its positives, all others its negatives.

    The loss of an anchor is the mean over its positives of their negative log-probability ("out"). An anchor without a
    positive has none and is left out of the mean.

    Args:
        z: embeddings, (A, D), A >= 1.
        labels: int64 (A,).
        others: the candidates, (M, D); without, the anchors themselves, each but itself.
        other_labels: int64 (M,), with `others`.
        ignored: bool (A, M).

    Source: arXiv:2004.11362 (SupCon), equation 2.
    """
    check_rows("z", z)
    check_labels("labels", labels, z)
    if others is None:
        if other_labels is not None:
            raise ValueError("Parameter `other_labels` should be given with `others`. Found it alone.")
        anchors = candidates = unit_rows(z)
        other_labels, itself = labels, torch.arange(len(z), device=z.device)
    else:
        check_rows("others", others, z)
        check_labels("other_labels", other_labels, others)
        anchors, candidates = _units(z, others)
        itself = None
    check_mask("ignored", ignored, (len(z), len(candidates)), z)
    negatives = len(candidates) - (itself is not None)
    return Candidates(
        anchors,
        candidates,
        negatives,
        itself=itself,
        anchor_labels=labels,
        candidate_labels=other_labels,
        ignored=ignored,
    )


def explicit_negatives(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None = None,
    in_batch: bool = True,
    ignored: Tensor | None = None,
) -> Candidates:
    """Retrieval: (query, positive, negative, ...), with the other rows' documents as negatives too or without.

    Args:
        query: embeddings, (N, D), N >= 1.
        positive: (N, D).
        negatives: each query's own, (N, H, D); or (H, D), the same for all.
        in_batch: whether every query sees the positives and negatives of all. Otherwise it sees its own positive and
            its own negatives alone.
        ignored: bool (N, M), in the order of columns below.

    Returns:
        Candidates with A = N. In the batch: M = N + N H, all positives, then the first negative of each query, then the
        second, ...; otherwise M = 1 + H.

    Source: arXiv:1705.00652 (in-batch negatives).
    """
    check_rows("query", query)
    check_same("positive", positive, "query", query)
    if negatives is not None and not (isinstance(negatives, Tensor) and negatives.ndim == 3):
        check_rows("negatives", negatives, query, least=0)
    elif negatives is not None:
        check_rows("negatives", negatives.flatten(0, 1), query, least=0)
        if len(negatives) != len(query):
            expected = f"({len(query)}, H, {query.shape[1]})"
            raise ValueError(f"Parameter `negatives` should have shape {expected}. Found {tuple(negatives.shape)}.")
    count = len(query)
    if in_batch:
        parts = [positive]
        if negatives is not None:
            parts.append(negatives if negatives.ndim == 2 else negatives.transpose(0, 1).flatten(0, 1))
        anchors, candidates = _units(query, torch.cat(parts))
        own, column = None, torch.arange(count, device=query.device)
    else:
        alone, shared = positive.unsqueeze(1), query.new_empty(0, query.shape[1])
        if negatives is not None and negatives.ndim == 3:
            alone = torch.cat([alone, negatives], dim=1)
        elif negatives is not None:
            shared = negatives
        anchors, own, candidates = _units(query, alone.flatten(0, 1), shared)
        own, column = own.view(alone.shape), _first(query)
    contest = Candidates(anchors, candidates, 0, own, column, ignored=ignored, from_batch=in_batch)
    check_mask("ignored", ignored, (count, contest.columns), query)
    return contest._replace(negatives=contest.columns - 1)


def _units(*embeddings: Tensor) -> list[Tensor]:
    """Unit rows, all of the widest dtype among them."""
    units = [unit_rows(z) for z in embeddings]
    widest = torch.float64 if any(unit.dtype == torch.float64 for unit in units) else torch.float32
    return [unit.to(widest) for unit in units]


def _first(rows: Tensor) -> Tensor:
    """Column 0 for each."""
    return torch.zeros(len(rows), dtype=torch.long, device=rows.device)
