"""Batch normalisation over the whole batch, whatever number of processes share it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from weince.processes.gather import default_processes, world_size

__all__ = ["synchronised"]


def synchronised(model: nn.Module, gpus: bool) -> nn.Module:
    """The model with batch normalisation over the whole batch: PyTorch's on GPUs, ours on a CPU, where it has none."""
    if world_size() == 1:
        return model
    if gpus:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _WholeBatchNorm2d  # keeps parameters, buffers and their names
    return model


class _WholeBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation whose mean and variance, while training, are those of all processes' rows together."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        count = world_size() * input.numel() / input.shape[1]
        mean = _Sum.apply(input.sum((0, 2, 3))) / count
        centred = input - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class _Sum(torch.autograd.Function):
    """A sum over processes. Every process's loss takes every process's rows, so the gradient is a sum over them too."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return default_processes().sum(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return default_processes().sum(gradient)
