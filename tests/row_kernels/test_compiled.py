"""Kernels compiled for real chips without one, and what dispatch picks of them: compiled.py compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")

from row_kernels.compiled import CHIPS, GATES, OUT, PAGE, SIZES, Launch, compiled, launches, recorded, summary, told
from weince import CAUTIOUS, PAPER, setups
from weince.contest import Contest
from weince.tiles import passes, rows
from weince.tiles.passes import Terms
from weince.tiles.sweep import sweep


@pytest.fixture(autouse=True)
def afresh(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what was compiled before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@lru_cache(maxsize=2)
def variants(sizes: tuple[int, ...] = (256, 4096, 8192, 16384)) -> list[Launch]:
    return [*launches(sizes).values()]


def the(kernel: str, *words: str, block: int | None = None, row: int | None = None) -> Launch:
    """The first variant with all these words."""
    return next(
        one
        for one in variants()
        if one.kernel == kernel
        and all(word in one.variant for word in words)
        and block in (None, one.constants["BLOCK"])
        and row in (None, one.constants.get("ROW"))
    )


LINES, LIKELIHOOD = "LIKELIHOOD=False", "LIKELIHOOD=True"
CHOSEN: dict[str, Callable[[], Launch]] = {
    # The largest blocks, in registers and in several visits; each kind of role.
    "a row in registers": lambda: the("tails", LINES, "MOMENTS=True", "+ itself", row=16384),
    "a row in parts": lambda: the("tails", LINES, "POSITIVES=True", "ids", row=0),
    "losses": lambda: the("conclude", "ZERO=False", "SMOOTH=True", "labels", block=1024),
    "likelihood": lambda: the("tails", LIKELIHOOD, "labels", row=4096),
    "sorting": lambda: the("sort_rows", block=1024),
    "lines": lambda: the("lines", block=256),
    "weights": lambda: the("weights", "POOL=True", "POSITIVES=True", "BOUNDED=True", block=1024),
    "nearness and lines": lambda: the("weights", "REFERENCE=True", "AIC=True", block=1024),
    "losses of ids": lambda: the("conclude", "ZERO=False", "ids", block=1024),
    "unit rows": lambda: the("unit_rows"),
    "their gradient": lambda: the("of_unit_rows"),
}
ON_EVERY_CHIP = 2


@pytest.mark.parametrize("capability", CHIPS)
def test_kernels_compile_without_spilling_registers(capability: int):
    """The first few for every chip, all for one; the table in docs is of all."""
    for name in [*CHOSEN][: None if capability == 90 else ON_EVERY_CHIP]:
        one = CHOSEN[name]()
        found = compiled(one, capability)
        assert found["spilled"] == 0, name
        assert found["shared"] <= 48 * 1024, name  # what every chip gives without being asked
        assert found["registers"] <= rows.registers(one.warps), name


@pytest.mark.exhaustive
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("capability", CHIPS)
def test_no_kernel_spills_registers(capability: int):
    spilled = [one for one in variants(SIZES) if compiled(one, capability)["spilled"]]
    assert spilled == []


def smallest() -> Iterator[Launch]:
    """Of one anchor, one candidate, one negative."""
    with FakeTensorMode(), recorded() as seen, torch.no_grad():
        a, b = (torch.empty(2, 3, device="cuda") for _ in range(2))
        ids = torch.empty(1, 2, dtype=torch.int64, device="cuda")
        with patch.object(rows, "usable", lambda z: False):
            queue, pair = setups.queued(a, b, a[:1]), setups.two_towers(a[:1], b[:1], ids=ids)
            labels = setups.labelled(a[:1], ids[:, 0])
            # One column before those that are shared, one id each.
            named = setups.queued(a[:1], b[:1], a, query_ids=ids[:, 0], queue_ids=ids[0])
        for contest, gate in (
            (queue, CAUTIOUS), (queue, GATES["weibit"]), (pair, PAPER), (labels, GATES["infonce"]), (named, PAPER),
        ):  # fmt: skip
            swept(contest, gate)
    yield from seen


def _ones(one: Launch) -> int:
    return sum(value == 1 for value in one.arguments if isinstance(value, int))


def swept(contest: Contest, gate: Any, **terms: Any) -> Any:
    like = contest.anchors
    factor = like.new_empty(contest.choices)
    given = Terms(like.new_empty(()), 1e-6, terms.get("smoothing", 0.0), terms.get("decoupled", False))
    return sweep(contest, gate, None, given, factor, (True, True, contest.own is not None, True))


def test_sizes_of_one_compile():
    """Triton takes an argument of 1 for a constant."""
    found = [*smallest()]
    assert sum(map(_ones, found)) > 20
    for one in found:
        assert compiled(one, 90)["spilled"] == 0


def test_what_dispatch_picks_fits_a_chip():
    """Blocks, warps and registers; a row of every number of columns up to the largest block, and beyond."""
    seen = [*variants(), *launches((2, 33, 8191, 8193)).values()]
    assert {one.kernel for one in seen} == {
        "unit_rows", "of_unit_rows", "tails", "sort_rows", "lines", "weights", "conclude",
    }  # fmt: skip
    for one in seen:
        block, warps, row = one.constants["BLOCK"], one.warps, one.constants.get("ROW", 0)
        assert block.bit_count() == 1
        assert 16 <= block <= rows.BLOCK
        assert warps.bit_count() == 1
        assert warps * 32 <= 1024
        assert warps * 32 * rows.registers(warps) <= 65536
        assert one.programs >= 1
        if row:
            columns = one.arguments[3]
            assert row.bit_count() == 1
            assert row // 2 < max(columns, 9) <= row
        lanes = max(block, row)
        assert lanes // (32 * warps) <= 16  # values that a thread holds at once


def test_shapes_of_what_is_launched():
    """Under a device of shapes alone: outputs have the dtypes that kernels write, and rows of their own."""
    with FakeTensorMode(), recorded() as seen, torch.no_grad():
        a, b = (torch.empty(33, 16, dtype=torch.bfloat16, device="cuda") for _ in range(2))
        contest = setups.two_views(a, b)
        output, gradient = swept(contest, CAUTIOUS)
    assert [one.kernel for one in seen] == ["unit_rows", "tails", "sort_rows", "lines", "weights", "conclude"]
    assert [one.programs for one in seen] == [66, 66, 66, 66, 1, 66]
    assert output.per_anchor.shape == output.weight.shape == output.tail.slope.shape == (66,)
    assert output.counted.dtype == output.tail.valid.dtype == torch.bool
    assert gradient.anchors.shape == (66, 16)
    assert {z.device.type for z in (output.loss, output.per_anchor, gradient.anchors)} == {"cuda"}
    assert all(value.dtype != torch.bool for one in seen for value in _tensors(one.arguments))


def _tensors(of: Any) -> Iterator[torch.Tensor]:
    for value in of:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


@pytest.mark.parametrize("gate", GATES)
def test_every_setting_is_dispatched(gate: str):
    """Kept and not kept, of a contest's every kind, as far as shapes go."""
    ids, mask = torch.int64, torch.bool
    with FakeTensorMode(), recorded() as seen, torch.no_grad():
        a, b = (torch.empty(6, 4, device="cuda") for _ in range(2))
        labels, own = torch.empty(6, dtype=ids, device="cuda"), torch.empty(6, 2, 4, device="cuda")
        ignored = torch.empty(6, 6, dtype=mask, device="cuda")
        made = [
            setups.two_views(a, b),
            setups.two_views(a, b, ignored=torch.empty(12, 12, dtype=mask, device="cuda")),
            *setups.both_ways(setups.two_towers(a, b)),
            *setups.both_ways(setups.two_towers(a, b, ignored=ignored)),
            *setups.both_ways(setups.two_towers(a, b, ids=labels)),
            setups.queued(a, b, torch.empty(9, 4, device="cuda")),
            setups.labelled(a, labels),
            setups.labelled(a, ignored, b),
            setups.labelled(a, labels, b, labels, ignored=ignored),
            setups.explicit_negatives(a, b),
            setups.explicit_negatives(a, b, own),
            setups.explicit_negatives(a, b, own, in_batch=False),
            setups.explicit_negatives(a, b, a[:3], in_batch=False),
        ]
        for contest in made:
            for kept in (True, False):
                with patch.dict("weince.tiles.sweep.KEPT_ELEMENTS", {} if kept else {"cuda": 0}):
                    seen.clear()
                    output, _ = swept(contest, GATES[gate])
                    assert output.per_anchor.shape == (contest.choices,)
                    assert "conclude" in [one.kernel for one in seen]


