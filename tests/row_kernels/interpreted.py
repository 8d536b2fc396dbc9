"""The kernels in Triton's interpreter, which computes them in NumPy.

TRITON_INTERPRET=1 python interpreted.py PART...

A process of its own, for Triton looks when it is imported. test_interpreted.py runs it. An error is relative to the
largest entry of what has it.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor, nn
from triton.runtime import interpreter

import weince.tiles.sweep
from batches import clusters, views, whole_of
from contests import CASES, GATES, GOLDEN, LABELS, TEMPERATURE, Case, N, key, mask
from weince import CAUTIOUS, INFONCE, PAPER, Gate, LearnableTemperature, TwoTowerLoss, WEINCELoss, setups
from weince.contest import Contest
from weince.gate import Mixture
from weince.tail import TailFit
from weince.tiles import passes, rows
from weince.tiles.passes import Terms
from weince.units import unit_rows

FACTOR = 2.0
"""Both paths read similarities of float32, whose rounding a weight or a gradient near the cap magnifies a thousandfold:
that is their error, and the readable path's tells how large it is on this input. Kernels round unit rows and sums in
another order, so theirs is another draw of the same size. Of 48 batches the largest quotient was 1.7."""
FLOOR = 8 * torch.finfo(torch.float32).eps
"""Where the readable path happens to round to the exact value: the rounding of one sum."""
OF_STEPS = 4 * FLOOR
"""The same for a whole step: a weight is a sigmoid of an AIC gap of ten or twenty, to which rounding is relative."""
GATES_MORE = {
    "nearness": Gate(evidence="nearness", tail_min=6),
    "aic": Gate(evidence="aic", tail_min=6),
    "fixed": Gate(evidence=0.4, slope=3.0),
    "half measured": Gate(evidence="nearness", slope=2.0, tail_min=6),
    "maximum likelihood": Gate(slope_estimator="maximum_likelihood", tail_min=6),
    "no lines": Gate(slope_estimator="maximum_likelihood", evidence="nearness", tail_min=6),
    "weibit": Gate(evidence=1.0, slope_estimator="maximum_likelihood", tail_min=6),
    "bounded": Gate(slope_max=2, tail_min=6),
    "endpoint, one slope": Gate(evidence="nearness*endpoint", slope="unit", tail_min=9, kappa_end=1),
    "cautious, bounded": replace(CAUTIOUS, tail_min=9, kappa_end=1.0),
}
Values = dict[str, Tensor]


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # NumPy's, of exp(inf), log(0) and 0 / 0 in lanes whose result is thrown away.
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="triton")
    with patched_once():
        for part in sys.argv[1:]:
            print(f"{part}: {PARTS[part]()} agree", flush=True)


@contextmanager
def patched_once() -> Iterator[None]:
    """The interpreter patches Triton's language whenever one function calls another, which takes half of its time. The
    launch of a kernel does so too, and is enough for functions of its module; of Triton's own modules, one call is."""
    patches, seen = interpreter._patch_lang, {"weince.tiles.kernels"}

    def call(self: Any, *given: Any, **named: Any) -> Any:
        if self.fn.__module__ not in seen:
            seen.add(self.fn.__module__)
            patches(self.fn)
        return self.rewrite()(*given, **named)

    with patch.object(interpreter.InterpretedFunction, "__call__", call):
        yield


# ---- Whole steps: every setting, gate and option


