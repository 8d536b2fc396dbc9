"""How many kernels and products a step launches on a GPU, and that it never waits for one: counted without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import weince.checks
import weince.key_queue
import weince.tail
import weince.temperature
from weince import (
    CAUTIOUS,
    ENDPOINT,
    INFONCE,
    PAPER,
    WEIBIT,
    Gate,
    LearnableTemperature,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
)
from weince.tiles import rows

GATES = {"paper": PAPER, "endpoint": ENDPOINT, "cautious": CAUTIOUS, "weibit": WEIBIT, "infonce": INFONCE}
MOST = {WEINCELoss: 25, TwoTowerLoss: 45}
ALLOCATIONS = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten.lift_fresh", "prim.")
READS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "equal", "allclose", "masked_select", "_unique2")
"""What a host waits for: numbers that it reads, and shapes that depend on them."""


class Launches(TorchDispatchMode):
    """Names of what a GPU would launch: operators but views and allocations, and kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        operation = name.split(".")[1]
        by_mask = operation.startswith("index") and any(index.dtype == torch.bool for index in _tensors(args[1:2]))
        if by_mask or operation in READS:
            raise AssertionError(f"the host waits for {name}")
        made = func(*args, **(kwargs or {}))
        if not func.is_view and not name.startswith(ALLOCATIONS):
            self.seen.append(name)
        devices = {value.device for value in (*_tensors(args), *_tensors([made]))}
        assert len(devices) < 2, f"{name} is of {devices}"
        return made

    def launch(self, name: str, programs: int, device: torch.device, *given: Any, **constants: Any) -> None:
        """In the place of `rows.launch`: results are whatever memory holds."""
        assert programs > 0
        for value in _tensors(given):
            assert value.device == device
        self.seen.append(name)


def _tensors(of: Any) -> Iterator[Tensor]:
    for value in of:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def seen_on_a_gpu(step: Callable[[], Any]) -> list[str]:
    """What a step launches. Numbers are unreadable, as a GPU's are: a CPU's are read on purpose, to be checked."""
    with Launches() as launches, ExitStack() as stack:
        stack.enter_context(patch.object(rows, "USED", True))
        stack.enter_context(patch.object(rows, "launch", launches.launch))
        for module in (weince.checks, weince.key_queue, weince.tail, weince.temperature):
            stack.enter_context(patch.object(module, "is_readable", lambda value: False))
        step()
    return launches.seen


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("setup", MOST)
def test_a_step_launches_few_kernels(setup: type[nn.Module], gate: str):
    """Forward and backward, 512 candidates."""
    criterion = setup(gate=GATES[gate])
    count = 256 if setup is WEINCELoss else 512
    z = [torch.randn(count, 128, requires_grad=True) for _ in range(2)]
    seen = seen_on_a_gpu(lambda: criterion(*z).backward())
    assert len(seen) <= MOST[setup], seen
    measured = gate != "infonce"
    assert seen.count("tails") == seen.count("weights") == measured
    assert seen.count("conclude") == 1
    assert seen.count("of_unit_rows") == seen.count("unit_rows") == (1 if setup is WEINCELoss else 2)
    assert all(value.grad is not None for value in z)


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    given: Callable[[], dict[str, Tensor]] = dict


def z(count: int = 9) -> Tensor:
    return torch.randn(count, 6).requires_grad_()


def temperature() -> Tensor:
    return nn.Parameter(torch.tensor(0.2))


def numbers(*shape: int) -> Tensor:
    return torch.randint(0, 4, shape)


CASES = {
    "two views": Case(WEINCELoss, lambda: (z(), z())),
    "a temperature that is a tensor": Case(lambda: WEINCELoss(temperature()), lambda: (z(), z())),
    "a temperature that learns": Case(lambda: TwoTowerLoss(LearnableTemperature()), lambda: (z(), z())),
    "aic": Case(lambda: WEINCELoss(gate=Gate(evidence="aic")), lambda: (z(), z())),
    "smoothed": Case(lambda: WEINCELoss(label_smoothing=0.1), lambda: (z(), z())),
    "decoupled": Case(lambda: WEINCELoss(gate=CAUTIOUS, decoupled=True), lambda: (z(), z())),
    "one by one": Case(lambda: TwoTowerLoss(reduction="none"), lambda: (z(), z())),
    "weights": Case(lambda: TwoTowerLoss(gate=ENDPOINT), lambda: (z(), z()), lambda: {"sample_weight": torch.rand(9)}),
    "ids": Case(TwoTowerLoss, lambda: (z(), z()), lambda: {"ids": numbers(9, 2)}),
    "ignored": Case(TwoTowerLoss, lambda: (z(), z()), lambda: {"ignored": torch.rand(9, 9) < 0.2}),
    "queue": Case(lambda: QueueLoss(20, 6), lambda: (z(), z().detach())),
    "labels": Case(lambda: SupervisedLoss(gate=CAUTIOUS), lambda: (z(), numbers(9))),
    "labels against others": Case(SupervisedLoss, lambda: (z(), numbers(9), z(7), numbers(7))),
    "positives by a mask": Case(SupervisedLoss, lambda: (z(), numbers(9, 9) == 0)),
    "retrieval": Case(RetrievalLoss, lambda: (z(), z(), z(4))),
    "retrieval, own negatives": Case(RetrievalLoss, lambda: (z(), z(), torch.randn(9, 2, 6).requires_grad_())),
    "maximum likelihood": Case(lambda: SupervisedLoss(gate=WEIBIT), lambda: (z(), numbers(9))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kept", [True, False])
def test_a_step_never_waits_for_the_device(name: str, kept: bool):
    """Several steps, so that a queue is full. What this cannot see is what a real device's own libraries do: allocate,
    compile at the first launch, and tune products."""
    case = CASES[name]
    criterion = case.make()
    steps = [(case.inputs(), case.given()) for _ in range(3)]

    def three() -> None:
        for inputs, given in steps:
            criterion(*inputs, **given).sum().backward()

    with patch.dict("weince.tiles.sweep.KEPT_ELEMENTS", {} if kept else {"cpu": 0}):
        seen = seen_on_a_gpu(three)
    assert "conclude" in seen


@pytest.mark.parametrize("name", CASES)
def test_forward_is_dispatched_on_a_device_of_shapes(name: str):
    """Where nothing can be read at all, and nothing comes from the CPU. Backward takes a real device's threads."""
    case = CASES[name]
    with FakeTensorMode(), torch.device("cuda"):
        criterion = case.make()
        inputs, given = case.inputs(), case.given()
        with Launches() as launches, patch.object(rows, "launch", launches.launch):
            loss = criterion(*inputs, **given)
    assert loss.device.type == "cuda"
    assert loss.shape == ((9,) if name == "one by one" else ())
    assert {"unit_rows", "tails", "conclude"} <= {*launches.seen}


def test_a_read_is_noticed():
    value = torch.ones(3)
    for read in (value.sum().item, lambda: bool(value[0]), value.nonzero, lambda: value[value > 0]):
        with pytest.raises(AssertionError, match="the host waits"), Launches():
            read()
