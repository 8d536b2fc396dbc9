"""What is given beside embeddings, and checked alike in every setup."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from weince.checks import check_ids, check_mask, check_weights
from weince.contest import NO_ID, Contest
from weince.units import unit_rows

__all__ = [
    "Given",
    "LabelGiven",
    "PairGiven",
    "RetrievalGiven",
    "both_ids",
    "check_width",
    "checked_ids",
    "complete",
    "first_column",
    "ids_of_negatives",
    "of_views",
    "unit_rows_of",
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


def complete(
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


def of_views(given: Any, views: int) -> Any:
    """Of examples -> of their views: numbers, ids of several columns, or a square mask."""
    if not isinstance(given, Tensor) or not given.ndim:
        return given
    return given.repeat(views, *[views if given.dtype == torch.bool else 1] * (given.ndim - 1))


def unit_rows_of(*embeddings: Tensor) -> list[Tensor]:
    """Unit rows, all of the widest dtype among them."""
    units = [unit_rows(z) for z in embeddings]
    widest = torch.float64 if any(unit.dtype == torch.float64 for unit in units) else torch.float32
    return [unit.to(widest) for unit in units]


def first_column(rows: Tensor) -> Tensor:
    """Column 0 for each."""
    return torch.zeros(rows.shape[0], dtype=torch.long, device=rows.device)


def checked_ids(name: str, ids: Tensor | None, rows: Tensor) -> Tensor | None:
    """int64 (N, C)."""
    if ids is None:
        return None
    check_ids(name, ids, (rows.shape[0],), rows)
    return _in_columns(ids, 1)


def _in_columns(ids: Tensor, dimensions: int) -> Tensor:
    """int64, with a last dimension of C ids each."""
    return (ids if ids.ndim > dimensions else ids.unsqueeze(-1)).to(torch.int64)


def both_ids(
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
        own = checked_ids(of_both, ids, queries)
        return own, own
    found = (
        checked_ids(of_queries, query_ids, queries),
        checked_ids(of_keys, key_ids, queries if keys is None else keys),
    )
    check_width(of_keys, found[1], found[0])
    return found


def check_width(name: str, ids: Tensor | None, like: Tensor | None) -> None:
    """Both sides of a contest have as many columns of ids."""
    if ids is not None and like is not None and ids.shape[-1] != like.shape[-1]:
        raise ValueError(
            f"Parameter `{name}` should have as many ids a row as the anchors, {like.shape[-1]}. Found {ids.shape[-1]}."
        )


def ids_of_negatives(ids: Tensor | None, negatives: Tensor | None, anchor_ids: Tensor | None) -> Tensor | None:
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
    check_width("negative_ids", ids, anchor_ids)
    return ids
