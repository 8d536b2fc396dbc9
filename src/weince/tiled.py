"""The tiles: the loss of `formula.py` and its gradient, row tile by row tile, never an (A, M) tensor.

Two sweeps over the anchors. The first fits tails; the gate then sees all of them. The second forms similarities again,
and with them losses and gradient at once, so that backward is a scaling.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from weince.candidates import Candidates
from weince.formula import blended_logits, logit_slope
from weince.tail import TailFit, fit_tail, largest, tail_size

__all__ = ["Settings", "tile_rows", "tiled_loss", "tiled_tail"]

TILE_ELEMENTS = {"cpu": 2**20, "cuda": 2**25}
"""Of one tile, by kind of device: on a CPU 4 MiB in float32, so that a dozen passes stay in the cache; on a GPU enough
to fill it."""


def tile_rows(candidates: int, device: str) -> int:
    """Anchors a tile, for so many candidates."""
    return max(16, TILE_ELEMENTS.get(device, TILE_ELEMENTS["cpu"]) // candidates)


@torch.no_grad()
def tiled_tail(contest: Candidates, fraction: float, minimum: int, eps: float) -> TailFit:
    """Tail fits of all anchors in O(tile) memory: `fit_tail` on the hardest negatives of one tile after another.

    Args:
        contest: who competes.
        fraction, minimum: of the tail, as in `tail_size`.
        eps: floor of the shortfall.
    """
    size = tail_size(contest.negatives, fraction, minimum)
    count = contest.anchors.shape[0]
    # Written in place: small results kept of every tile would lie between freed tiles and hold on to their memory.
    fits = TailFit(*(contest.anchors.new_empty(count) for _ in range(4)), valid=contest.itself.new_empty(count).bool())
    for rows, tile in _tiles(contest):
        found = fit_tail(largest(_only_negatives(tile.similarity(), tile), size), eps)
        for whole, part in zip(fits, found, strict=True):
            whole[rows] = part
    return fits


class Settings(NamedTuple):
    """What the formula takes beside similarities: weight and slope are (A,) or one number for all."""

    weight: Tensor | float
    slope: Tensor | float
    temperature: float
    eps: float

    def of(self, rows: slice) -> Settings:
        """Those of some anchors."""
        weight, slope = (v[rows] if isinstance(v, Tensor) else v for v in (self.weight, self.slope))
        return self._replace(weight=weight, slope=slope)


def tiled_loss(contest: Candidates, settings: Settings, scale: float) -> tuple[Tensor, Tensor]:
    """Sum of the anchors' losses times `scale`, and the losses themselves (A,).

    The gradient of the sum is formed on the way, so that its backward is a scaling. A gradient that reaches the losses
    themselves forms it anew.

    Args:
        contest: who competes.
        settings: of the formula.
        scale: of the sum.

    Raises:
        RuntimeError: on a second differentiation; the dense implementation has one.
    """
    shared = contest.candidates is contest.anchors
    return _Tiles.apply(contest.anchors, None if shared else contest.candidates, contest, settings, scale)  # pyright: ignore


def _tiles(contest: Candidates) -> list[tuple[slice, Candidates]]:
    """Rows, and the contest of those anchors alone."""
    step = tile_rows(contest.candidates.shape[0], contest.anchors.device.type)
    slices = [slice(start, start + step) for start in range(0, contest.anchors.shape[0], step)]
    return [(rows, contest.of(rows)) for rows in slices]


def _only_negatives(values: Tensor, tile: Candidates) -> Tensor:
    values.scatter_(1, tile.positive.unsqueeze(1), float("-inf"))
    return values.scatter_(1, tile.itself.unsqueeze(1), float("-inf"))


class _Tiles(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor | None, contest: Candidates, settings: Settings, scale: float
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad[:2])
        per_anchor, ctx.gradient = _sweep(
            contest, settings, anchors.new_full((len(anchors),), scale) if wanted else None
        )
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(anchors, candidates)
        ctx.contest, ctx.settings, ctx.scale = contest, settings, scale
        return per_anchor.sum() * scale, per_anchor

    @staticmethod
    def backward(ctx: Any, of_sum: Tensor | None, of_each: Tensor | None) -> tuple[Any, ...]:  # pyright: ignore
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The tiled loss cannot be differentiated twice (create_graph=True). "
                'Give implementation="dense", which can.'
            )
        if of_sum is None and of_each is None:
            return (None,) * 5
        gradient = ctx.gradient
        if of_each is not None:
            anchors, candidates = ctx.saved_tensors
            contest = ctx.contest._replace(anchors=anchors, candidates=anchors if candidates is None else candidates)
            factor = of_each if of_sum is None else of_each + ctx.scale * of_sum
            gradient, of_sum = _sweep(contest, ctx.settings, factor)[1], None
        scaled = (part if part is None or of_sum is None else part * of_sum for part in gradient)
        return *scaled, None, None, None


def _sweep(
    contest: Candidates, settings: Settings, factor: Tensor | None
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """Losses (A,), and with `factor` (A,) the gradient of sum_i factor_i loss_i for anchors and candidates.

    With q_i the probability that the positive loses,

        d loss_i / d logit_ij = q_i * (softmax over N(i))_j  for a negative,   -q_i  for the positive

    Anchors that are the candidates too have one gradient, in the first place.
    """
    shared = contest.candidates is contest.anchors
    of_anchors = torch.zeros_like(contest.anchors) if factor is not None else None
    of_candidates = of_anchors if shared or factor is None else torch.zeros_like(contest.candidates)
    losses = torch.empty_like(contest.anchors[:, 0])
    for rows, tile in _tiles(contest):
        here = settings.of(rows)
        positive = tile.positive.unsqueeze(1)
        similarity = tile.similarity()
        logits = blended_logits(similarity, *here)
        won = logits.gather(1, positive)
        _only_negatives(logits, tile)
        top = logits.amax(dim=1, keepdim=True)
        share = logits.sub_(top).exp_()
        total = share.sum(dim=1, keepdim=True)
        log_odds = won - (top + total.log())
        losses[rows] = -nn.functional.logsigmoid(log_odds).squeeze(1)
        if factor is None or of_anchors is None or of_candidates is None:
            continue
        pull = torch.sigmoid(-log_odds) * factor[rows].unsqueeze(1)
        of_logits = share.mul_(pull / total).scatter_(1, positive, -pull)
        of_similarity = of_logits.mul_(logit_slope(similarity, *here))
        of_anchors[rows] += of_similarity @ tile.candidates
        of_candidates.addmm_(of_similarity.T, tile.anchors)
    return losses, (of_anchors, None if shared else of_candidates)