def step(case: Case, gate: Gate, kernels: bool, dtype: torch.dtype = torch.float32, **settings: Any) -> Values:
    """All that a step gives: losses, weights, slopes, fits and gradients."""
    implementation = settings.pop("implementation", "tiled")
    if dtype == torch.float64:
        implementation = "dense"
    leaves = [leaf.clone().to(dtype).requires_grad_() for leaf in case.leaves]
    learns = not settings.get("decoupled")
    temperature = torch.tensor(settings.pop("temperature", TEMPERATURE), dtype=dtype, requires_grad=learns)
    if (weight := settings.pop("sample_weight", None)) is not None:
        settings["sample_weight"] = weight.to(dtype)
    with patch.object(rows, "USED", kernels):
        output = whole_of(case.make(*leaves), temperature, gate, implementation=implementation, **settings)
        wanted = [*leaves, temperature] if learns else leaves
        each = torch.linspace(1.0, 2.0, output.loss.numel(), dtype=dtype).view(output.loss.shape)
        gradients = torch.autograd.grad((output.loss * each).sum(), wanted, allow_unused=True, materialize_grads=True)
    found = {"loss": output.loss, "per_anchor": output.per_anchor, "weight": output.weight, "slope": output.slope}
    if output.tail is not None:
        found |= {f"tail's {name}": value for name, value in output.tail._asdict().items()}
    found |= {f"gradient {place}": value for place, value in enumerate(gradients) if value.numel()}
    return {name: value.detach().double() for name, value in found.items()}


def error(found: Tensor, exact: Tensor) -> float:
    """Of the largest entry. Both are NaN at the same places."""
    unknown = exact.isnan()
    if not torch.equal(found.isnan(), unknown):
        return float("inf")
    if bool(unknown.all()):
        return 0.0
    size = float(exact[~unknown].abs().max())
    return float((found - exact)[~unknown].abs().max()) / (size or 1.0)


def no_worse(what: object, kernels: Values, readable: Values, exact: Values, floor: float = FLOOR) -> None:
    """Errors no larger than those of the readable passes in float32."""
    assert set(kernels) == set(readable) == set(exact)
    for name, value in exact.items():
        ours, theirs = (error(found[name].double(), value.double()) for found in (kernels, readable))
        assert ours <= FACTOR * theirs + floor, f"{what}, {name}: {ours:.1e}, readable {theirs:.1e}"


def compared(name: str, gate: Gate, case: Case | None = None, **settings: Any) -> Values:
    """What the kernels give, held beside the float64 dense loss."""
    case = case or CASES[name]
    exact = step(case, gate, False, torch.float64, **settings)
    kernels, readable = (step(case, gate, used, **settings) for used in (True, False))
    no_worse((name, gate.text, settings), kernels, readable, exact, OF_STEPS)
    return kernels


@lru_cache(maxsize=1)
def golden() -> dict[str, dict[str, list[float]]]:
    return json.loads(GOLDEN.read_text())


def golden_too(name: str, gate: str, smoothing: float = 0.0) -> None:
    """And beside the oracle's values."""
    found = compared(name, GATES[gate], label_smoothing=smoothing)
    expected = golden()[key(name, gate, smoothing)]
    for part in ("per_anchor", "weight"):
        torch.testing.assert_close(found[part], torch.tensor(expected[part]).double(), rtol=5e-4, atol=5e-5)


def settings() -> int:
    """Every kind of setting, with the paper's gate; `every_setting` has the rest."""
    chosen = ("two views, ignored", "two towers", "two towers, both ways, ignored", "queue of one", "empty queue",
              "labels", "labels against others", "one class", "in-batch, own negatives, ignored",
              "shared negatives alone", "no negatives")  # fmt: skip
    for name in chosen:
        golden_too(name, "paper")
    return len(chosen)


SETTINGS = ("two towers", "labels, ignored")  # by columns; by labels and a mask, with anchors that lack a positive


def gates() -> int:
    """Every gate, half of them on each of two settings."""
    named = [gate for gate in GATES if gate != "paper"]
    for place, gate in enumerate(named):
        golden_too(SETTINGS[place % 2], gate)
    for place, gate in enumerate(GATES_MORE.values()):
        compared(SETTINGS[place % 2], gate)
    return len(named) + len(GATES_MORE)


def positives_by_mask() -> Case:
    """Who is whose positive, as a matrix."""
    same = LABELS.unsqueeze(1) == LABELS
    return CASES["labels"]._replace(make=lambda z: setups.labelled(z, same))


