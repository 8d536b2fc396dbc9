"""The benchmark of a GPU, run on the CPU: what it writes, says and refuses, and that its checks can fail."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

BENCH = Path(__file__).parents[1] / "bench"
DIMENSIONS = {"kind": "2N anchors", "device": "a GPU", "versions": "", "commit": "", "unit": ""}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A module of the folder, as the scripts there import it."""
    monkeypatch.syspath_prepend(str(BENCH))
    return import_module


def ran(*words: object) -> tuple[int, str, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCH / "gpu.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    return done.returncode, done.stdout, done.stderr


def row(metric: str, loss: str, value: float | str, two_n: int = 4096, width: int = 128, **more: str) -> dict[str, str]:
    cell = {"metric": metric, "loss": loss, "value": str(value), "two_n": str(two_n), "width": str(width)}
    return {**DIMENSIONS, **cell, **more}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- The command.


def test_the_command_measures_writes_and_gives_verdicts(tmp_path: Path, bench: Callable[[str], ModuleType]):
    out = tmp_path / "gpu.csv"
    other = row("step_ms", "WEINCE tiled", 1.0, two_n=64, width=32, device="another GPU")
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, bench("rows").COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerow(other)
    status, said, errors = ran("--device", "cpu", "--quick", "--out", out, "--encoders")
    assert (status, errors) == (0, "")
    first, *rows = read(out)
    assert first == other
    assert {each["device"] for each in rows} == {rows[0]["device"]}
    assert f"torch {torch.__version__.split('+')[0]}" in rows[0]["versions"]
    assert "triton" in rows[0]["versions"]
    times = {(each["loss"], each["two_n"]): float(each["value"]) for each in rows if each["metric"] == "step_ms"}
    for loss in ("floor (3 products)", "InfoNCE tiled", "WEINCE tiled", "WEINCE cautious tiled", "Weibit tiled"):
        assert times[loss, "64"] > 0
        assert times[loss, "128"] > 0
    found = {each["loss"]: float(each["value"]) for each in rows if each["metric"] == "error"}
    bounds = {each["loss"]: float(each["value"]) for each in rows if each["metric"] == "error_bound"}
    assert found.keys() == bounds.keys()
    assert all(found[name] <= bounds[name] for name in bounds)
    for part in ("golden", "oracle", "bfloat16", "float16", "autocast", "TF32", "repeated", "compiled", "small tiles"):
        assert any(part in name for name in found), part
    ratio = times["WEINCE tiled", "64"] / times["InfoNCE tiled", "64"]
    assert f"WEINCE / own InfoNCE at 2N = 64, D = 32: {ratio:.2f} (target <= 1.3) " in said
    assert "not measured: peak extra memory of WEINCE at 2N = 65,536 (target <= 1024 MiB)\n" in said
    assert "not measured: WEINCE / bare three products from 2N = 4,096 on" in said
    assert f"{len(found)} checks, 0 wrong" in said

    # No time for anything: what is in the file is neither lost nor measured again, and still judged.
    status, said, _ = ran("--device", "cpu", "--quick", "--out", out, "--resume", "--minutes", 0.05, "--sizes", 64, 256)
    assert status == 0
    assert f"WEINCE / own InfoNCE at 2N = 64, D = 32: {ratio:.2f} (target <= 1.3) " in said
    assert "not measured: what was to come: 0.05 minutes are up" in said
    assert [each for each in read(out) if each["metric"] == "step_ms"] == [first] + [
        each for each in rows if each["metric"] == "step_ms"
    ]


def test_no_gpu_is_told_in_one_line():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    status, said, errors = ran()
    assert (status, said) == (2, "")
    assert (
        errors
        == "gpu.py: error: --device cuda: PyTorch sees no GPU here. Give --device cpu for a trial of the program.\n"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "tpu"], '--device should be "cuda" or "cpu". Found \'tpu\'.'),
        (["--device", "cpu", "--sizes", "64", "100"], "--sizes should be multiples of 8 from 16 on. Found [100]."),
        (["--device", "cpu", "--widths", "0"], "--widths should be >= 1. Found 0."),
        (["--device", "cpu", "--minutes", "nan"], "--minutes should be > 0. Found nan."),
        (["--device", "cpu", "--rounds", "0"], "--rounds should be >= 1. Found 0."),
        (["--device", "cpu", "--out", "/nowhere/gpu.csv"], "no folder /nowhere."),
    ],
)
def test_bad_words_are_refused(
    words: list[str],
    told: str,
    bench: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit) as refused:
        bench("gpu").parsed()
    assert refused.value.code == 2
    assert capsys.readouterr().err == f"gpu.py: error: {told}\n"


