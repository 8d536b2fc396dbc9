"""The tiles against the dense loss: the same values and gradients, in O(tile) memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import weince.tiles.sweep
from batches import clusters, whole
from weince import Gate, LossOutput
from weince.setups import two_views
from weince.tail import largest, tail_size
from weince.tiles.passes import Terms
from weince.tiles.sweep import sweep, tile_rows
from weince.units import unit_rows

GATES = {
    "paper": Gate(),
    "released": Gate(slope="unit"),
    "bounded": Gate(slope_max=2.0),
    "nearness": Gate(evidence="nearness"),
    "fixed": Gate(evidence=0.4, slope=3.0),
    "weibit": Gate(evidence=1.0, slope=4.0),
    "infonce": Gate(evidence=0.0, slope=1.0),
    "aic": Gate(evidence="aic"),
    "half measured": Gate(evidence="nearness", slope=2.0),
    "maximum likelihood": Gate(slope_estimator="maximum_likelihood"),
    "endpoint": Gate(evidence="endpoint"),
    "endpoint, one slope": Gate(evidence="nearness*endpoint", slope="unit", slope_estimator="maximum_likelihood"),
    "no lines": Gate(slope_estimator="maximum_likelihood", evidence="nearness"),
}
# Of the largest entry.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}


@pytest.fixture(params=[0, 2**24], ids=["formed twice", "kept"])
def small_tiles(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Sixteen rows a tile, so that a small batch has many and the last one is cut."""
    monkeypatch.setitem(weince.tiles.sweep.TILE_ELEMENTS, "cpu", 1)
    monkeypatch.setitem(weince.tiles.sweep.KEPT_ELEMENTS, "cpu", request.param)
    monkeypatch.setattr(weince.tiles.sweep, "TILE_ROWS", 16)
    return request.param


def both(z_a: Tensor, z_b: Tensor, **settings: object) -> list[tuple[LossOutput, list[Tensor]]]:
    found = []
    for implementation in ("dense", "tiled"):
        leaves = [z.detach().clone().requires_grad_() for z in (z_a, z_b)]
        found.append((whole(*leaves, implementation=implementation, **settings), leaves))
    return found


def close(a: Tensor, b: Tensor, tolerance: float) -> None:
    a, b = a.detach(), b.detach()
    assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("n", "d"), [(2, 7), (15, 1), (15, 7), (41, 7), (127, 16), (507, 16)])
def test_tiles_are_the_dense_loss(n: int, d: int, gate: str, dtype: torch.dtype):
    z_a, z_b = clusters(n, d, dtype=dtype)
    (dense, dense_z), (tiled, tiled_z) = both(z_a, z_b, gate=GATES[gate], temperature=0.3)
    tolerance = TOLERANCE[dtype]
    close(tiled.per_anchor, dense.per_anchor, tolerance)
    torch.testing.assert_close(tiled.weight, dense.weight, rtol=100 * tolerance, atol=100 * tolerance)
    assert (tiled.tail is None) == (dense.tail is None)
    for loss in (tiled.loss, dense.loss):
        loss.backward()
    # A product of another shape rounds similarities otherwise; a pair at shortfall delta feels it 1 / delta times, in
    # any float32 implementation. Where that is more, the two must lie closer together than to the exact gradient.
    exact_z = [z.double().requires_grad_() for z in (z_a, z_b)]
    whole(*exact_z, gate=GATES[gate], temperature=0.3, implementation="dense").loss.backward()
    for a, b, exact in zip(tiled_z, dense_z, exact_z, strict=True):
        own = float((b.grad - exact.grad).abs().max() / exact.grad.abs().max().clamp_min(1e-30))
        close(a.grad, b.grad, max(tolerance, own))


@pytest.mark.usefixtures("small_tiles")
def test_inputs_of_every_kind():
    """Half precision, rows that are not contiguous, views of one tensor, a gradient to one view alone."""
    z = torch.stack(clusters(20, 6, dtype=torch.float32))
    for z_a, z_b in (
        (z[0].bfloat16(), z[1].bfloat16()),
        (z[0].half(), z[1].half()),
        (z[0].T.contiguous().T, z[1].repeat(1, 2)[:, ::2]),
        (z[0], z[0]),
    ):
        (dense, dense_z), (tiled, tiled_z) = both(z_a, z_b)
        for loss in (tiled.loss, dense.loss):
            loss.backward()
        close(tiled.loss, dense.loss, 2e-6)
        for a, b in zip(tiled_z, dense_z, strict=True):
            close(a.grad.float(), b.grad.float(), 5e-6 if z_a.dtype == torch.float32 else 4e-3)
    one = z[0].clone().requires_grad_()
    (found,) = torch.autograd.grad(whole(one, z[1], implementation="tiled").loss, one)
    (expected,) = torch.autograd.grad(whole(one, z[1], implementation="dense").loss, one)
    close(found, expected, 2e-6)