@pytest.mark.parametrize(
    ("dtype", "triton", "used", "kernels"),
    [
        (torch.float32, True, None, True),
        (torch.float32, True, False, False),
        (torch.float32, False, None, False),
        (torch.float64, True, None, False),
        (torch.float64, True, True, False),
        (torch.bfloat16, True, None, True),
    ],
)
def test_who_takes_the_kernels(dtype: torch.dtype, triton: bool, used: bool | None, kernels: bool):
    """Double precision and a PyTorch without Triton take the readable passes."""
    with (
        FakeTensorMode(),
        recorded() as seen,
        torch.no_grad(),
        patch.object(rows, "_has_triton", lambda: triton),
        patch.object(rows, "USED", used),
    ):
        z = torch.empty(8, 4, dtype=dtype, device="cuda")
        swept(setups.two_views(z, z), PAPER)
        assert bool(seen) == kernels == rows.usable(z)
    assert not rows.usable(torch.empty(2))  # on a CPU
    assert {*rows.__all__} >= {*passes.__all__} - {"Concluded", "Terms"}


@pytest.mark.parametrize(("version", "enough"), [("3.2.0", False), ("3.3.1", False), ("3.4.0", True), ("4.0", True)])
def test_an_old_triton_is_left_alone(version: str, enough: bool):
    rows._found_triton.cache_clear()
    with patch("triton.__version__", version):
        assert rows._has_triton() == enough
    rows._found_triton.cache_clear()


def test_a_compiler_asks_for_triton_and_goes_on():
    """Not traced, which would break the graph or warn."""
    torch.compiler.reset()
    asks = torch.compile(lambda x: x + 1 if rows._has_triton() else x, fullgraph=True, backend="eager")
    assert asks(torch.zeros(1)).item() == rows._has_triton()


@pytest.mark.skipif(not OUT.exists(), reason="no table yet: python tests/row_kernels/compiled.py")
def test_the_table_is_of_all_variants_and_none_spills():
    table = told()
    assert {row["spilled"] for row in table} == {"0"}
    listed = {
        (row["kernel"], row["variant"], row["row"], row["block"], row["warps"], row["capability"]) for row in table
    }
    # Every size takes its time; the script lists all of them.
    found = variants((512, 16384))
    of_each = [(one.kernel, one.variant, str(one.constants.get("ROW", "")), str(one.constants["BLOCK"]), str(one.warps))
               for one in found]  # fmt: skip
    expected = {(*each, str(capability)) for each in of_each for capability in CHIPS}
    assert listed >= expected
    assert {each[:2] for each in expected} == {each[:2] for each in listed}
    assert len(table) > len(found) * len(CHIPS)
    assert summary(told()) in PAGE.read_text(encoding="utf-8")
    assert max(SIZES) > rows.ONE_BLOCK
