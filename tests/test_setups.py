"""Every setting against plain loops and golden values, dense and tiled, and against its gradient by differences."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

import weince.tiles.sweep
from batches import views, whole_of
from contests import CASES, GATES, GOLDEN, SMOOTHING, TEMPERATURE, Case, key, oracle, values
from reference import Weince
from weince import Gate, LossOutput, setups

every_case = pytest.mark.parametrize("name", CASES)
both_ways = pytest.mark.parametrize("implementation", ["dense", "tiled", "tiled, not kept"])


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows a tile: several tiles, and the last one is cut."""
    monkeypatch.setitem(weince.tiles.sweep.TILE_ELEMENTS, "cpu", 1)
    monkeypatch.setattr(weince.tiles.sweep, "TILE_ROWS", 5)


def test_golden_values_are_the_oracles():
    golden = json.loads(GOLDEN.read_text())
    assert len(golden) == len(CASES) * len(GATES) * len(SMOOTHING)
    for name, case in CASES.items():
        for gate, rule in GATES.items():
            for smoothing in SMOOTHING:
                found = values(oracle(case, rule, smoothing))
                for part, expected in golden[key(name, gate, smoothing)].items():
                    assert found[part] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def matrices(case: Case, dtype: torch.dtype, **settings: object) -> tuple[LossOutput, list[Tensor]]:
    leaves = [leaf.clone().to(dtype).requires_grad_() for leaf in case.leaves]
    return whole_of(case.make(*leaves), TEMPERATURE, **settings), leaves


@every_case
@both_ways
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_values_are_golden(name: str, implementation: str, gate: str, smoothing: float):
    expected = json.loads(GOLDEN.read_text())[key(name, gate, smoothing)]
    output, _ = matrices(
        CASES[name], torch.float64, gate=GATES[gate], label_smoothing=smoothing, implementation=implementation
    )
    assert output.per_anchor.tolist() == pytest.approx(expected["per_anchor"], rel=1e-9, abs=1e-12)
    assert output.weight.tolist() == pytest.approx(expected["weight"], rel=1e-9, abs=1e-12)
    if output.tail is not None:
        assert output.tail.slope.tolist() == pytest.approx(expected["slope"], rel=1e-9, abs=1e-12)
    counted = output.counted.tolist()
    kept = [loss for loss, one in zip(expected["per_anchor"], counted, strict=True) if one]
    assert output.loss.item() == pytest.approx(sum(kept) / max(1, len(kept)), rel=1e-9, abs=1e-12)


@every_case
@both_ways
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("smoothing", SMOOTHING)
def test_decoupled_losses_are_the_oracles(name: str, implementation: str, gate: str, smoothing: float):
    expected = oracle(CASES[name], GATES[gate], smoothing, decoupled=True)
    settings = {"label_smoothing": smoothing, "implementation": implementation, "decoupled": True}
    output, _ = matrices(CASES[name], torch.float64, gate=GATES[gate], **settings)
    assert output.per_anchor.tolist() == pytest.approx(expected.per_anchor, rel=1e-9, abs=1e-12)


@every_case
def test_float32_is_close(name: str):
    exact, exact_leaves = matrices(CASES[name], torch.float64, gate=GATES["paper"], implementation="dense")
    exact.loss.backward()
    for implementation in ("dense", "tiled"):
        found, leaves = matrices(CASES[name], torch.float32, gate=GATES["paper"], implementation=implementation)
        found.loss.backward()
        torch.testing.assert_close(found.per_anchor.double(), exact.per_anchor, rtol=2e-5, atol=2e-5)
        for leaf, precise in zip(leaves, exact_leaves, strict=True):
            if precise.grad is not None and leaf.numel():
                error = (leaf.grad - precise.grad).abs().max()
                assert float(error) <= 2e-4 * float(precise.grad.abs().max()) + 1e-9


