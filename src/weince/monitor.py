"""The monitor: what the gate does in a training that runs, from hooks on the losses themselves: no second forward.

Each library's callback (`adapters.lightning`, `adapters.transformers`) holds one and says when to look.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from weince.contest import Contest
from weince.gate import nearness_reference
from weince.output import LossOutput
from weince.setups import ContestLoss

__all__ = ["Monitor", "Seen", "statistics"]

SAMPLE = 1024
"""At most so many anchors for what needs pairs: positives, uniformity."""


@torch.no_grad()
def statistics(contest: Contest, output: LossOutput, quantile: float) -> dict[str, Tensor]:
    """Scalars of one contest.

        alignment  = mean over positive pairs of  |u - v|^2  =  2 - 2 s
        uniformity = log mean over pairs of anchors of  exp(-2 |u - v|^2)

    Args:
        contest: who competes.
        output: of its loss.
        quantile: of the nearness reference rho_0.

    Returns:
        loss, weight (mean), share of anchors with weight above one half, share of anchors whose hardest negative beats
        every positive, slope (mean over valid fits), share of valid fits, nearness and hardest-negative similarity
        (means), rho_0, positive similarity, alignment and uniformity. Without a fit what it measures is left out.

    Source: arXiv:2005.10242 (alignment and uniformity).
    """
    few = contest.of(slice(0, SAMPLE))
    roles, similarity = few.roles(), few.similarity()
    counts = roles.positive_count()
    positive = roles.positives(similarity, 0.0).sum() / counts.sum().clamp_min(1)
    beaten = roles.best_positive(similarity) < roles.only_negatives(similarity, float("-inf")).amax(dim=1)
    anchors = few.anchors
    distances = torch.pdist(anchors).square() if len(anchors) > 1 else anchors.new_zeros(1)
    found = {
        "loss": (output.per_anchor * output.counted).sum() / output.counted.sum().clamp_min(1),
        "weight": output.weight.mean(),
        "weight_above_half": (output.weight > 0.5).float().mean(),
        "beaten": (beaten & (counts.squeeze(1) > 0)).sum() / (counts > 0).sum().clamp_min(1),
        "positive_similarity": positive,
        "alignment": 2 - 2 * positive,
        "uniformity": torch.logsumexp(-2 * distances, dim=0) - torch.log(torch.tensor(float(len(distances)))),
    }
    if output.tail is not None:
        valid = output.tail.valid
        found |= {
            "slope": torch.where(valid, output.tail.slope, 0.0).sum() / valid.sum().clamp_min(1),
            "valid": valid.float().mean(),
            "nearness": output.tail.nearness.mean(),
            "hardest_negative_similarity": 1 - output.tail.nearness.mean(),
            "rho_0": nearness_reference(output.tail.nearness, quantile),
        }
    return {name: value.detach() for name, value in found.items()}


class Seen(NamedTuple):
    """One run of a loss: under which name it is reported, and its output and statistics."""

    path: str
    output: LossOutput
    statistics: dict[str, Tensor]


class _Run(NamedTuple):
    name: str
    contest: Contest
    output: LossOutput
    quantile: float


class Monitor:
    """Looks at every weince loss in some modules, whenever `due`.

    Args:
        prefix: of the names.

    Attributes:
        due: whether the next runs are kept.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.due = False
        self._handles: list[RemovableHandle] = []
        self._runs: list[_Run] = []

    def attach(self, modules: Iterable[nn.Module]) -> int:
        """Hooks every loss in them, each once; returns how many. Hooks of an earlier training are taken away first."""
        self.detach()
        losses: dict[ContestLoss, str] = {}
        for module in modules:
            for name, part in module.named_modules():
                if isinstance(part, ContestLoss):
                    losses.setdefault(part, name.removesuffix("inner").removesuffix(".") or "loss")
        for loss, name in losses.items():
            self._handles.append(loss.register_forward_hook(self._hook(name)))
        return len(losses)

    def detach(self) -> None:
        """Takes the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._runs.clear()
        self.due = False

    def forget(self) -> None:
        """What was seen, if anything."""
        self._runs.clear()

    def seen(self) -> list[Seen]:
        """Every run since `forget`, under `PREFIX`, or `PREFIX/LOSS.RUN` where there are several."""
        found = []
        for place, run in enumerate(self._runs):
            earlier = sum(other.name == run.name for other in self._runs[:place])
            path = self.prefix if len(self._runs) == 1 else f"{self.prefix}/{run.name}.{earlier}"
            found.append(Seen(path, run.output, statistics(run.contest, run.output, run.quantile)))
        return found

    def _hook(self, name: str):
        def see(module: ContestLoss, arguments: tuple[Contest], output: LossOutput) -> None:
            if self.due:
                contest = arguments[0]
                parts = {part: getattr(contest, part) for part in ("anchors", "candidates", "own")}
                contest = contest._replace(**{part: z.detach() for part, z in parts.items() if z is not None})
                plain = output._replace(loss=output.loss.detach(), per_anchor=output.per_anchor.detach())
                directions = contest.directions()
                for direction, part in zip(directions, plain.parts(len(directions)), strict=True):
                    self._runs.append(_Run(name, direction, part, module.options.gate.quantile))

        return see