def ids_of_two() -> Case:
    """Two ids each, some of them shared, against queries and documents with negatives of their own."""
    generator = torch.Generator().manual_seed(5)
    ids, others = (torch.randint(0, 9, (N, 2), generator=generator) for _ in range(2))
    of_negatives = torch.randint(0, 9, (N, 2, 2), generator=generator)

    def make(query: Tensor, positive: Tensor, negatives: Tensor) -> Contest:
        given = {"query_ids": ids, "key_ids": others, "negative_ids": of_negatives}
        return setups.explicit_negatives(query, positive, negatives, in_batch=True, **given)

    return CASES["in-batch, own negatives"]._replace(make=make)


def ids_of_views() -> Case:
    ids = torch.arange(N) // 2
    return CASES["two views"]._replace(make=lambda a, b: setups.two_views(a, b, ids=ids, ignored=mask(2 * N, 2 * N).T))


def options() -> int:
    """What a loss takes beside a gate, and who else may be positive or left out."""
    paper = GATES["paper"]
    golden_too("labels", "paper", 0.1)
    compared("labels, ignored", paper, decoupled=True)
    # A weight that is not contiguous.
    compared("labels", paper, sample_weight=torch.linspace(0.0, 2.0, 2 * N)[::2])
    compared("two towers, both ways", GATES_MORE["aic"], reduction="none", label_smoothing=0.1)
    compared("masks", paper, positives_by_mask())
    compared("two ids", paper, ids_of_two())
    return 6


def more_options() -> int:
    """The rest of them."""
    paper, weight = GATES["paper"], torch.linspace(0.0, 2.0, N)
    golden_too("two towers", "infonce", 0.1)
    compared("two towers", INFONCE, decoupled=True, label_smoothing=0.2)
    compared("one class", paper, decoupled=True)
    compared("two towers", paper, reduction="sum", sample_weight=weight, eps=0.05)
    compared("queue", paper, reduction="none")
    compared("ids of views, a mask upside down", GATES["cautious"], ids_of_views())
    compared("two towers", paper, temperature=0.01)
    return 7


def every_setting() -> int:
    """All gates on all settings, smoothed and decoupled: ten minutes."""
    number = 0
    for name in CASES:
        for gate in GATES:
            for smoothing in (0.0, 0.1):
                golden_too(name, gate, smoothing)
                number += 1
        for gate in GATES_MORE.values():
            compared(name, gate)
            number += 1
        for gate in (GATES["paper"], GATES["endpoint"]):
            compared(name, gate, decoupled=True)
            number += 1
        compared(name, GATES["paper"], implementation="tiled, not kept")
        number += 1
    return number


def several_tiles() -> int:
    """Tiles of five rows that are not kept: measured first, formed again, both directions one after the other."""
    with patch.object(weince.tiles.sweep, "TILE_ROWS", 5):
        for name, gate in (
            ("two towers", GATES["paper"]),
            ("in-batch, own negatives, ignored", GATES["cautious"]),
            ("labels", GATES_MORE["aic"]),
            ("two towers, both ways, ignored", GATES["endpoint"]),
            ("two views", INFONCE),
            ("queue", GATES_MORE["fixed"]),
        ):
            compared(name, gate, implementation="tiled, not kept")
    return 6


# ---- Rows whose similarities are given: awkward sizes, and what surrounds a row