# ---- Verdicts.


def test_a_verdict_takes_losses_of_one_size_width_and_kind(bench: Callable[[str], ModuleType]):
    rows = [
        row("step_ms", "WEINCE tiled", 2.6),
        row("step_ms", "InfoNCE tiled", 2.0),
        row("step_ms", "WEINCE tiled", 30.0, two_n=65536),
        row("step_ms", "InfoNCE tiled", 20.0, two_n=65536),
        row("step_ms", "InfoNCE tiled", 1.0, width=512),
        row("step_ms", "InfoNCE tiled", 1.0, two_n=8192, kind="2N anchors, swept"),
        row("step_ms", "WEINCE tiled", 9.0, two_n=8192),
        row("step_ms", "floor (3 products)", 0.5, two_n=512),
        row("step_ms", "WEINCE tiled", 5.0, two_n=512),
        row("step_ms", "InfoNCE tiled", "skipped", two_n=512),
        row("peak_mib", "WEINCE tiled", 400.0, two_n=65536),
        row("peak_mib", "WEINCE tiled", 4000.0, two_n=131072),
        row("step_overhead", "WEINCE", 0.504, kind="ResNet-18, 32 px, batch 256"),
        row("step_overhead", "WEINCE", 0.3, kind="ViT-S/16, 128 px, batch 256"),
        row("step_overhead_low", "WEINCE", -0.2, kind="ViT-S/16, 128 px, batch 256"),
        row("step_overhead_high", "WEINCE", 0.9, kind="ViT-S/16, 128 px, batch 256"),
    ]
    assert bench("targets").verdicts(rows) == [
        "WEINCE / own InfoNCE: NOT met, 1 of 2 (target <= 1.3)",
        "  WEINCE / own InfoNCE at 2N = 4,096, D = 128: 1.30 (target <= 1.3) met",
        "  WEINCE / own InfoNCE at 2N = 65,536, D = 128: 1.50 (target <= 1.3) NOT met",
        "not measured: WEINCE / lightly's plain InfoNCE (target <= 1)",
        "not measured: WEINCE / bare three products from 2N = 4,096 on (target <= 2)",
        "step overhead of WEINCE over InfoNCE: NOT met, 1 of 2 (target <= 0.5 %)",
        "  step overhead of WEINCE over InfoNCE in ResNet-18, 32 px, batch 256: 0.5040 % (target <= 0.5 %) NOT met",
        "  step overhead of WEINCE over InfoNCE in ViT-S/16, 128 px, batch 256: 0.30 % (target <= 0.5 %) met; "
        "the middle half of the rounds from -0.2 to 0.9 %",
        "peak extra memory of WEINCE at 2N = 65,536, D = 128: 400 MiB (target <= 1024 MiB) met",
    ]


# ---- Checks that can fail.


def rounded(z: Tensor, to: Callable[[Tensor], Tensor]) -> Tensor:
    """With the gradient of the identity."""
    return z + (to(z) - z).detach()


def to_tf32(z: Tensor) -> Tensor:
    """Ten bits behind the point."""
    large = z * (2.0**13 + 1)
    return large - (large - z)


