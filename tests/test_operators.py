"""The operators under PyTorch's own checks: schema, shapes without values, gradient, and a compiler's trace."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from batches import clusters
from weince import CAUTIOUS, INFONCE, Gate, setups
from weince.contest import Contest
from weince.precision import product
from weince.tiles import operators

# The check looks for a gradient of what is no leaf.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")

N = 6
LABELS = torch.arange(N) % 3
# Every number of every fit is asked for: where one is not it is NaN, which the check takes for a difference.
GATES = {"cautious": CAUTIOUS, "infonce": INFONCE}


def contest(setup: str) -> Contest:
    """Anchors, and candidates where they are others, are leaves."""
    a, b = clusters(N, 4, dtype=torch.float32)
    made = {
        "shared": lambda: setups.two_views(a, b),
        "both ways": lambda: setups.both_ways(setups.two_towers(a, b))[0],
        "labels": lambda: setups.labelled(a, LABELS),
        "own": lambda: setups.explicit_negatives(a, b, torch.stack([b, a], dim=1), in_batch=True),
        "ids and a mask": lambda: setups.two_towers(a, b, ids=LABELS, ignored=torch.eye(N).bool().roll(1)),
    }[setup]()
    anchors = made.anchors.detach().requires_grad_()
    candidates = anchors if made.shared else made.candidates.detach().requires_grad_()
    own = None if made.own is None else made.own.detach().requires_grad_()
    return made._replace(anchors=anchors, candidates=candidates, own=own)


def arguments(of: Contest, gate: Gate, gradient: bool = True) -> tuple[object, ...]:
    scale = torch.tensor(5.0, requires_grad=True)
    given = operators._arguments(of, gate, scale, 1e-6, 0.1, False, torch.linspace(0.5, 1.0, of.choices))
    return given if gradient else tuple(one.detach() if isinstance(one, Tensor) else one for one in given)


every_setup = pytest.mark.parametrize("setup", ["shared", "both ways", "labels", "own", "ids and a mask"])


@every_setup
@pytest.mark.parametrize(("gate", "known"), [("cautious", False), ("cautious", True), ("infonce", False)])
def test_tiles(setup: str, gate: str, known: bool):
    """With measured weights, with weights that are given, and with none."""
    given = arguments(contest(setup), GATES[gate])
    wanted = [isinstance(leaf, Tensor) and leaf.requires_grad for leaf in given[: operators.LEAVES]]
    assert isinstance(given[4], Tensor)
    mixed = torch.stack([given[4] * 0.5, given[4] * 2]) if known else None
    opcheck(operators._tiles_operator, (*given, wanted, mixed))


@every_setup
def test_tails(setup: str):
    opcheck(operators._tails_operator, arguments(contest(setup), CAUTIOUS, gradient=False))


@pytest.mark.parametrize("batched", [False, True])
def test_product(batched: bool):
    a, b = (torch.randn(*([2] if batched else []), 3, 3, requires_grad=True) for _ in range(2))
    opcheck(torch.ops.weince.product.default, (a, b))
    torch.testing.assert_close(torch.ops.weince.product(a, b), product(a, b))
