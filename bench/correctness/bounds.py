"""How far a loss may be off: an error, its bound, and the worst of many.

How far float32 may be off depends on the batch: 1 - s cancels, and gates are sharp. So an error is held against that of
the dense loss in float32 on the CPU, which the tests hold against plain loops: `FACTOR` times the worst of several
orders of summation (columns permuted, which changes nothing but rounding), and no less than `LEAST`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, isnan
from typing import NamedTuple

import torch
from torch import Tensor

FACTOR = 4.0
"""Errors of one size from another order of summation: the largest of a thousand entries is hardly ever four times
another's."""
LEAST = 32 * 2.0**-24
"""What sums and products of a batch round at the least, where the yardstick happened to be exact."""
EXACT = 1e-9
"""In float64, where the tests hold the dense loss against plain loops by as much."""
ORDERS = 3
TEMPERATURE = 0.2

Values = Mapping[str, Tensor]
"""By name, float64 on the CPU: loss, gradient of embeddings, of the temperature."""
LossOf = Callable[..., Tensor]
"""Of embeddings and the temperature."""


class Check(NamedTuple):
    """One row: an error that should not be larger than its bound.

    Attributes:
        name: of what is checked.
        error: relative to the largest entry.
        bound: of it.
        where: the batch in which it came nearest to the bound, or went beyond.
    """

    name: str
    error: float
    bound: float
    where: str = ""

    @property
    def passed(self) -> bool:
        """NaN does not."""
        return self.error <= self.bound

    @property
    def strain(self) -> float:
        """Share of the bound, or how many times it."""
        if isnan(self.error):
            return inf
        return self.error / self.bound if self.bound else (inf if self.error else 0.0)


class Work(NamedTuple):
    """Checks that are made at once, when there is time for them."""

    name: str
    checks: Callable[[], list[Check]]


def differentiate(loss_of: LossOf, leaves: Sequence[Tensor], device: str, dtype: torch.dtype) -> Values:
    """Loss and gradients, on a device, of embeddings in a dtype."""
    given = [leaf.to(device, dtype, copy=True).requires_grad_() for leaf in leaves]
    tau = torch.tensor(TEMPERATURE, device=device, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    loss = loss_of(*given, tau)
    return values(loss, torch.autograd.grad(loss, [*given, tau], allow_unused=True), given)


def values(loss: Tensor, gradients: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Values:
    """What a loss and its gradients are; a temperature without one has no entry."""
    *of_leaves, of_temperature = gradients
    whole = [torch.zeros_like(leaf) if part is None else part for part, leaf in zip(of_leaves, leaves, strict=True)]
    found = {"loss": loss.detach(), "gradient": torch.cat(whole)}
    if of_temperature is not None:
        found["temperature"] = of_temperature
    return {name: value.double().cpu() for name, value in found.items()}


def errors(found: Values, exact: Values) -> dict[str, float]:
    """Largest error of each value, relative to its largest entry."""
    worst_of = {}
    for name, value in found.items():
        size = float(exact[name].abs().max())
        worst_of[name] = float((value - exact[name]).abs().max()) / (size or 1.0)
    return worst_of


def orders(width: int) -> list[Tensor]:
    """Permutations of columns, the first none."""
    generator = torch.Generator().manual_seed(0)
    return [torch.arange(width), *(torch.randperm(width, generator=generator) for _ in range(ORDERS - 1))]


def yardstick(loss_of: LossOf, leaves: Sequence[Tensor]) -> tuple[Values, dict[str, float]]:
    """The exact values, and how far float32 may be off.

    Args:
        loss_of: the dense loss.
        leaves: embeddings that float32 holds.
    """
    exact = differentiate(loss_of, leaves, "cpu", torch.float64)
    bounds = dict.fromkeys(exact, LEAST)
    for order in orders(leaves[0].shape[1]):
        found = dict(differentiate(loss_of, [leaf[:, order] for leaf in leaves], "cpu", torch.float32))
        found["gradient"] = found["gradient"][:, order.argsort()]
        for name, error in errors(found, exact).items():
            bounds[name] = max(bounds[name], FACTOR * error)
    return exact, bounds


def compared(name: str, where: str, found: Values, exact: Values, bounds: Mapping[str, float]) -> list[Check]:
    """A check of each value."""
    return [Check(f"{name}: {part}", error, bounds[part], where) for part, error in errors(found, exact).items()]


def worst(checks: Iterable[Check]) -> list[Check]:
    """Of those of one name the one that came nearest to its bound."""
    found: dict[str, Check] = {}
    for check in checks:
        if check.name not in found or check.strain > found[check.name].strain:
            found[check.name] = check
    return list(found.values())
