"""The gather: rows and numbers of all processes of a group, in the order of their ranks. It knows no loss.

Rows carry gradient: what every process asks of a row is summed and goes back to the process that made it. Both
directions are operators of their own, so that a compiled graph holds them.

Before anything moves, the processes tell each other what they have, on the host: nobody waits for a process that has
refused, and no GPU is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["DisagreementError", "Processes", "default_processes", "rank", "world_size"]

T = TypeVar("T")
TOLD = 256
"""Bytes that a process tells the others."""


class DisagreementError(ValueError):
    """Processes that do not describe the same; raised on all of them."""


class Processes(NamedTuple):
    """The processes that share a batch.

    Attributes:
        gathers: whether they do.
        group: name of their group; "" is the default one.
        known: size of a named group and rank of this process in it. The default group may not be there yet.
    """

    gathers: bool
    group: str = ""
    known: tuple[int, int] | None = None

    @classmethod
    def of(cls, gathers: bool, group: Any = None) -> Processes:
        """Those of a group of `torch.distributed`, or of its name, or all where it is None.

        Raises:
            TypeError: no group.
            ValueError: this process is no member, or this PyTorch has no `torch.distributed`.
        """
        if (gathers or group is not None) and not dist.is_available():
            raise ValueError(
                "Parameter `gather_distributed` should be False: this PyTorch is built without torch.distributed. "
                f"Found {gathers}."
            )
        if group is None:
            return cls(gathers)
        if isinstance(group, str):
            return cls(gathers, group, _place(group))
        if group is dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError("Parameter `group` should be a group of this process. Found one that it is no member of.")
        if not isinstance(group, dist.ProcessGroup):
            raise TypeError(f"Parameter `group` should be a torch.distributed group. Found {type(group).__name__}.")
        return cls(gathers, group.group_name, _place(group.group_name))

    @property
    def size(self) -> int:
        """W, how many share the batch; 1 where they do not gather."""
        if not self.gathers:
            return 1
        return self.known[0] if self.known is not None else _place("")[0]

    @property
    def rank(self) -> int:
        """Of this process among them."""
        if not self.gathers:
            return 0
        return self.known[1] if self.known is not None else _place("")[1]

    def rows(self, z: Tensor) -> Tensor:
        """(N, ...) of every process -> (W N, ...) on each, in order of rank, with gradient.

        N is the same everywhere; `agree` sees to that. The gradient of row i is the sum of all processes' of it.
        """
        # A compiled graph has no other place to agree in.
        agree = torch.compiler.is_compiling()
        return z if self.size == 1 else torch.ops.weince.gather_rows(z, self.group, agree)

    @torch.no_grad()
    def values(self, values: Tensor) -> Tensor:
        """`rows` without gradient."""
        return self.rows(values.detach())

    @torch.no_grad()
    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes, without gradient."""
        value = value.detach()
        return value if self.size == 1 else torch.ops.weince.sum_over_processes(value, self.group)

    def agree(self, description: str, what: str) -> None:
        """Refuse, on every process, when they do not all describe the same.

        A process that goes on alone would leave the others waiting for ever; so every process tells all, and all
        refuse. Left out of a compiled graph, whose gathers agree on their own.

        Args:
            description: of this process: a shape, or what it refused. It is cut at 256 bytes.
            what: that should be the same, for the message.

        Raises:
            DisagreementError: on all processes, with every description.
        """
        if self.size > 1 and not torch.compiler.is_compiling():
            _agree(self.group, description, what)

    def together(self, make: Callable[[], T]) -> T:
        """What `make` returns; what it refuses is told to the others, which wait in `agree`, and so refused by all."""
        if torch.compiler.is_compiling() or self.size == 1:
            return make()
        try:
            return make()
        except DisagreementError:
            raise
        except Exception as error:
            self.agree(f"refused: {error}", "the batch")
            raise


def default_processes() -> Processes:
    """All processes of the default group; this one where there is none."""
    return Processes(dist.is_available())


def world_size() -> int:
    """Processes of the default group; 1 where there is none."""
    return default_processes().size


def rank() -> int:
    """Of this process in the default group; 0 where there is none."""
    return default_processes().rank


def _place(group: str) -> tuple[int, int]:
    """Size of a group and rank of this process in it."""
    if not dist.is_available() or not dist.is_initialized():
        return 1, 0
    found = _resolved(group)
    return dist.get_world_size(found), dist.get_rank(found)


def _resolved(group: str) -> Any:
    if not group:  # the default one
        return None
    from torch._C._distributed_c10d import _resolve_process_group

    return _resolve_process_group(group)  # pyright: ignore


@lru_cache(maxsize=16)
def _on_host(group: str, of: Any) -> Any:
    """A group of the same processes that moves tensors of the host; `of` is the default group that it belongs to."""
    found = _resolved(group)
    if "cpu" in str(dist.get_backend_config(found)):
        return found
    ranks = dist.get_process_group_ranks(found)
    return dist.new_group(ranks, backend="gloo", use_local_synchronization=bool(group))


def _agree(group: str, description: str, what: str) -> None:
    said = description.encode()[:TOLD]
    own = torch.zeros(TOLD, dtype=torch.uint8)
    own[: len(said)] = torch.frombuffer(bytearray(said), dtype=torch.uint8)
    everyone = own.new_empty(_place(group)[0], TOLD)
    dist.all_gather(list(everyone), own, group=_on_host(group, dist.GroupMember.WORLD))
    if (everyone == own).all():
        return
    said_by_all = [bytes(row.tolist()).rstrip(b"\0").decode(errors="replace") for row in everyone]
    found = "; ".join(f"process {place}: {text}" for place, text in enumerate(said_by_all))
    raise DisagreementError(f"With `gather_distributed`, {what} should be the same on every process. Found {found}.")


def _gather_rows(z: Tensor, group: str, agree: bool) -> Tensor:
    size, _ = _place(group)
    if agree:
        _agree(group, f"{tuple(z.shape)} rows, {z.dtype}", "the batch")
    parts = z.new_empty(size * z.shape[0], *z.shape[1:])
    dist.all_gather(list(parts.chunk(size)), z.contiguous(), group=_resolved(group))
    return parts


def _own_rows_of_sum(gradient: Tensor, group: str) -> Tensor:
    size, rank = _place(group)
    summed = gradient.contiguous().clone()
    dist.all_reduce(summed, group=_resolved(group))
    return summed.chunk(size)[rank].clone()


def _sum(value: Tensor, group: str) -> Tensor:
    summed = value.clone()
    dist.all_reduce(summed, group=_resolved(group))
    return summed


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.group = inputs[1]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return torch.ops.weince.own_rows_of_sum(gradient, ctx.group), None, None


_gather_op = torch.library.custom_op(
    "weince::gather_rows", _gather_rows, mutates_args=(), schema="(Tensor z, str group, bool agree) -> Tensor"
)
_gather_op.register_fake(lambda z, group, agree: z.new_empty(_place(group)[0] * z.shape[0], *z.shape[1:]))
_gather_op.register_autograd(_backward, setup_context=_remember)
torch.library.custom_op(
    "weince::own_rows_of_sum", _own_rows_of_sum, mutates_args=(), schema="(Tensor gradient, str group) -> Tensor"
).register_fake(lambda g, group: g.new_empty(g.shape[0] // _place(group)[0], *g.shape[1:]))
torch.library.custom_op(
    "weince::sum_over_processes", _sum, mutates_args=(), schema="(Tensor value, str group) -> Tensor"
).register_fake(lambda value, group: torch.empty_like(value))
