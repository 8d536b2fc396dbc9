"""Losses with parameters: what a training loop gives its optimiser."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["parameter_groups"]


def parameter_groups(criterion: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """The parameters of a loss that have a learning rate of their own, without weight decay; [] for most losses.

    Args:
        criterion: a loss, or the module of a setup that holds one.
        learning_rate: of the encoder.

    Examples:
        >>> from weince.lab.rivals import SigLIP
        >>> (group,) = parameter_groups(SigLIP(learning_rate_multiple=10.0), learning_rate=0.5)
        >>> len(group["params"]), group["lr"]
        (2, 5.0)
    """
    found = []
    for module in criterion.modules():
        multiple = getattr(module, "learning_rate_multiple", None)
        if isinstance(multiple, (int, float)):
            parameters = list(module.parameters())
            found.append({"params": parameters, "lr": multiple * learning_rate, "weight_decay": 0.0})
    return found
