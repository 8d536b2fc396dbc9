"""Unit rows: what every setup makes of embeddings first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weince.precision import transforms_at_work
from weince.tiles import rows

__all__ = ["unit_rows"]


def unit_rows(z: Tensor) -> Tensor:
    """Rows scaled to length 1, in float32 or better, whatever their scale.

        u = z / |z|,      0 for a zero row, whose gradient is zero too

    The row is divided by its largest entry first, so the squares neither overflow nor underflow. A row whose largest
    entry is below tiny / eps of the dtype (1e-31 in float32) counts as zero: its gradient, 1 / |z|, would overflow.

    Args:
        z: (N, D), floating point. Half precision is raised to float32.

    Returns:
        (N, D), float32 or float64. NaN in a row with NaN or infinity.

    Examples:
        >>> unit_rows(torch.tensor([[3e30, 4e30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    if torch.compiler.is_compiling() or transforms_at_work():
        return _unit(z)
    return _UnitRows.apply(z)


def _unit(z: Tensor) -> Tensor:
    """The readable form, which can be transformed and differentiated twice."""
    z = z.to(torch.promote_types(z.dtype, torch.float32))
    limits = torch.finfo(z.dtype)
    largest = z.detach().abs().amax(dim=1, keepdim=True)
    zero = largest < limits.tiny / limits.eps
    one = torch.ones_like(largest)
    scaled = torch.where(zero, torch.zeros_like(z), z) / torch.where(zero, one, largest)
    length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / torch.where(zero, one, length)


class _UnitRows(torch.autograd.Function):
    """The same in half as many steps: its gradient is (du - u (u . du)) / |z|."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        if rows.usable(z):
            units, inverse = rows.unit_rows(z)
            ctx.save_for_backward(z, units, inverse)
            return units
        given, z = z, z.to(torch.promote_types(z.dtype, torch.float32))
        limits = torch.finfo(z.dtype)
        largest = z.abs().amax(dim=1, keepdim=True)
        zero = largest < limits.tiny / limits.eps
        # Over infinity a zero row is zero, and so is its gradient.
        units = z / largest.masked_fill_(zero, float("inf"))
        length = torch.linalg.vector_norm(units, dim=1, keepdim=True).masked_fill_(zero, 1.0)
        ctx.save_for_backward(given, units.div_(length), largest.mul_(length).reciprocal_())
        return units

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        z, units, inverse = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return torch.autograd.grad(_unit(z), z, gradient, create_graph=True)[0]
        if rows.usable(z):
            return rows.of_unit_rows(gradient, units, inverse, z.dtype)
        along = torch.linalg.vecdot(units, gradient, dim=1).unsqueeze(1)
        return torch.addcmul(gradient, units, along, value=-1).mul_(inverse).to(z.dtype)
