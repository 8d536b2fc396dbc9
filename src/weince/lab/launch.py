"""The processes of one training: those of torchrun or srun, or this one alone.

The batch of a recipe is the batch of all of them together: every process encodes its share, batch normalisation and the
loss take the statistics of the whole, and the first process alone judges and writes. So the same recipe gives the same
result, to rounding, on any number of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from weince.processes.gather import rank, world_size
from weince.shell.errors import UserError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

__all__ = ["Launched", "first_does", "join", "launched", "leave", "same_everywhere"]

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
    if not {"TORCHELASTIC_RUN_ID", "GROUP_RANK", "SLURM_NTASKS"} & set(os.environ):
        return None  # Lightning takes seconds to import
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

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
