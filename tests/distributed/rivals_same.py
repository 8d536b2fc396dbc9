"""Run by every process of a gloo group: each rival, gathered, against the concatenated batch in one process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from same_as_one import D, N, data, near, of_processes
from torch import Tensor

from weince import ContestLoss, Gate, ReleasedTopMLoss
from weince.lab.rivals import ENTRIES, Rivals, make_criterion
from weince.processes.gather import Processes

GATE = Gate(tail_min=6)
OWN = Rivals(neighbours=5)


def called(loss: str, setup: Any, x: dict[str, Tensor], world: int, here: int | None, gathers: bool) -> list[Tensor]:
    """Value, gradients of the embeddings, gradients of the loss's parameters."""
    criterion = make_criterion(loss, 0.2, GATE, OWN, setup, queue=(40, D)).double()
    if not gathers:
        _alone(criterion)
    a, b = (x[name].clone().requires_grad_() for name in ("a", "b"))
    small = torch.zeros(N, N, dtype=torch.bool)
    small[3, 5] = small[4, 1] = small[0, 7] = True
    mask, weight = of_processes(world, here, small), {"sample_weight": x["weight"]}
    if loss == "weince-released":
        value = criterion(a, b)
    elif setup == "two-views":
        value = criterion(a, b, ids=x["id"], ignored=torch.cat([torch.cat([mask, mask.T], 1)] * 2), **weight)
    elif setup == "labels":
        value = criterion(a, x["label"], ignored=mask, **weight) + 0 * b.sum()
    elif setup == "queue":
        criterion(b, a)
        value = criterion(a, b, ids=x["id"], **weight) + 0 * b.sum()
    elif setup == "retrieval":
        value = criterion(a, b, x["own"], ids=x["id"], negative_ids=x["negative_id"], **weight)
    else:
        value = criterion(a, b, ids=x["id"], ignored=mask, **weight)
    value.backward()
    assert a.grad is not None
    assert b.grad is not None
    return [value.detach(), a.grad, b.grad, *(p.grad for p in criterion.parameters() if p.grad is not None)]


def _alone(criterion: torch.nn.Module) -> None:
    """The same loss on one process."""
    for module in criterion.modules():
        if isinstance(module, ContestLoss):
            module.options = replace(module.options, gather_distributed=False)
        elif isinstance(module, ReleasedTopMLoss):
            module.processes = Processes(False)


def same(rank: int, world: int) -> None:
    """Of every loss, in every setup that it has."""
    x = data(world, torch.float64)
    mine = slice(rank * N, (rank + 1) * N)
    own = {key: value if key == "shared" else value[mine] for key, value in x.items()}
    for loss, entry in ENTRIES.items():
        for setup in sorted(entry.setups):
            what = f"{loss}, {setup}, {world} processes"
            value, of_a, of_b, *rest = called(loss, setup, x, world, None, gathers=False)
            found, own_a, own_b, *own_rest = called(loss, setup, own, world, rank, gathers=True)
            near(found, value, 1e-11, what)
            for part, whole in ((own_a, of_a), (own_b, of_b)):
                # Averaged over processes, as DistributedDataParallel does with the gradients of parameters.
                near(part / world, whole[mine], 1e-11, what + ", gradient", scale=whole)
            assert len(own_rest) == len(rest)
            for part, whole in zip(own_rest, rest, strict=True):
                torch.distributed.all_reduce(part)
                near(part / world, whole, 1e-11, what + ", parameter")
    print(f"{len(ENTRIES)} losses agree")
