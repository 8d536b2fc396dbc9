"""Where a loss is used: any loss of a contest becomes the loss of a setup."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from weince import ContestLoss, QueueLoss, RetrievalLoss, SupervisedLoss, TwoTowerLoss, WEINCELoss
from weince.checks import check_option
from weince.setups import SetupLoss

__all__ = ["ALL_SETUPS", "Setup", "in_setup", "setups_of"]

Setup = Literal["two-views", "two-towers", "labels", "queue", "retrieval"]
ALL_SETUPS: frozenset[Setup] = frozenset(get_args(Setup))


def setups_of(loss: type[nn.Module] | nn.Module) -> frozenset[Setup]:
    """The setups that a loss is defined for: all, unless it says otherwise."""
    return getattr(loss, "SETUPS", ALL_SETUPS)


def in_setup(inner: nn.Module, setup: Setup, queue: tuple[int, int] | None = None) -> nn.Module:
    """The module of a setup, with a loss of contests in the place of its own.

    Args:
        inner: the loss; one that takes two views itself, as `Released` does, is returned as it is.
        setup: where it is used.
        queue: rows and width of the queue, for "queue".

    Returns:
        `weince.WEINCELoss`, `TwoTowerLoss`, `SupervisedLoss`, `QueueLoss` or `RetrievalLoss`, with it as `.inner`.

    Raises:
        ValueError: a setup that there is not, or that the loss is not defined for.

    Examples:
        >>> import torch
        >>> from weince.lab.rivals import DCL
        >>> in_setup(DCL(0.1), "two-views")(torch.randn(6, 4), torch.randn(6, 4)).ndim
        0
    """
    check_option("setup", setup, get_args(Setup))
    if setup not in setups_of(inner):
        known = ", ".join(f'"{name}"' for name in get_args(Setup) if name in setups_of(inner))
        name = type(inner).__name__
        raise ValueError(f"Parameter `setup` should be one that {name} is defined for: {known}. Found {setup!r}.")
    if not isinstance(inner, ContestLoss):
        return inner
    module: SetupLoss
    if setup == "queue":
        if queue is None:
            raise ValueError('Parameter `queue` should be (rows, width) with the setup "queue". Found None.')
        module = QueueLoss(*queue)
    else:
        kinds = {"two-views": WEINCELoss, "two-towers": TwoTowerLoss, "labels": SupervisedLoss}
        module = kinds.get(setup, RetrievalLoss)()
    module.inner = inner
    return module
