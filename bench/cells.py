"""A run of `gpu.py`: its rows, its time, and the cells of embeddings that it measures in that time."""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import weince.tiles.sweep
from competitors import TEMPERATURE, Competitor, Step, competitors, expected_ms, of_a_gpu, time_cell, too_much
from correctness.bounds import Check
from rows import COLUMNS, read, record, stamp
from weince import InfoNCELoss, WEINCELoss

CORE = ("floor (3 products)", "InfoNCE tiled", "WEINCE tiled", "lightly NTXentLoss")
"""What targets take; measured at every size and width."""
LEFT_OUT = ("retrieval", "MNRL", "pytorch-metric-learning", "compiled")
COMPILED = ("InfoNCE compiled", "WEINCE compiled")
COMPILED_SIZES = (512, 4096)
COMPILE_S = 45.0
"""What compiling one loss may take."""
ENOUGH_MS = 2e3
SWEPT = range(22, 29)
"""Exponents of TILE_ELEMENTS."""


class TimeUp(BaseException):
    """No `Exception`: nothing that reports a failure and goes on may catch it."""


class Planned(NamedTuple):
    """A cell of the plan."""

    names: Sequence[str]
    two_n: int
    width: int


class Run:
    """What was found so far, and how much time is left."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device: str = options.device
        self.options, self.out = options, options.out
        self.seconds = 60 * options.minutes
        self.started = time.monotonic()
        self.rows: list[dict[str, str]] = []
        self.missing: list[str] = []
        self.wrong: list[Check] = []
        self.checked = 0
        self.absent: set[str] = set()
        stamped = stamp(self.device)
        if options.resume:
            # Correctness is found anew: it tells whether the rest is worth keeping.
            known = [row for row in read(self.out) if all(row[name] == stamped[name] for name in stamped)]
            self.rows = [row for row in known if row["kind"] != "correctness"]

    @property
    def left(self) -> float:
        """Seconds, but for what is to be written then."""
        return self.seconds - 15 - (time.monotonic() - self.started)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Keep rows, and write them."""
        record(rows, self.device, self.out)
        stamped = stamp(self.device)
        self.rows += [{column: str({**row, **stamped}.get(column, "")) for column in COLUMNS} for row in rows]

    def miss(self, what: str) -> None:
        """Name what is not measured, now and at the end."""
        self.missing.append(what)
        print(f"not measured: {what}", flush=True)

    def has(self, metric: str, loss: str, two_n: int, width: int, kind: str = "") -> bool:
        """Whether there is such a row, of this run or of the one that it resumes."""
        asked = {"metric": metric, "loss": loss, "two_n": str(two_n), "width": str(width)}
        return any(
            all(row[name] == value for name, value in asked.items()) and row["kind"].startswith(kind)
            for row in self.rows
        )

    def before(self, two_n: int, width: int) -> dict[str, tuple[int, float, float]]:
        """The largest smaller size of each loss, its time in ms and, not looked at here, its memory."""
        found: dict[str, tuple[int, float, float]] = {}
        for row in self.rows:
            if row["metric"] == "step_ms" and row["width"] == str(width) and int(row["two_n"]) < two_n:
                here = int(row["two_n"]), float(row["value"]), 0.0
                found[row["loss"]] = max(found.get(row["loss"], here), here)
        return found


def plan(options: argparse.Namespace) -> tuple[list[Planned], list[Planned]]:
    """The cells before the training step, and those after it."""
    everyone = (*competitors(), *of_a_gpu(options.device))
    all_names = [name for name in everyone if not any(part in name for part in LEFT_OUT)]
    narrow, *wide = options.widths
    first = [Planned(all_names, two_n, narrow) for two_n in options.sizes if two_n <= 65536]
    after = [Planned(all_names, two_n, narrow) for two_n in options.sizes if two_n > 65536]
    after += [Planned(CORE, two_n, width) for width in wide for two_n in options.sizes[::3]]
    if options.device == "cuda":
        after += [Planned(COMPILED, two_n, narrow) for two_n in COMPILED_SIZES if two_n in options.sizes]
    return first, after


