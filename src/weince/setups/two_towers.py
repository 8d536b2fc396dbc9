"""CLIP: two towers, and both directions of a pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from weince.checks import check_rows, check_same
from weince.contest import Contest
from weince.output import LossOutput
from weince.setups.contest_loss import SetupLoss, takes_what
from weince.setups.given import (
    PairGiven,
    both_ids,
    complete,
    unit_rows_of,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["TwoTowerLoss", "both_ways", "swapped", "two_towers"]


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
    anchors, candidates = unit_rows_of(a, b)
    contest = Contest(anchors, candidates, a.shape[0] - 1, positive=torch.arange(a.shape[0], device=a.device))
    return complete(contest, sample_weight, ignored, *both_ids(ids, query_ids, key_ids, a))


def swapped(contest: Contest) -> Contest:
    """The other direction of `two_towers`, on the same unit rows: `swapped(two_towers(a, b))` is `two_towers(b, a)`."""
    return contest._replace(
        anchors=contest.candidates,
        candidates=contest.anchors,
        anchor_ids=contest.candidate_ids,
        candidate_ids=contest.anchor_ids,
        ignored=None if contest.ignored is None else contest.ignored.T,
    )


def both_ways(contest: Contest) -> list[Contest]:
    """Both directions of `two_towers` at once, sharing their products; of one with ids the two, a -> b first.

    A contest that goes both ways has 2N choices: those of a, then those of b.
    """
    if contest.anchor_ids is not None:
        return [contest, swapped(contest)]
    of_both = {
        name: torch.cat([value, value]) if (value := getattr(contest, name)) is not None else None
        for name in ("positive", "sample_weight")
    }
    ignored = None if contest.ignored is None else torch.cat([contest.ignored, contest.ignored.T])
    return [contest._replace(**of_both, ignored=ignored, both_ways=True)]


class TwoTowerLoss(SetupLoss):
    """CLIP: `criterion(image, text)` -> mean of both directions, each with its own tail statistics.

        loss = (L(a -> b) + L(b -> a)) / 2

    `output` holds the anchors of a, then those of b. `.inner` runs once a step; with ids twice, a -> b first. The
    temperature learns as `TwoTowerLoss(LearnableTemperature())`, or in your model, given with each call as
    `logit_scale`.

    Args: as in `SetupLoss`. (CLIP starts at 0.07.)

    Source: arXiv:2103.00020 (CLIP), figure 3.

    Examples:
        >>> from weince import INFONCE
        >>> TwoTowerLoss(temperature=1.0, gate=INFONCE)(torch.eye(4), torch.eye(4))
        tensor(0.7437)
    """

    def output(
        self, a: Tensor, b: Tensor, *, logit_scale: Tensor | None = None, **given: Unpack[PairGiven]
    ) -> LossOutput:
        """Of embeddings a and b, (N, D) each, row i a pair, and what else `weince.setups.two_towers` takes.

        Args:
            a: one tower.
            b: the other.
            logit_scale: 1 / tau in the place of the module's own, with gradient: CLIP's `model.logit_scale.exp()`.
            **given: `sample_weight`, `ignored`, `ids`, or `query_ids` and `key_ids`.
        """

        def make() -> list[Contest]:
            return both_ways(two_towers(a, b, **given))

        return self.inner.of(make, lambda: _temperature_of(logit_scale), a=a, b=b)

    if TYPE_CHECKING:

        @takes_what(output)
        def __call__(self) -> Any: ...


def _temperature_of(logit_scale: Tensor | None) -> Tensor | None:
    """1 / logit_scale."""
    if logit_scale is None:
        return None
    expected = "Parameter `logit_scale` should be 1 / tau, one number in a tensor, as CLIP's model.logit_scale.exp()."
    if not isinstance(logit_scale, Tensor) or logit_scale.numel() != 1:
        found = f"shape {tuple(logit_scale.shape)}" if isinstance(logit_scale, Tensor) else f"{logit_scale!r}"
        raise TypeError(f"{expected} Found {found}.")
    if isinstance(logit_scale, nn.Parameter):
        raise ValueError(f"{expected} Found a parameter itself, which in CLIP is the logarithm of it.")
    return 1 / logit_scale
