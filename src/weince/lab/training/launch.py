"""The processes of one training: those of torchrun or srun, or this one alone.

The batch of a recipe is the batch of all of them together: every process encodes its share, batch normalisation and the
loss take the statistics of the whole, and the first process alone judges and writes. So the same recipe gives the same
result, to rounding, on any number of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn

from weince.processes.gather import default_processes, rank, world_size
from weince.shell.errors import UserError

__all__ = ["Launched", "first_does", "join", "launched", "leave", "same_everywhere", "synchronised"]

Answer = TypeVar("Answer")
PATIENCE = timedelta(days=1)
"""How long a process waits for another: judging features on the first one can take an hour."""


class Launched(NamedTuple):
    """How many processes a launcher started, and which of them this is."""

    environment: ClusterEnvironment
    rank: int
    size: int
    place: int
    """On this machine."""
    on_machine: int
    """Processes on this machine."""


def launched() -> Launched | None:
    """What torchrun or srun says; None where this process is alone."""
    if TorchElasticEnvironment.detect():
        environment, on_machine = TorchElasticEnvironment(), int(os.environ["LOCAL_WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        environment = SLURMEnvironment(auto_requeue=False)
        on_machine = environment.world_size() // int(os.environ.get("SLURM_NNODES", "1"))
    else:
        return None
    if environment.world_size() == 1:
        return None
    return Launched(
        environment, environment.global_rank(), environment.world_size(), environment.local_rank(), on_machine
    )


def join(gpus: bool) -> None:
    """Meet the other processes, if there are any. Words and verdicts travel by gloo, gradients by NCCL on GPUs.

    Args:
        gpus: whether training is on CUDA.
    """
    those = launched()
    if those is None or dist.is_initialized():
        return
    if gpus:
        torch.cuda.set_device(those.place)
    os.environ.setdefault("MASTER_ADDR", those.environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(those.environment.main_port))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", rank=those.rank, world_size=those.size,
                            timeout=PATIENCE)  # fmt: skip


def leave() -> None:
    """Part from the other processes."""
    if world_size() > 1:
        dist.destroy_process_group()


def first_does(work: Callable[[], Answer]) -> Answer:
    """Have the first process do something, and every process its answer.

    Raises:
        UserError, OSError: on every process, what it raised on the first.
    """
    if world_size() == 1:
        return work()
    said: list[Any] = [None, None]
    if rank() == 0:
        try:
            said[0] = work()
        except (UserError, OSError) as error:
            said[1] = error
        except BaseException as error:  # the others are told before it ends this process
            said[1] = UserError(f"The first process stopped: {type(error).__name__}: {error}")
            _tell(said)
            raise
    _tell(said)
    if said[1] is not None:
        raise said[1]
    return said[0]


def same_everywhere(work: Callable[[], Answer]) -> Answer:
    """Do something on every process, and refuse on all what one refuses.

    Raises:
        UserError: on every process, what the first to refuse raised.
    """
    if world_size() == 1:
        return work()
    answer, refusal = None, None
    try:
        answer = work()
    except (UserError, OSError) as error:
        refusal = error
    refusals: list[Any] = [None] * world_size()
    dist.all_gather_object(refusals, refusal)
    for other in refusals:
        if other is not None:
            raise other
    return answer  # pyright: ignore[reportReturnType]


def _tell(said: list[Any]) -> None:
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))


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
