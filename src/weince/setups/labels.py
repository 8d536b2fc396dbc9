"""SupCon: who has whose label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weince.checks import check_labels, check_mask, check_rows
from weince.contest import Contest
from weince.output import LossOutput
from weince.setups.contest_loss import SetupLoss, takes_what
from weince.setups.given import (
    LabelGiven,
    both_ids,
    complete,
    of_views,
    unit_rows_of,
)
from weince.units import unit_rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SupervisedLoss", "labelled"]


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
            of_views(given, views) for given in (labels, sample_weight, ignored, ids)
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
        anchors, candidates = unit_rows_of(z, others)
        itself = None
    if by_matrix:
        check_mask("labels", labels, (z.shape[0], candidates.shape[0]), z)
    anchor_ids, candidate_ids = both_ids(None, ids, other_ids, z, names=("ids", "ids", "other_ids"), keys=candidates)
    contest = Contest(anchors, candidates, candidates.shape[0] - (itself is not None), itself=itself)
    if by_matrix:
        contest = contest._replace(positive=labels)
    else:
        assert other_labels is not None
        contest = contest._replace(anchor_labels=labels.long(), candidate_labels=other_labels.long())
    return complete(contest, sample_weight, ignored, anchor_ids, candidate_ids)


class SupervisedLoss(SetupLoss):
    """Labels: `criterion(z, labels)` -> scalar, mean over an anchor's positives of their negative log-probability.

    An anchor whose label no candidate shares is left out; the output counts them as `skipped`.

    Args: as in `SetupLoss`.

    Source: arXiv:2004.11362 (SupCon), equation 2.

    Examples:
        >>> SupervisedLoss()(torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 2, 3])).ndim
        0
    """

    def output(
        self,
        z: Tensor,
        labels: Tensor,
        others: Tensor | None = None,
        other_labels: Tensor | None = None,
        **given: Unpack[LabelGiven],
    ) -> LossOutput:
        """Of embeddings z with labels, among themselves or against `others`, and what else `labelled` takes.

        Args:
            z: (A, D), or V views of each example, (N, V, D).
            labels: int (A,), or bool (A, M): who is whose positive.
            others: candidates, (M, D).
            other_labels: int (M,).
            **given: `sample_weight`, `ignored`, `ids`, `other_ids`.
        """
        return self.inner.of(lambda: [labelled(z, labels, others, other_labels, **given)], z=z, others=others)

    if TYPE_CHECKING:

        @takes_what(output)
        def __call__(self) -> Any: ...
