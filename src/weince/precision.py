"""The precision that 1 - s needs: float32 or better, whatever autocast and PyTorch's matmul setting say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["full_precision", "full_products", "product", "transforms_at_work"]

_AS_IT_IS = nullcontext()
_REDUCED = ("tf32", "bf16")
# Since PyTorch 2.9 each kind of device has a setting; before, all have that of set_float32_matmul_precision, which now
# writes these too. It cannot always be read once these were written; these always can, and products follow them alone.
_setting: Any = getattr(torch._C, "_get_fp32_precision_getter", None)
_set: Any = getattr(torch._C, "_set_fp32_precision_setter", None)


def full_precision(device: str) -> AbstractContextManager[object]:
    """Autocast off on a kind of device, where there is one: 1 - s cancels in half precision."""
    if not _has_autocast(device):  # of shapes alone, "meta"
        return nullcontext()
    return torch.autocast(device_type=device, enabled=False)


def _has_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device)


def full_products(device: str, full: bool = True) -> AbstractContextManager[object]:
    """Matrix products of float32 on a kind of device neither in TF32 nor in bfloat16, whatever PyTorch's setting.

    The setting is the process's; afterwards it is what it was. Not for what a compiler traces: see `product`.

    Args:
        device: the kind.
        full: whether this is wanted; nothing happens otherwise.
    """
    if not full:
        return _AS_IT_IS
    if _setting is None:
        return _AS_IT_IS if torch.get_float32_matmul_precision() == "highest" else _highest()
    backend = "cuda" if device == "cuda" else "mkldnn"  # oneDNN, of CPUs and Intel's GPUs
    return _in_full(backend) if _setting(backend, "matmul") in _REDUCED else _AS_IT_IS


@contextmanager
def _highest() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _in_full(backend: str) -> Iterator[None]:
    before = "none" if _inherits(backend) else _setting(backend, "matmul")
    _set(backend, "matmul", "ieee")
    try:
        yield
    finally:
        _set(backend, "matmul", before)


def _inherits(backend: str) -> bool:
    """Whether the setting of a backend's products is that of all its operations, or of all backends.

    An inherited one reads like one of its own. What it may come from is changed for a moment, to see whether it moves.
    """
    own = _setting(backend, "matmul")
    if _setting("generic", "all") == own:
        _set("generic", "all", "ieee")
        moved = [_setting(backend, operation) != own for operation in ("matmul", "all")]
        _set("generic", "all", own)
        if any(moved):
            return moved[0]
    if _setting(backend, "all") != own:
        return False
    _set(backend, "all", "ieee")
    moves = _setting(backend, "matmul") != own
    _set(backend, "all", own)
    return moves


def product(a: Tensor, b: Tensor, full: bool = True) -> Tensor:
    """a @ b of matrices, or of as many pairs of them, with gradient; the gradient's products follow PyTorch's setting.

    Args:
        a: (.., m, k).
        b: (.., k, n).
        full: whether float32 stays float32 (`full_products`). Within torch.compile, PyTorch's setting holds all the
            same under torch.func and in forward mode.
    """
    if not torch.compiler.is_compiling():
        with full_products(a.device.type, full):
            return a @ b
    # A graph has no settings within, but an operator may change them. It has no transforms.
    return _product(a, b) if full and not transforms_at_work() else a @ b


def transforms_at_work() -> bool:
    """Whether torch.func or forward mode are at work."""
    of_func = torch._C._functorch.peek_interpreter_stack()  # pyright: ignore
    return of_func is not None or forward_ad._current_level >= 0


for _told_once in (_has_autocast, transforms_at_work):
    # Run, not traced: what torch.compiler.assume_constant_result does, which would import the whole compiler.
    _told_once._dynamo_marked_constant = True  # pyright: ignore


def _multiplied(a: Tensor, b: Tensor) -> Tensor:
    with full_products(a.device.type):
        return a @ b


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, of_product: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    return of_product @ b.mT if wanted[0] else None, a.mT @ of_product if wanted[1] else None


_product = torch.library.custom_op(
    "weince::product", _multiplied, mutates_args=(), schema="(Tensor a, Tensor b) -> Tensor"
)
_product.register_fake(torch.matmul)
_product.register_autograd(_backward, setup_context=_remember)
