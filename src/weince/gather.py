"""The gather: rows and numbers of all processes, in the order of their ranks. It knows no loss.

Rows carry gradient: what every process asks of a row is summed and goes back to the process that made it. Both
directions are operators of their own, so that a compiled graph holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "DisagreementError",
    "agree",
    "gather_rows",
    "gather_values",
    "rank",
    "refusing_together",
    "sum_over_processes",
    "world_size",
]


class DisagreementError(ValueError):
    """Processes that do not describe the same; raised on all of them."""


def world_size() -> int:
    """Processes of the default group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Of this process; 0 where there is no group."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_rows(z: Tensor) -> Tensor:
    """(N, ...) of every process -> (W N, ...) on each, in order of rank, with gradient.

    N is the same everywhere; `agree` sees to that. The gradient of row i is the sum of all processes' gradients of it.
    """
    return z if world_size() == 1 else torch.ops.weince.gather_rows(z)


@torch.no_grad()
def gather_values(values: Tensor) -> Tensor:
    """`gather_rows` without gradient."""
    return gather_rows(values.detach())


@torch.no_grad()
def sum_over_processes(value: Tensor) -> Tensor:
    """The sum over all processes, without gradient."""
    return value.detach() if world_size() == 1 else torch.ops.weince.sum_over_processes(value.detach())


def agree(description: str, what: str) -> None:
    """Refuse, on every process, when they do not all describe the same.

    A process that goes on alone would leave the others waiting for ever; so every process tells all, and all refuse.

    Args:
        description: of this process: a shape, or what it refused. It is cut at 256 bytes.
        what: that should be the same, for the message.

    Raises:
        ValueError: on all processes, with every description.
    """
    if world_size() == 1 or torch.compiler.is_compiling():
        return
    said = description.encode()[:256]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    own = torch.zeros(256, dtype=torch.uint8)
    own[: len(said)] = torch.tensor(list(said), dtype=torch.uint8)
    everyone = gather_values(own.to(device)).view(-1, 256).cpu()
    if (everyone == everyone[0]).all():
        return
    said_by_all = [bytes(row.tolist()).rstrip(b"\0").decode(errors="replace") for row in everyone]
    found = "; ".join(f"process {place}: {text}" for place, text in enumerate(said_by_all))
    raise DisagreementError(f"With `gather_distributed`, {what} should be the same on every process. Found {found}.")


@contextmanager
def refusing_together(several: bool) -> Iterator[None]:
    """Tells the other processes, which wait in `agree`, when this one refuses what it was given.

    Args:
        several: whether they do.
    """
    try:
        yield
    except DisagreementError:
        raise
    except (TypeError, ValueError) as error:
        if several:
            agree(f"refused: {error}", "the batch")
        raise


def _gather_rows(z: Tensor) -> Tensor:
    parts = z.new_empty(dist.get_world_size() * z.shape[0], *z.shape[1:])
    dist.all_gather(list(parts.chunk(dist.get_world_size())), z.contiguous())
    return parts


def _own_rows_of_sum(gradient: Tensor) -> Tensor:
    summed = gradient.contiguous().clone()
    dist.all_reduce(summed)
    return summed.chunk(dist.get_world_size())[dist.get_rank()].clone()


def _sum(value: Tensor) -> Tensor:
    summed = value.clone()
    dist.all_reduce(summed)
    return summed


def _backward(ctx: Any, gradient: Tensor) -> Tensor:
    return torch.ops.weince.own_rows_of_sum(gradient)


_gather_op = torch.library.custom_op(
    "weince::gather_rows", _gather_rows, mutates_args=(), schema="(Tensor z) -> Tensor"
)
_gather_op.register_fake(lambda z: z.new_empty(dist.get_world_size() * z.shape[0], *z.shape[1:]))
_gather_op.register_autograd(_backward)
torch.library.custom_op(
    "weince::own_rows_of_sum", _own_rows_of_sum, mutates_args=(), schema="(Tensor gradient) -> Tensor"
).register_fake(lambda g: g.new_empty(g.shape[0] // dist.get_world_size(), *g.shape[1:]))
torch.library.custom_op(
    "weince::sum_over_processes", _sum, mutates_args=(), schema="(Tensor value) -> Tensor"
).register_fake(torch.empty_like)