def test_a_second_backward_is_refused_as_pytorch_refuses_it_and_given_where_the_graph_is_kept():
    z_a, z_b = (z.requires_grad_() for z in clusters(6, 3, dtype=torch.float64))
    for use in (lambda o: o.loss, lambda o: o.per_anchor.sum()):
        z_a.grad = None
        loss = use(whole(z_a, z_b, implementation="tiled"))
        loss.backward(retain_graph=True)
        once, z_a.grad = z_a.grad, None
        loss.backward()
        assert torch.equal(once, z_a.grad)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_gradient_that_reaches_the_anchors_losses(reduction: str):
    z_a, z_b = clusters(29, 6, dtype=torch.float64)
    factor = torch.rand(58, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for use in (lambda o: (o.per_anchor * factor).sum(), lambda o: 3 * o.loss.sum() + (o.per_anchor * factor).sum()):
        (dense, dense_z), (tiled, tiled_z) = both(z_a, z_b, reduction=reduction)
        use(dense).backward()
        use(tiled).backward()
        for a, b in zip(tiled_z, dense_z, strict=True):
            close(a.grad, b.grad, 1e-12)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_gradcheck(implementation: str):
    z_a, z_b = (z.requires_grad_() for z in clusters(10, 4, dtype=torch.float64))
    gate = Gate(evidence=0.6, slope=2.5)
    for reduction in ("mean", "none"):
        assert torch.autograd.gradcheck(
            lambda a, b, r=reduction: whole(a, b, gate=gate, reduction=r, implementation=implementation).loss,
            (z_a, z_b),
        )


@pytest.mark.parametrize("implementation", ["dense", "tiled"])
def test_weight_zero_is_infonce_bit_for_bit(implementation: str):
    z_a, z_b = clusters(40, 8, dtype=torch.float32)
    found = []
    for gate in (Gate(margin=1e9), Gate(evidence=0.0, slope=1.0)):
        leaves = [z.clone().requires_grad_() for z in (z_a, z_b)]
        output = whole(*leaves, gate=gate, implementation=implementation)
        output.loss.backward()
        assert (output.weight == 0).all()
        found.append((output.loss, *(z.grad for z in leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_gradient_is_formed_where_none_is_wanted():
    z_a, z_b = clusters(12, 4, dtype=torch.float32)
    assert not whole(z_a, z_b, implementation="tiled").loss.requires_grad
    with torch.no_grad():
        assert whole(z_a.requires_grad_(), z_b, implementation="tiled").loss.grad_fn is None


def test_a_second_derivative_is_refused_by_the_tiles_and_given_by_the_dense_loss():
    z_a, z_b = (z.requires_grad_() for z in clusters(6, 3, dtype=torch.float64))
    loss = whole(z_a, z_b, implementation="tiled").loss
    with pytest.raises(RuntimeError, match='implementation="dense"'):
        torch.autograd.grad(loss, z_a, create_graph=True)
    (gradient,) = torch.autograd.grad(whole(z_a, z_b, implementation="dense").loss, z_a, create_graph=True)
    assert torch.isfinite(torch.autograd.grad(gradient.square().sum(), z_a)[0]).all()


def test_selection_is_topk_value_for_value():
    s = torch.randn(9, 300, generator=torch.Generator().manual_seed(0))
    s[:, :4], s[3] = float("-inf"), 0.25
    # Where the smallest of them is negative too, and where it is not; exact zeros of both signs.
    positive = torch.where(s > 0, s, 0.0)
    positive[:, 7] = -0.0
    for values in (s, positive, s.double(), s - 9):
        for size in (0, 1, 30, 299, 300):
            assert torch.equal(largest(values.clone(), size), values.topk(size, dim=1).values)


def test_rows_of_a_tile_follow_the_number_of_candidates():
    assert [tile_rows(m, "cpu") for m in (512, 4096, 65536, 10**7)] == [4096, 512, 64, 64]


def test_the_room_of_a_gpu_is_what_the_documents_say():
    """A tile of similarities that one GPU of 8 holds, two towers."""
    told = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")
    for batch in (2**15, 2**18, 2**20):
        rows = min(batch // 8, tile_rows(batch, "cuda", scratch=0))
        row = next(line for line in told.splitlines() if line.startswith(f"| {batch:,} |"))
        assert row.split(" | ")[2] == f"{4 * rows * batch / 2**30:.2f} GiB"


class Largest(TorchDispatchMode):
    """The most elements that any tensor made under it has."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for value in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return made


@pytest.mark.parametrize("gate", ["paper", "no lines", "infonce"])
def test_no_tensor_of_all_anchors_and_candidates_is_made_nor_of_all_tails(gate: str, small_tiles: int):
    views = unit_rows(torch.cat(clusters(256, 8, dtype=torch.float32)))
    contest = two_views(views[:256], views[256:])
    tails = 512 * tail_size(contest.negatives, 0.1, 32)
    with Largest() as largest_made:
        sweep(
            contest,
            GATES[gate],
            None,
            Terms(torch.tensor(2.0), 1e-6, 0.0, False),
            torch.ones(512),
            (True, False, False, False),
        )
    if small_tiles:  # all similarities, but no second matrix
        assert 512 * 512 <= largest_made.elements < 512 * 512 + 3 * 16 * 512
    else:
        assert 16 * 512 <= largest_made.elements < tails
    with Largest() as largest_made:  # the measure itself sees a matrix
        contest.similarity()
    assert largest_made.elements == 512 * 512


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_square_of_the_batch():
    """2N = 16,384: a dense float32 matrix is 1 GiB, and the dense loss holds several."""
    program = """
import torch
from weince import WEINCELoss

def peak_kib():  # not ru_maxrss: a child inherits its parent's
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))

torch.set_num_threads(1)
z = [torch.randn(n, 16, requires_grad=True) for n in (64, 64, 8192, 8192)]
WEINCELoss()(*z[:2]).backward()
open("/proc/self/clear_refs", "w").write("5")
before = peak_kib()
WEINCELoss()(*z[2:]).backward()
print((peak_kib() - before) / 1024)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=200)
    assert 0 < float(ran.stdout) < 96
