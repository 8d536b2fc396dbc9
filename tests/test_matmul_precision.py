"""PyTorch's matmul setting: similarities stay in full float32, the gradient's products follow it, and it stays put."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import weince.tiles.sweep
from batches import clusters
from contests import CASES, GATES, D
from weince import Options, ReleasedTopMLoss, WEINCELoss, contest_output, precision
from weince.tiles import operators

NEW = hasattr(torch._C, "_get_fp32_precision_getter")  # the settings of PyTorch 2.9
LEVELS = [("generic", "all"), *((backend, op) for backend in ("cuda", "mkldnn") for op in ("all", "matmul"))]
PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_", "dot", "mv", "addmv"}
INNER = {"product": precision._multiplied, "tiles": operators._tiles, "tails": operators._tails}
SETUPS = ["two views", "two towers", "queue", "labels", "in-batch, own negatives", "own negatives alone"]

new = pytest.mark.skipif(not NEW, reason="before PyTorch 2.9 there is one setting")
compiled = pytest.param("compiled", marks=pytest.mark.skipif(not NEW, reason="compilation is for later ones"))
setups = pytest.mark.parametrize("name", SETUPS)


def write(*level_and_value: str) -> None:
    torch._C._set_fp32_precision_setter(*level_and_value)


@pytest.fixture(autouse=True)
def one_setting() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    for level in LEVELS if NEW else ():
        write(*level, "none")


@pytest.fixture(autouse=True)
def several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weince.tiles.sweep.TILE_ELEMENTS, "cpu", 1)
    monkeypatch.setattr(weince.tiles.sweep, "TILE_ROWS", 6)  # none of D rows


def reduces() -> bool:
    """Whether PyTorch may round what it multiplies on a CPU."""
    if NEW:
        return torch.backends.mkldnn.matmul.fp32_precision in ("tf32", "bf16")
    return torch.get_float32_matmul_precision() != "highest"


class Rounding(TorchDispatchMode):
    """A machine whose products are in bfloat16 where PyTorch's setting admits it, as few CPUs' are. It keeps account.

    Attributes:
        similarities, gradients: whether each product rounded. Embeddings are D wide, and so is all that has a gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.similarities: list[bool] = []
        self.gradients: list[bool] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        space, name = function._schema.name.split("::")
        if space == "weince":
            with self:
                return INNER[name.split("_")[0]](*args, **(kwargs or {}))
        with self:  # operations that are made of others, such as einsum
            found = function.decompose(*args, **(kwargs or {}))
        if found is not NotImplemented:
            return found
        rounds = name in PRODUCTS and reduces()
        if rounds:
            kept = 1 if "add" in name else 0
            args = (*args[:kept], *(self.rounded(one) for one in args[kept:]))
        found = function(*args, **(kwargs or {}))
        if name in PRODUCTS and found.dtype == torch.float32:
            (self.gradients if D in found.shape else self.similarities).append(rounds)
        return found

    @staticmethod
    def rounded(one: Any) -> Any:
        return one.bfloat16().float() if isinstance(one, Tensor) and one.dtype == torch.float32 else one

    def compile(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`torch.compile`, with what runs in the end on this machine."""
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        def runs(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            def run(*args: Any) -> Any:
                with self:
                    return graph(*args)

            return make_boxed_func(run)

        torch.compiler.reset()
        backend = aot_autograd(fw_compiler=runs, bw_compiler=runs)
        return torch.compile(function, fullgraph=True, backend=backend)


def computed(name: str, way: str, setting: str, **options: Any) -> tuple[Rounding, Tensor, list[Tensor]]:
    torch.set_float32_matmul_precision(setting)
    case, machine = CASES[name], Rounding()
    chosen = Options(GATES["paper"], implementation="tiled" if way == "tiled" else "dense", **options)
    leaves = [leaf.float().requires_grad_() for leaf in case.leaves]

    def losses(*leaves: Tensor) -> Tensor:
        return contest_output(case.make(*leaves), 0.2, chosen).loss

    call = machine.compile(losses) if way == "compiled" else losses
    with nullcontext() if way == "compiled" else machine:
        loss = call(*leaves)
        gradients = torch.autograd.grad(loss, leaves)
    assert machine.similarities
    assert machine.gradients
    assert torch.get_float32_matmul_precision() == setting
    return machine, loss.detach(), list(gradients)


@pytest.mark.parametrize("way", ["dense", "tiled", compiled])
@setups
def test_losses_do_not_move_with_the_setting_and_gradients_products_do(name: str, way: str):
    machine, expected, gradients = computed(name, way, "highest")
    assert not any(machine.similarities + machine.gradients)
    for setting in ("high", "medium") if way != "compiled" else ("medium",):
        machine, loss, rounded = computed(name, way, setting)
        assert not any(machine.similarities)
        assert torch.equal(loss, expected)
        assert all(machine.gradients)
        for found, exact in zip(rounded, gradients, strict=True):
            # What is left is the rounding of the gradient's own products, of operands with eight bits.
            assert float((found - exact).norm() / exact.norm()) < 2**-6


@pytest.mark.parametrize("way", ["dense", "tiled"])
@setups
def test_the_option_leaves_the_setting_to_pytorch(name: str, way: str):
    follows_the_setting(name, way)


@new
def test_the_option_leaves_the_setting_to_pytorch_in_a_compiled_graph():
    follows_the_setting("in-batch, own negatives", "compiled")


def follows_the_setting(name: str, way: str) -> None:
    _, expected, _ = computed(name, way, "highest")
    machine, loss, _ = computed(name, way, "highest", matmul_precision="torch")
    assert not any(machine.similarities + machine.gradients)
    assert torch.equal(loss, expected)
    machine, loss, _ = computed(name, way, "medium", matmul_precision="torch")
    assert all(machine.similarities + machine.gradients)
    assert not torch.equal(loss, expected)


@pytest.mark.parametrize("gate", GATES)
def test_statistics_do_not_move_either(gate: str):
    found = []
    for setting in ("highest", "medium"):
        torch.set_float32_matmul_precision(setting)
        contest = CASES["two views"].make(*(leaf.float() for leaf in CASES["two views"].leaves))
        for implementation in ("dense", "tiled"):
            with Rounding() as machine:
                found.append(contest_output(contest, 0.2, Options(GATES[gate], implementation=implementation)))
            assert not any(machine.similarities)
    for plain, other in zip(found[:2], found[2:], strict=True):
        for value, same in zip((*plain[:4], *(plain.tail or ())), (*other[:4], *(other.tail or ())), strict=True):
            assert torch.equal(value, same) or (value.isnan() & same.isnan()).all()


@pytest.mark.parametrize("criterion", [ReleasedTopMLoss(), WEINCELoss(implementation="dense")])
def test_a_second_derivative_follows_the_setting(criterion: nn.Module):
    for setting in ("highest", "medium"):
        torch.set_float32_matmul_precision(setting)
        with Rounding() as machine:
            z_a, z_b = (z.requires_grad_() for z in clusters(14, D, dtype=torch.float32))
            (gradient,) = torch.autograd.grad(criterion(z_a, z_b), z_a, create_graph=True)
            first = len(machine.similarities)
            assert not any(machine.similarities)
            gradient.square().sum().backward()
        assert all(machine.similarities[first:] + machine.gradients) is (setting == "medium")


def tf32_of(*level: str) -> Callable[[], None]:
    return lambda: write(*level, "tf32")


def legacy(setting: str) -> Callable[[], None]:
    return lambda: torch.set_float32_matmul_precision(setting)


def both(*steps: Callable[[], None]) -> Callable[[], None]:
    return lambda: [step() for step in steps] and None


WRITTEN = {
    "nothing": lambda: None,
    **{setting: legacy(setting) for setting in ("highest", "high", "medium")},
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}
if NEW:
    WRITTEN |= {
        **{f"{'.'.join(level)} alone": tf32_of(*level) for level in LEVELS},
        "bf16": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
        "all alike": both(*(tf32_of(*level) for level in LEVELS)),
        "all but products": both(*(tf32_of(*level) for level in LEVELS if level[1] == "all")),
        "all but backends": both(
            tf32_of("generic", "all"), *(tf32_of(*level) for level in LEVELS if level[1] != "all")
        ),
        "generic bf16": lambda: setattr(torch.backends, "fp32_precision", "bf16"),
        "medium, then ieee": both(legacy("medium"), lambda: write("mkldnn", "matmul", "ieee")),
        "high, then none": both(legacy("high"), *(lambda b=b: write(b, "matmul", "none") for b in ("cuda", "mkldnn"))),
        "tf32, then high": both(tf32_of("generic", "all"), legacy("high")),
    }


def readings() -> list[str]:
    """All that a user could read: old settings raise where they cannot say."""
    found = []
    for read in (torch.get_float32_matmul_precision, lambda: str(torch.backends.cuda.matmul.allow_tf32)):
        try:
            found.append(read())
        except RuntimeError as problem:
            found.append(type(problem).__name__)
    return found + [torch._C._get_fp32_precision_getter(*level) for level in LEVELS if NEW]


def history(written: Callable[[], None], use: Callable[[], object]) -> list[list[str]]:
    """What reads what, after a use and after each later change: settings that are inherited move with their source."""
    found = []
    for later in [lambda: None, *(lambda level=level: write(*level, "ieee") for level in LEVELS[:-1] if NEW)]:
        torch.set_float32_matmul_precision("highest")
        for level in LEVELS if NEW else ():
            write(*level, "none")
        written()
        found.append(readings())
        use()
        found.append(readings())
        later()
        found.append(readings())
    return found


def a_step() -> None:
    a, b = (z.requires_grad_() for z in clusters(14, D, dtype=torch.float32))
    for implementation in ("dense", "tiled"):
        WEINCELoss(implementation=implementation)(a, b).backward()


def products_in_full() -> None:
    with precision.full_products("cpu"):
        assert not reduces()
    with precision.full_products("cuda"):
        assert not NEW or torch.backends.cuda.matmul.fp32_precision not in ("tf32", "bf16")


def broken_off() -> None:
    for device in ("cpu", "cuda"):
        with pytest.raises(KeyError), precision.full_products(device):
            raise KeyError


@pytest.mark.filterwarnings("ignore:.*TF32 behavior.*:UserWarning")  # that old settings will go
@pytest.mark.parametrize("use", [a_step, products_in_full, broken_off])
@pytest.mark.parametrize("written", WRITTEN)
def test_a_users_setting_is_what_it_was(written: str, use: Callable[[], object]):
    expected = history(WRITTEN[written], lambda: None)
    assert history(WRITTEN[written], use) == expected


@new
def test_each_kind_of_device_has_its_setting():
    for backend, device in (("cuda", "cuda"), ("mkldnn", "cpu")):
        write(backend, "matmul", "tf32")
        with precision.full_products(device):
            assert torch._C._get_fp32_precision_getter(backend, "matmul") == "ieee"
        with precision.full_products(device, False):
            assert torch._C._get_fp32_precision_getter(backend, "matmul") == "tf32"
        assert torch._C._get_fp32_precision_getter(backend, "matmul") == "tf32"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")  # PyTorch of itself
@new
def test_transforms_within_a_compiled_graph():
    """The operator that stands for products in a graph has none; torch.func would go by it unseen."""
    torch.compiler.reset()
    a, b = clusters(14, D, dtype=torch.float32)
    criterion = WEINCELoss(implementation="dense")

    def along(a: Tensor) -> Tensor:
        return torch.func.jvp(lambda z: criterion(z, b), (a,), (b,))[1]

    for function in (along, torch.func.grad(lambda z: criterion(z, b))):
        found = torch.compile(function, fullgraph=True, backend="aot_eager")(a)
        torch.testing.assert_close(found, function(a))


def test_the_operator_of_a_compiled_graph_can_be_differentiated_twice():
    a, b = (torch.randn(2, *shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 4), (4, 5)))
    assert torch.autograd.gradcheck(precision._product, (a, b))
    assert torch.autograd.gradgradcheck(precision._product, (a, b))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(precision._product, (a, b), test_utils=checks)