# Tiles form the dense gradient, as the next test finds; differences take them twice as long.
@every_case
@pytest.mark.parametrize(
    ("implementation", "smoothing", "decoupled"),
    [
        ("dense", 0.0, False), ("dense", 0.1, True),
        *(pytest.param(*more, marks=pytest.mark.exhaustive) for more in
          (("dense", 0.1, False), ("tiled", 0.0, False), ("tiled", 0.1, False), ("tiled", 0.1, True))),
    ],
)  # fmt: skip
def test_gradients_by_differences(name: str, implementation: str, smoothing: float, decoupled: bool):
    """Of embeddings and temperature, of the mean, the weighted sum and the losses one by one."""
    case = CASES[name]
    leaves = [leaf.clone().requires_grad_() for leaf in case.leaves]
    temperature = torch.tensor(TEMPERATURE, dtype=torch.float64, requires_grad=True)
    choices = case.make(*case.leaves).choices
    weight = torch.rand(choices, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    temperature.requires_grad_(not decoupled)  # refused
    # Fixed: a measured weight is a constant to the gradient, not to a difference.
    gate = Gate(evidence=0.6, slope=2.5)

    def loss(temperature: Tensor, *leaves: Tensor) -> tuple[Tensor, Tensor]:
        contest = case.make(*leaves)
        settings = {"label_smoothing": smoothing, "implementation": implementation, "decoupled": decoupled}
        one = whole_of(contest, temperature, gate, sample_weight=weight, **settings).loss
        return one, whole_of(contest, temperature, gate, "none", **settings).loss

    assert torch.autograd.gradcheck(loss, (temperature, *leaves))


@every_case
@pytest.mark.parametrize("gate", ["paper", "released"])
@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("decoupled", [False, True])
def test_tiles_form_the_gradient_of_the_dense_loss(name: str, gate: str, smoothing: float, decoupled: bool):
    """With measured weights, which differences cannot hold fixed: of the mean, the weighted sum and the losses one by
    one; of embeddings and temperature. No gradient of a candidate that needs none."""
    case = CASES[name]
    settings = {"label_smoothing": smoothing, "decoupled": decoupled}
    found = []
    for implementation in ("dense", "tiled", "tiled, not kept"):
        leaves = [leaf.clone().requires_grad_() for leaf in case.leaves]
        temperature = torch.tensor(TEMPERATURE, dtype=torch.float64, requires_grad=not decoupled)
        contest = case.make(*leaves)
        draw = torch.Generator().manual_seed(1)
        weight = torch.rand(contest.choices, generator=draw, dtype=torch.float64)
        options = settings | {"implementation": implementation, "gate": GATES[gate]}
        one = whole_of(contest, temperature, **options).loss
        weighed = whole_of(contest._replace(sample_weight=weight), temperature, **options).loss
        each = whole_of(contest, temperature, reduction="none", **options).loss
        each = (each * weight.flip(0)[: len(each)]).sum()
        for loss in (one, weighed, each):
            learns = leaves if decoupled else [*leaves, temperature]
            of_loss = torch.autograd.grad(loss, learns, allow_unused=True, materialize_grads=True,
                                          retain_graph=True)  # fmt: skip
            found.append((implementation, of_loss))
    dense = [of_loss for how, of_loss in found if how == "dense"]
    for one in ("tiled", "tiled, not kept"):
        tiled = [of_loss for how, of_loss in found if how == one]
        for exact, ours in zip(dense, tiled, strict=True):
            for expected, gradient in zip(exact, ours, strict=True):
                torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
    leaves = [case.leaves[0].clone().requires_grad_(), *case.leaves[1:]]
    whole_of(case.make(*leaves), TEMPERATURE, GATES[gate], implementation="tiled", **settings).loss.backward()
    if len(leaves) > 1:
        torch.testing.assert_close(leaves[0].grad, dense[0][0], rtol=1e-10, atol=1e-12)
    assert all(leaf.grad is None for leaf in leaves[1:])


@every_case
@both_ways
def test_weight_zero_is_infonce_bit_for_bit(name: str, implementation: str):
    found = []
    for gate in (Gate(margin=1e9), GATES["infonce"]):
        output, leaves = matrices(CASES[name], torch.float32, gate=gate, implementation=implementation)
        output.loss.backward()
        found.append((output.loss, *(leaf.grad for leaf in leaves if leaf.grad is not None)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@both_ways
def test_anchors_without_a_positive_are_skipped_and_counted(implementation: str):
    output, _ = matrices(CASES["labels"], torch.float64, implementation=implementation)
    assert int(output.skipped) == 3
    assert output.loss.item() == pytest.approx(output.per_anchor.sum().item() / 11)
    assert output.per_anchor[~output.counted].tolist() == [0.0] * 3


@both_ways
def test_a_batch_without_any_positive_has_loss_and_gradient_zero(implementation: str):
    z = CASES["labels"].leaves[0].clone().requires_grad_()
    contest = setups.labelled(z, torch.arange(len(z)))
    output = whole_of(contest, implementation=implementation)
    output.loss.backward()
    assert output.loss.item() == 0.0
    assert int(output.skipped) == len(z)
    assert z.grad is None or not z.grad.any()


@both_ways
def test_an_anchor_without_negatives_is_infonce(implementation: str):
    output, _ = matrices(CASES["no negatives"], torch.float64, implementation=implementation)
    assert output.per_anchor.tolist() == [0.0] * 14
    assert output.weight.tolist() == [0.0] * 14
    output, _ = matrices(CASES["queue of one"], torch.float64, implementation=implementation)
    assert output.weight.tolist() == [0.0] * 14  # one point is no fit
    assert torch.isfinite(output.per_anchor).all()


@both_ways
def test_sample_weights_weigh_the_mean(implementation: str):
    case, weight = CASES["labels"], torch.arange(14, dtype=torch.float64)
    output = whole_of(case.make(*case.leaves), TEMPERATURE, sample_weight=weight, implementation=implementation)
    counted = output.counted
    expected = (weight * output.per_anchor)[counted].sum() / weight[counted].sum()
    torch.testing.assert_close(output.loss, expected)
    nothing = whole_of(case.make(*case.leaves), sample_weight=0 * weight, implementation=implementation)
    assert nothing.loss.item() == 0.0


def test_an_ignored_pair_is_neither_candidate_nor_tail():
    """Moving a pair that is ignored to the cap changes nothing."""
    case = CASES["two towers"]
    a, b = (leaf.clone() for leaf in case.leaves)
    ignored = torch.zeros(14, 14, dtype=torch.bool)
    ignored[0, 5] = ignored[3, 5] = True
    ignored[:, 5] |= torch.arange(14) != 5
    moved = b.clone()
    moved[5] = a[0]
    for implementation in ("dense", "tiled"):
        found = [
            whole_of(setups.two_towers(a, other, ignored=ignored), implementation=implementation)
            for other in (b, moved)
        ]
        others = torch.arange(14) != 5
        for part in ("per_anchor", "weight"):
            assert torch.equal(getattr(found[0], part)[others], getattr(found[1], part)[others])


def test_the_oracle_of_any_contest_is_the_oracle_of_two_views():
    """Two ways of writing plain loops for one setting."""
    import reference

    case = CASES["two views"]
    rows = [leaf.tolist() for leaf in case.leaves]
    for gate in GATES.values():
        one: Weince = reference.weince(reference.similarities(*rows), TEMPERATURE, gate)
        other = oracle(case, gate, 0.0)
        for part in ("per_anchor", "weight", "slope"):
            assert getattr(one, part) == pytest.approx(getattr(other, part), rel=1e-12)


@both_ways
@pytest.mark.parametrize("masked", [False, True])
def test_a_small_loss_keeps_its_gradient_in_float32(implementation: str, masked: bool):
    """Positives that win by far: +1 and -1 of two terms would swallow what is left, 1e-6."""
    z_a, _ = views(24, 64)
    labels = torch.arange(24)
    found = []
    for dtype in (torch.float32, torch.float64):
        a, b = (z.to(dtype).clone().requires_grad_() for z in (z_a, z_a + 1e-3))
        ignored = torch.zeros(24, 24, dtype=torch.bool)
        ignored[0, 3] = masked
        contest = setups.labelled(a, labels, b, labels) if masked else setups.two_towers(a, b)
        loss = whole_of(contest, 0.05, GATES["infonce"], implementation=implementation).loss
        loss.backward()
        found.append((loss.item(), a.grad.double()))
    (loss, gradient), (exact_loss, exact) = found
    assert 1e-9 < exact_loss < 1e-3
    assert loss == pytest.approx(exact_loss, rel=1e-4)
    assert float((gradient - exact).abs().max() / exact.abs().max()) < 2e-5