def given(kind: str, count: int, columns: int) -> Contest:
    """A contest of `count` anchors whose embeddings do not matter."""
    generator = torch.Generator().manual_seed(columns)
    first = torch.arange(count) % columns
    contest = Contest(torch.zeros(count, 1), torch.zeros(columns, 1), columns - 1, positive=first)
    if kind == "column":
        return contest
    if kind == "columns":
        return contest._replace(itself=(first + columns // 2) % columns, negatives=columns - 2)
    if kind == "ignored":
        return contest._replace(ignored=torch.rand(count, columns, generator=generator) < 0.3)
    labels, others = (torch.randint(0, 5, (size,), generator=generator) for size in (count, columns))
    assert kind == "labels"
    return contest._replace(positive=None, itself=first, anchor_labels=labels, candidate_labels=others)


def similarities(count: int, columns: int, seed: int = 0) -> Tensor:
    """A power law at the cap, with slopes of 1 to 4, and a positive that is sometimes beaten."""
    generator = torch.Generator().manual_seed(seed)
    slope = torch.linspace(1.0, 4.0, count).unsqueeze(1)
    return 1 - 1.5 * torch.rand(count, columns, generator=generator) ** (1 / slope)


MEASURES = {
    "all": Gate(evidence="beaten*endpoint"),
    "likelihood": Gate(evidence="beaten*endpoint", slope_estimator="maximum_likelihood"),
    "likelihood and lines": Gate(slope_estimator="maximum_likelihood"),
}


def passed(
    how: Any, here: Contest, similarity: Tensor, gate: Gate, smoothing: float = 0.1, eps: float = 1e-6
) -> tuple[TailFit, Values]:
    """Fits, and what `conclude` makes of some weights and slopes; `similarity` becomes its gradient."""
    like, count = similarity, len(similarity)
    scratch = like.new_empty(how.SCRATCH, *like.shape)
    with patch.object(rows, "USED", True):
        fit = how.measure(here, similarity, scratch, gate, eps)
        mixture = Mixture(torch.linspace(0.0, 1.0, count).to(like), torch.linspace(0.5, 5.0, count).to(like))
        terms = Terms(torch.tensor(8.0).to(like), eps, smoothing, False)
        factor = torch.linspace(0.5, 1.5, count).to(like)
        loss, counted, of_scale = how.conclude(here, similarity, scratch, mixture, terms, factor, True)
    return fit, {"loss": loss, "counted": counted, "of_scale": of_scale, "gradient": similarity}


def by_row(what: object, here: Contest, similarity: Tensor, gate: Gate) -> TailFit:
    """The kernels' passes beside the readable ones, field by field."""
    fits, values = [], []
    for how, dtype in ((rows, torch.float32), (passes, torch.float32), (passes, torch.float64)):
        fit, found = passed(how, here, similarity.to(dtype, copy=True), gate)
        fits.append(fit._asdict())
        values.append(found)
    no_worse(what, *fits)
    no_worse(what, *values)
    # Selected, not summed: the same bits.
    for name in ("nearness", "points", "beaten", "valid"):
        assert error(fits[0][name].double(), fits[1][name].double()) == 0, (what, name)
    return TailFit(**fits[0])


@contextmanager
def sizes_of(**constants: int) -> Iterator[None]:
    with ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(patch.object(rows, name, value))
        yield


SEVERAL = {"ONE_BLOCK": 16, "BLOCK": 16, "LINES": 16, "SORTED": 16}
"""A row of 33 or more in several blocks, and a tail of 20 sorted by PyTorch."""


def sizes(every: bool = False) -> int:
    """Rows in one block and in several, the last one cut; tails that PyTorch sorts, and lines in several blocks."""
    number = 0
    measures = [replace(gate, tail_min=20) for gate in MEASURES.values()]
    for constants, columns, kind in (
        ({}, 33, "columns"),
        ({}, 65, "labels"),
        ({"LINES": 16}, 64, "ignored"),
        (SEVERAL, 33, "labels"),
        (SEVERAL, 64, "column"),
        (SEVERAL, 65, "ignored"),
    ):
        for gate in measures if every else [measures[number % 3]]:
            with sizes_of(**constants):
                by_row((kind, columns, constants, gate.text), given(kind, 4, columns), similarities(4, columns), gate)
            number += 1
    for constants in ({}, {"ONE_BLOCK": 16, "BLOCK": 256}):
        with sizes_of(**constants):
            for gate in MEASURES.values() if every else [MEASURES["all"]]:
                by_row((1000, constants), given("ignored", 2, 1000), similarities(2, 1000), gate)
                number += 1
    return number


def surrounded(every: bool = False) -> int:
    """Columns and rows beyond a tile are neither read nor written, and every number that is returned is written."""
    number = 0
    torch.use_deterministic_algorithms(True)  # what is allocated is NaN
    unasked = {
        "all": set(),
        "likelihood": {"r2", "aic_gap"},
        "likelihood and lines": {"dispersion", "excess", "points", "beaten"},
    }
    for kind, columns, constants in (
        ("columns", 33, {}),
        ("ignored", 33, {"ONE_BLOCK": 16, "BLOCK": 16}),
        ("labels", 17, {"ONE_BLOCK": 16, "BLOCK": 16, "LINES": 16, "SORTED": 4}),
    ):
        for name in MEASURES if every else [[*MEASURES][number % 3]]:
            here, similarity = given(kind, 2, columns), similarities(2, columns)
            room = torch.full((4, columns + 20), float("nan"))
            inside = room[1:3, 7 : 7 + columns]
            inside.copy_(similarity)
            with sizes_of(**constants):
                alone, among = (passed(rows, here, one, MEASURES[name]) for one in (similarity, inside))
            for a, b in zip((*alone[0], *alone[1].values()), (*among[0], *among[1].values()), strict=True):
                assert torch.equal(torch.nan_to_num(a.double(), 9.0), torch.nan_to_num(b.double(), 9.0))
            assert not any(bool(value.isnan().any()) for value in among[1].values())
            assert {part for part, value in among[0]._asdict().items() if bool(value.isnan().any())} == unasked[name]
            inside.fill_(float("nan"))
            assert bool(room.isnan().all())
            number += 1
    torch.use_deterministic_algorithms(False)
    return number


def edges(every: bool = False) -> int:
    """Rows without negatives, ties, duplicates at the cap, tails of one, of two and of all, NaN, one column."""
    number, measures = 0, [*MEASURES.values()]
    for place, constants in enumerate(({}, {"ONE_BLOCK": 16, "BLOCK": 16, "SORTED": 4})):
        with sizes_of(**constants):
            for edge in (no_negatives, ties, duplicates):
                for gate in measures if every else [measures[(number + place) % 3]]:
                    edge(gate)
                    number += 1
            nan_in_a_row()
            number += 1
    # K = 1 and 2: too few for a line; of a fixed number of negatives, and of one that differs.
    for columns, kind in ((2, "column"), (3, "column"), (4, "columns"), (1, "column"), (3, "ignored")):
        for gate in measures if every else measures[:2]:
            by_row((columns, kind), given(kind, 2, columns), similarities(2, columns), gate)
            number += 1
    for size in ({"tail_fraction": 1.0}, {"tail_min": 100}, {"tail_fraction": 0.55, "tail_min": 1}):
        for kind in ("column", "labels"):
            gate = replace(measures[number % 3], **size)
            by_row((size, kind), given(kind, 2, 37), similarities(2, 37), gate)
            number += 1
    return number


def every_row() -> int:
    """Every size, surrounding and edge with every measure."""
    return sizes(every=True) + surrounded(every=True) + edges(every=True)


def no_negatives(gate: Gate) -> None:
    """The second row's are all ignored, the third has one."""
    here, similarity = given("ignored", 4, 21), similarities(4, 21)
    assert here.ignored is not None
    here.ignored[1:3] = True
    here.ignored[2, 5] = False
    fit = by_row("no negatives", here, similarity, gate)
    assert fit.nearness[1] == 2.0
    assert not fit.valid[1:3].any()
    assert fit.nearness[2] == 1 - similarity[2, 5]
    _, found = passed(rows, here, similarity.clone(), gate, smoothing=0.0)
    assert found["loss"][1] == 0.0
    assert not found["gradient"][1].any()
    # Without a positive either, none is counted.
    labels = given("labels", 4, 21)._replace(ignored=here.ignored, anchor_labels=torch.tensor([0, 9, 9, 9]))
    fit, found = passed(rows, labels, similarity.clone(), gate)
    assert found["counted"].tolist() == [True, False, False, False]
    assert not found["loss"][1:].any()
    assert not found["gradient"][1:].any()
    assert fit.beaten[1:].isnan().all()


def ties(gate: Gate) -> None:
    """Many as near as the threshold: a tail of as many as it should have. All alike: no slope."""
    here, similarity = given("column", 3, 40), similarities(3, 40)
    ordered = similarity[0, 1:].sort(descending=True).values
    similarity[0, 1:] = ordered[7]  # with six above them, of a tail of twelve
    similarity[0, 1:7] = ordered[:6]
    similarity[0, 30:] = ordered[30:39].min()
    similarity[1, 20:] = similarity[1, 2:20].max() - 0.1
    similarity[2] = 0.25
    fit = by_row("ties", here, similarity, replace(gate, tail_min=12))
    assert not fit.valid[2]
    assert fit.slope[2] == 0


def duplicates(gate: Gate) -> None:
    """Similarities of 1, and beyond it by rounding: shortfalls at their floor, whose own pull is none."""
    here, similarity = given("columns", 3, 40), similarities(3, 40)
    similarity[0, 3:9] = 1.0
    similarity[1, 3:] = 1.0
    similarity[2, 3:30] = 1.0 + 2.0**-23
    fit = by_row("duplicates", here, similarity, replace(gate, tail_min=12))
    assert fit.nearness.tolist() == [torch.tensor(1e-6).item()] * 3


def nan_in_a_row() -> None:
    """Its loss is NaN; others' are not."""
    here, similarity = given("columns", 4, 40), similarities(4, 40)
    clean = passed(rows, here, similarity.clone(), MEASURES["all"])[1]
    for column in (1, 9):  # the positive of the second row, and a negative
        dirty = similarity.clone()
        dirty[1, column] = float("nan")
        found = passed(rows, here, dirty, MEASURES["all"])[1]
        others = torch.tensor([0, 2, 3])
        assert found["loss"][1].isnan()
        assert torch.equal(found["loss"][others], clean["loss"][others])
        assert torch.equal(found["gradient"][others], clean["gradient"][others])
    dirty = similarity.clone()
    dirty[1, 21] = float("nan")  # itself, which takes no part
    assert torch.equal(passed(rows, here, dirty, MEASURES["all"])[1]["loss"], clean["loss"])


def embeddings() -> int:
    """NaN, infinity, zero rows, half precision and copies, from embeddings to gradients."""
    a, b = clusters(5, 5, dtype=torch.float32)

    def of(a: Tensor, b: Tensor, kernels: bool = True) -> list[Any]:
        leaves = [z.detach().clone().requires_grad_() for z in (a, b)]
        with patch.object(rows, "USED", kernels):
            output = whole_of(setups.two_views(*leaves), 0.2, GATES["paper"], implementation="tiled")
            output.loss.backward()
        return [output.per_anchor.detach(), *(leaf.grad for leaf in leaves)]

    for bad in (float("nan"), float("inf")):
        dirty = a.clone()
        dirty[2, 1] = bad
        assert of(dirty, b)[0].isnan().all()  # a candidate of everyone's
    zero = a.clone()
    zero[3] = 0.0
    losses, of_a, _ = of(zero, b)
    assert losses.isfinite().all()
    assert not of_a[3].any()
    same = of(a, a.roll(1, 0))
    assert all(value.isfinite().all() for value in same)
    for dtype in (torch.bfloat16, torch.float16):
        z_a, z_b = a.to(dtype), b.to(dtype)
        (loss, *found), (expected, *exact) = of(z_a, z_b), of(z_a.double(), z_b.double(), False)
        assert error(loss.double(), expected) < 2e-5
        for ours, theirs in zip(found, exact, strict=True):
            assert ours.dtype == dtype
            assert error(ours.double(), theirs) < 2 * torch.finfo(dtype).eps
    return 6


def units() -> int:
    """Unit rows and their gradient: narrow, in two blocks, not contiguous, of every scale and dtype."""
    number = 0
    wide = views(7, 1030)[0]
    narrow, strided = (wide[:, :1], wide[:, :3], wide[:, :130]), (wide[:, 1:20:3], wide[:, :6].T)
    scales = ((1.0, torch.float32), (1e-30, torch.float32), (1.0, torch.bfloat16), (30.0, torch.float16))
    for z in (*narrow, *strided, wide[:3], wide[:1].expand(4, -1)):
        for scale, dtype in scales:
            if dtype != torch.float32 and z.shape[1] > 200:
                continue
            base = (wide * scale).to(dtype)
            given_to = base.as_strided(z.shape, z.stride())
            direction = views(*z.shape, seed=1)[0]
            of_units = (direction, torch.ones(1).double().expand(z.shape), direction.T.contiguous().T)[number % 3]
            found = []
            for kernels, as_dtype in ((True, dtype), (False, dtype), (True, torch.float64)):
                leaf = given_to.detach().to(as_dtype).requires_grad_()  # where the dtype is the same, no copy
                with patch.object(rows, "USED", kernels):
                    unit = unit_rows(leaf)
                    (gradient,) = torch.autograd.grad(unit, leaf, of_units.to(unit.dtype))
                assert gradient.dtype == as_dtype
                found.append({"unit": unit.detach(), "gradient": gradient})
            # To bfloat16 the interpreter cuts, where a chip rounds.
            no_worse((tuple(z.shape), scale, dtype), *found, floor=max(FLOOR, torch.finfo(dtype).eps))
            number += 1
    z = torch.tensor([[0.0, 0.0], [1e-36, 0.0], [3e30, 4e30], [float("nan"), 1.0], [1.0, float("inf")]])
    with patch.object(rows, "USED", True):
        unit, inverse = rows.unit_rows(z)
    torch.testing.assert_close(unit[:3], torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.6, 0.8]]), rtol=FLOOR, atol=0.0)
    assert inverse[:2].tolist() == [0.0, 0.0]
    assert unit[3:].isnan().all()
    return number + 1


