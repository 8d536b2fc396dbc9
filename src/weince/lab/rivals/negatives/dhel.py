"""DHEL: the negatives are rows of the anchor's own view."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from weince.contest import Contest
from weince.lab.rivals.rival import Rival, Rows
from weince.lab.rivals.setups import Setup
from weince.processes.shared import gathered

__all__ = ["DHEL"]


class DHEL(Rival):
    """DCL whose negatives are the other anchors of the same view: alignment across views, uniformity within each.

        loss_i = -s_i+ / tau  +  log sum_{j != i, of i's view} exp(s_ij / tau)

    Defined for two views, each of them an anchor, and for two towers, where the negatives of a row of a are the other
    rows of a; an ignored pair (i, j) and equal ids are then of rows i and j of one tower. Where both towers give the
    same rows it is `DCL`; so it is, less log 2, where both views do.

    Args:
        temperature: tau, > 0.

    Source: arXiv:2405.18045.
    """

    SETUPS: ClassVar[frozenset[Setup]] = frozenset({"two-views", "two-towers"})

    def per_anchor(self, rows: Rows) -> Tensor:
        won = rows.won(rows.similarity / rows.temperature).mean
        if rows.own.shared and rows.own.itself is not None:
            views = len(rows.own.anchors) // 2
            row = torch.arange(len(rows.own.anchors), device=won.device)
            column = torch.arange(rows.contest.columns, device=won.device)
            # Candidates of several processes lie one process after the other, each all of its view a, then of b.
            other_view = (row // views).unsqueeze(1) != column % (2 * views) // views
            within = rows.roles.only_negatives(rows.similarity / rows.temperature, rows.nowhere)
            within = within.masked_fill(other_view, rows.nowhere)
        else:
            within = self._own_tower(rows)
        some = (within > rows.nowhere).any(dim=1)
        return torch.where(some, torch.logsumexp(within, dim=1) - won, 0.0)

    def _own_tower(self, rows: Rows) -> Tensor:
        """Logits of the anchors among themselves, (A, A of all processes), the dtype's lowest number for none."""
        own, place = rows.own, torch.arange(len(rows.own.anchors), device=rows.similarity.device)
        contest: Contest = own._replace(
            candidates=own.anchors, candidate_ids=own.anchor_ids, positive=place, itself=place
        )
        contest = gathered(contest, self.options.processes)
        return contest.roles().only_negatives(contest.similarity() / rows.temperature, rows.nowhere)