@pytest.mark.parametrize(
    ("broken", "wrong"),
    [
        (lambda z: z, set()),
        (lambda z: rounded(z, to_tf32), {"TF32 allowed: loss", "bfloat16 autocast: loss"}),
        (lambda z: rounded(z, lambda v: v.bfloat16().float()), {"TF32 allowed: loss", "float16 embeddings: loss"}),
        (lambda z: 1.01 * z - 0.01 * z.detach(), {"bfloat16 autocast: gradient", "float16 embeddings: gradient"}),
        (lambda z: z * float("nan"), {"TF32 allowed: loss", "bfloat16 embeddings: gradient"}),
    ],
    ids=["right", "products in TF32", "products in bfloat16", "a gradient that is a hundredth too large", "NaN"],
)
@pytest.mark.parametrize("gate", ["PAPER", "INFONCE"])
def test_a_wrong_loss_is_found(
    broken: Callable[[Tensor], Tensor],
    wrong: set[str],
    gate: str,
    bench: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
):
    gates = bench("correctness.gates")
    right = gates.loss_of

    def loss_of(batch: Any, gate: str, path: str) -> Callable[..., Tensor]:
        loss = right(batch, gate, path)
        return loss if path == "dense" else lambda *given: loss(*map(broken, given[:-1]), given[-1])

    monkeypatch.setattr(gates, "loss_of", loss_of)
    one, tight = gates.views_batch(41, 7), gates.views_batch(41, 7, spread=0.03)._replace(name="near the cap")
    found = {check.name for check in gates._precisions(one, tight, gate, "tiled", "cpu") if not check.passed}
    assert found >= {f"{gate} tiled, {name}" for name in wrong}
    assert bool(found) == bool(wrong)


def test_what_is_wrong_is_told_and_written_and_stops_nothing(
    tmp_path: Path, bench: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    gpu, bounds = bench("gpu"), bench("correctness.bounds")

    def broken() -> list[Any]:
        raise RuntimeError("illegal memory access\nand a long trace")

    def absent(*_: object) -> list[Any]:
        raise ModuleNotFoundError("No module named 'contests'", name="contests")

    works = [
        bounds.Work("first", broken),
        bounds.Work("second", lambda: [bounds.Check("second", 2e-6, 1e-6, "2N = 4, D = 3")]),
        bounds.Work("third", lambda: [bounds.Check("third", 1e-6, 1e-6)]),
    ]
    monkeypatch.setattr(gpu.oracle, "checks", absent)
    monkeypatch.setattr(gpu.gates, "checks", lambda *_: works)
    run = gpu.Run(Namespace(device="cpu", out=tmp_path / "gpu.csv", minutes=1.0, resume=False, quick=True))
    gpu.check(run)
    assert [check.name for check in run.wrong] == ["first", "second"]
    assert run.missing == ["oracle and golden cases: they need the folder tests/ and NumPy (contests is not installed)"]
    said = capsys.readouterr().out
    assert "WRONG: first: error inf, bound 0.00e+00 (RuntimeError: illegal memory access)\n" in said
    assert "WRONG: second: error 2.00e-06, bound 1.00e-06 (2N = 4, D = 3)\n" in said
    kept = [(each["loss"], each["value"]) for each in read(run.out) if each["metric"] == "error"]
    assert kept == [("first", "inf"), ("second", "2.00e-06"), ("third", "1.00e-06")]


def test_who_is_not_there_or_fails_is_named(bench: Callable[[str], ModuleType]):
    competitors = bench("competitors")

    def absent() -> Any:
        raise ModuleNotFoundError("No module named 'lightly.loss'", name="lightly.loss")

    def full(a: Tensor, b: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 64.00 GiB.")

    chosen = {
        "lightly": competitors.Competitor("2N anchors", absent),
        "dense": competitors.Competitor("2N anchors", lambda: full),
        "floor": competitors.Competitor("2N anchors", lambda: competitors.floor),
    }
    cell = competitors.time_cell(chosen, 64, 8, "cpu", rounds=2)
    assert cell.times.keys() == {"floor"}
    assert cell.failed == {
        "lightly": "lightly is not installed",
        "dense": "OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 GiB.",
    }


def test_the_bare_products_are_the_same_in_pieces(bench: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch):
    competitors = bench("competitors")
    z_a, z_b = competitors.embeddings(64, 8, "cpu")
    whole = competitors.floor(z_a, z_b)
    monkeypatch.setattr(competitors, "FLOOR_ELEMENTS", 64 * 5)
    torch.testing.assert_close(competitors.floor(z_a, z_b), whole)