# ---- What holds the kernels


def modules() -> int:
    """A loss as a training has it: a temperature that learns, and autocast."""
    found = []
    for kernels, dtype in ((True, torch.float32), (False, torch.float32), (False, torch.float64)):
        a, b = (z.to(dtype).requires_grad_() for z in clusters(8, 5))
        criterion = TwoTowerLoss(LearnableTemperature(0.2), PAPER).to(dtype)
        with patch.object(rows, "USED", kernels), torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(a, b)
            gradients = torch.autograd.grad(loss, [a, b, *criterion.parameters()])
        found.append({"loss": loss.detach()} | {str(place): value for place, value in enumerate(gradients)})
    no_worse("module", *found, floor=OF_STEPS)
    return 1


def compiled() -> int:
    """torch.compile without a graph break: one operator of tiles, in which the kernels run."""
    named: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        named.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    launched: list[str] = []
    launch = rows.launch

    def counted(name: str, *rest: Any, **constants: Any) -> None:
        launched.append(name)
        launch(name, *rest, **constants)

    for make in (WEINCELoss, TwoTowerLoss):
        named.clear()
        launched.clear()
        results = []
        with patch.object(rows, "USED", True), patch.object(rows, "launch", counted):
            whole: nn.Module = make()
            for criterion in (torch.compile(whole, fullgraph=True, backend=backend), whole):
                a, b = (z.requires_grad_() for z in clusters(6, 4, dtype=torch.float32))
                loss = criterion(a, b)
                results.append((loss.detach(), *torch.autograd.grad(loss, (a, b))))
                if criterion is not whole:
                    assert launched == ["tails", "sort_rows", "lines", "weights", "conclude"]
        assert sum("weince.tiles" in name for name in named) == 1, named
        assert not any("triton" in name for name in named)
        for ours, theirs in zip(*results, strict=True):
            assert error(ours.double(), theirs.double()) < 1e-5
    return 2


_PARTS: Iterable[Callable[[], int]] = (
    settings, gates, options, more_options, every_setting, several_tiles, sizes, surrounded, edges, every_row,
    embeddings, units, modules, compiled,
)  # fmt: skip
PARTS = {part.__name__: part for part in _PARTS}

if __name__ == "__main__":
    main()
