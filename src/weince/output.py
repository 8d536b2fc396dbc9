"""What a loss is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from weince.tail import TailFit

__all__ = ["LossOutput", "mean_of"]


class LossOutput(NamedTuple):
    """The whole output of a loss.

    Attributes:
        loss: scalar, or one for each anchor with reduction "none"; carries gradient.
        per_anchor: (A,), in the order of the setup's anchors, in nats; carries gradient.
        weight: lambda, (A,); no gradient.
        slope: beta as it was used, (A,); no gradient.
        tail: the fits, or None where weight and slope are fixed numbers and no fit is made.
        counted: bool (A,), whether the anchor has a positive. One without has loss 0 and is left out of the mean.
    """

    loss: Tensor
    per_anchor: Tensor
    weight: Tensor
    slope: Tensor
    tail: TailFit | None
    counted: Tensor

    @property
    def skipped(self) -> Tensor:
        """How many anchors have no positive, scalar."""
        return (~self.counted).sum()

    def parts(self, ways: int) -> list[LossOutput]:
        """Of a contest that went both ways, the output of each direction; all with the one loss."""
        if ways == 1:
            return [self]
        *each, counted = (part.chunk(ways) for part in (self.per_anchor, self.weight, self.slope, self.counted))
        fits: list[TailFit | None] = [None] * ways
        if self.tail is not None:
            fits = [TailFit(*part) for part in zip(*(value.chunk(ways) for value in self.tail), strict=True)]
        return [LossOutput(self.loss, *of_way) for of_way in zip(*each, fits, counted, strict=True)]


def mean_of(outputs: Sequence[LossOutput]) -> LossOutput:
    """The mean loss of several contests over the same examples, and the anchors of all, one contest after the other."""
    if len(outputs) == 1:
        return outputs[0]
    loss = sum(output.loss for output in outputs[1:]) + outputs[0].loss
    tails = [output.tail for output in outputs if output.tail is not None]
    return LossOutput(
        loss=loss / len(outputs),
        per_anchor=torch.cat([output.per_anchor for output in outputs]),
        weight=torch.cat([output.weight for output in outputs]),
        slope=torch.cat([output.slope for output in outputs]),
        tail=TailFit(*(torch.cat(parts) for parts in zip(*tails, strict=True))) if tails else None,
        counted=torch.cat([output.counted for output in outputs]),
    )
