"""A temperature that is learnt with the encoder."""

from __future__ import annotations

from weince import INFONCE, ContestLoss, LearnableTemperature
from weince.checks import check_number

__all__ = ["LearntTemperature"]


class LearntTemperature(ContestLoss):
    """InfoNCE whose temperature is learnt, its logarithm the parameter, kept within CLIP's bounds.

        logit_ij = exp(t) s_ij,     t learnt, 1 <= exp(t) <= 100

    With a learning rate of 0 it is InfoNCE at `start`. Defined for every setup. A start beyond the bounds widens them.

    Args:
        start: tau = exp(-t) before training, > 0.
        learning_rate_multiple: of the encoder's learning rate, for t (`parameter_groups`), >= 0.

    Source: arXiv:2103.00020 (CLIP), section 2.5.
    """

    def __init__(self, start: float = 0.07, learning_rate_multiple: float = 1.0) -> None:
        start = check_number("start", start, "finite and > 0", lambda v: v > 0)
        learnt = LearnableTemperature(start, (min(0.01, start), max(1.0, start)))
        super().__init__(learnt, INFONCE, gather_distributed=True)
        self.learning_rate_multiple = check_number(
            "learning_rate_multiple", learning_rate_multiple, "finite and >= 0", lambda v: v >= 0
        )