def time_cells(run: Run, cells: Sequence[Planned], reserve: float) -> None:
    """Rows of step_ms and, on a GPU, peak_mib.

    Args:
        run: where they go.
        cells: in this order, larger sizes after smaller ones.
        reserve: seconds that they leave.
    """
    everyone = {**competitors(), **of_a_gpu(run.device)}
    for names, two_n, width in cells:
        before = run.before(two_n, width)
        where = f"2N = {two_n:,}, D = {width}"
        if any(run.has("step_ms", name, two_n, width) for name in names):
            continue
        chosen = {}
        for name in names:
            if name in run.absent:
                continue
            if too_much(name, two_n, before, run.device, min(20.0, run.left / 10)):
                run.miss(f"{name} at {where}: about {expected_ms(name, two_n, before) / 1e3:.0f} s a step, by its last")
            else:
                chosen[name] = everyone[name]
        rounds = run.options.rounds or (15 if run.device == "cuda" and two_n <= 4096 else 7)
        warm_ups = 3 if run.device == "cuda" else 1
        ahead = sum(_seconds(expected_ms(name, two_n, before), rounds, warm_ups + 1) for name in chosen)
        if names is COMPILED:
            torch.compiler.reset()  # one shape, as a training has it
            ahead += COMPILE_S * len(names)
        if ahead > run.left - reserve:
            run.miss(f"{where}: it would take about {ahead:.0f} s, {max(0, run.left - reserve):.0f} s are left for it")
            continue
        times, peaks, failed = time_cell(chosen, two_n, width, run.device, rounds, warm_ups, ENOUGH_MS)
        rows = []
        for name, ms in times.items():
            cell = {"loss": name, "kind": everyone[name].kind, "two_n": two_n, "width": width}
            rows.append({"metric": "step_ms", "value": f"{ms:.4g}", "unit": "ms", **cell})
            if name in peaks:
                rows.append({"metric": "peak_mib", "value": round(peaks[name], 1), "unit": "MiB", **cell})
        run.add(rows)
        for name, why in failed.items():
            if why.endswith("is not installed"):
                run.absent.add(name)
                run.miss(f"{name}: {why}")
            else:
                run.miss(f"{name} at {where}: {why}")
        print(f"{where}:", ", ".join(f"{name} {ms:.3g} ms" for name, ms in times.items()), flush=True)
        tidy(run.device)


def _seconds(ms: float, rounds: int, more: int) -> float:
    """Of one competitor in a cell, at most."""
    return 1e-3 * (min(rounds * ms, ENOUGH_MS + ms) + more * ms)


def tidy(device: str) -> None:
    """Give back what a cell held."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def sweep_constants(run: Run) -> None:
    """Time and memory by the size of a tile."""
    table = weince.tiles.sweep.TILE_ELEMENTS
    usual = table[run.device]

    def of(exponent: int, criterion: Step) -> Competitor:
        def tiled(a: Tensor, b: Tensor) -> Tensor:
            table[run.device] = 2**exponent
            try:
                return criterion(a, b)
            finally:
                table[run.device] = usual

        return Competitor("2N anchors, swept", lambda: tiled)

    makers = {"InfoNCE": InfoNCELoss, "WEINCE": WEINCELoss}
    for two_n in [size for size in (4096, 16384, 65536) if size in run.options.sizes] or run.options.sizes[-1:]:
        chosen = {
            f"{name} tiled, 2^{exponent} elements": of(exponent, make(TEMPERATURE, implementation="tiled"))
            for exponent in SWEPT
            for name, make in makers.items()
        }
        width = run.options.widths[0]
        times, peaks, failed = time_cell(chosen, two_n, width, run.device, 5, 2, ENOUGH_MS)
        for metric, unit, values in (("step_ms", "ms", times), ("peak_mib", "MiB", peaks)):
            cell = {"kind": "2N anchors, swept", "two_n": two_n, "width": width, "unit": unit, "metric": metric}
            run.add([{"loss": name, "value": f"{value:.5g}", **cell} for name, value in values.items()])
        for name, why in failed.items():
            run.miss(f"{name} at 2N = {two_n:,}: {why}")
        print(f"2N = {two_n:,}:", ", ".join(f"{name} {ms:.3g} ms" for name, ms in times.items()), flush=True)
