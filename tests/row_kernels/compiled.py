"""The kernels compiled for real chips, without one: registers, spills and shared memory of what dispatch picks.

`python tests/row_kernels/compiled.py` compiles every variant for three chips and writes docs/kernels.csv, ten minutes;
test_compiled.py does some of them.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability
from triton.runtime import driver
from triton.runtime.jit import MockTensor

from weince import CAUTIOUS, ENDPOINT, INFONCE, PAPER, WEIBIT, Gate, setups
from weince.contest import Contest
from weince.tiles import kernels, rows
from weince.tiles.passes import Terms
from weince.tiles.sweep import sweep

OUT = Path(__file__).parents[2] / "docs" / "kernels.csv"
PAGE = OUT.with_name("gpu.md")
CHIPS = {80: "A100", 90: "H100", 100: "B200"}
COLUMNS = (
    "kernel",
    "variant",
    "row",
    "block",
    "warps",
    "capability",
    "chip",
    "registers",
    "spilled",
    "shared",
    "version",
)
SIZES = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Of the candidates: each block of `rows.ONE_BLOCK` and below, and one that is visited in parts."""
GATES = {"paper": PAPER, "endpoint": ENDPOINT, "cautious": CAUTIOUS, "weibit": WEIBIT, "infonce": INFONCE}
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64",
         torch.int8: "i8", torch.int32: "i32", torch.int64: "i64", torch.bool: "i1"}  # fmt: skip


class Launch(NamedTuple):
    """What dispatch asked for."""

    kernel: str
    programs: int
    arguments: tuple[Any, ...]
    warps: int
    constants: dict[str, Any]

    @property
    def variant(self) -> str:
        """What the compiler makes of it: kinds of arguments and constants."""
        chosen = ", ".join(f"{key}={value}" for key, value in self.constants.items() if key not in ("BLOCK", "ROW"))
        roles = [value for value in self.arguments if isinstance(value, tuple)]
        return chosen + (f"; {_roles(roles[0])}" if roles and self.kernel != "weights" else "")


def _roles(roles: tuple[Any, ...]) -> str:
    names = ("one positive", "itself", "mask", "ignored", "labels", "ids")
    return " + ".join(name for name, value in zip(names, roles, strict=False) if value is not None)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Launches are written down and not carried out."""
    seen: list[Launch] = []

    def launch(name: str, programs: int, device: torch.device, *given: Any, warps: int, **constants: Any) -> None:
        assert device.type == "cuda"
        seen.append(Launch(name, programs, given, warps, constants))

    with patch.object(rows, "launch", launch):
        yield seen


def contests(count: int) -> dict[str, Contest]:
    """One of every kind of role, of so many candidates, on a device of shapes alone."""
    a, b = (torch.empty(count, 128, device="cuda") for _ in range(2))
    ids = torch.empty(count, dtype=torch.int64, device="cuda")
    ignored = torch.empty(count, count, dtype=torch.bool, device="cuda")
    with patch.object(rows, "usable", lambda z: False):  # unit rows are launched below
        return {
            "two views": setups.two_views(a[: count // 2], b[: count // 2]),
            "two towers": setups.both_ways(setups.two_towers(a, b))[0],
            "two towers, ignored": setups.both_ways(setups.two_towers(a, b, ignored=ignored))[0],
            "two towers, ids": setups.two_towers(a, b, ids=ids),
            "labels": setups.labelled(a, ids),
            "queue": setups.queued(a, b, torch.empty(count - 1, 128, device="cuda")),
        }


def launches(sizes: tuple[int, ...] = SIZES) -> dict[tuple[Any, ...], Launch]:
    """Every variant that dispatch picks, by what tells it from others."""
    found: dict[tuple[Any, ...], Launch] = {}
    with FakeTensorMode(), recorded() as seen, torch.no_grad():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            z = torch.empty(8, 512, dtype=dtype, device="cuda")
            rows.of_unit_rows(torch.empty(8, 512, device="cuda"), *rows.unit_rows(z), dtype)
        for size in sizes:
            for contest in contests(size).values():
                for gate in (*GATES.values(), Gate(slope_max=4.0), Gate(evidence="nearness", slope=2.0)):
                    for smoothing, decoupled in ((0.0, False), (0.1, False), (0.0, True)):
                        if (smoothing or decoupled) and gate not in (PAPER, INFONCE):
                            continue
                        factor = torch.empty(contest.choices, device="cuda")
                        terms = Terms(torch.empty((), device="cuda"), 1e-6, smoothing, decoupled)
                        sweep(contest, gate, None, terms, factor, (True, True, False, not decoupled))
    for one in seen:
        found.setdefault(
            (one.kernel, one.variant, one.constants.get("ROW"), one.constants["BLOCK"], one.warps, *_types(one)), one
        )
    return found


def _types(launch: Launch) -> tuple[Any, ...]:
    """What the compiler tells arguments by: dtypes, and integers that are 1 or multiples of 16."""
    return tuple(map(_type, launch.arguments))


def _type(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_type, value))
    if isinstance(value, int):
        return value == 1, value % 16 == 0
    return value.dtype if isinstance(value, torch.Tensor) else type(value)


class _Driver:
    """A device of a capability, as far as Triton asks when it compiles for one and launches nothing."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def _stand_in(value: Any) -> Any:
    """Arguments with dtypes in the place of tensors, which have no address on a device of shapes alone."""
    if isinstance(value, tuple):
        return tuple(map(_stand_in, value))
    return MockTensor(value.dtype) if isinstance(value, torch.Tensor) else value


def compiled(launch: Launch, capability: int) -> dict[str, int]:
    """Registers a thread, bytes spilled a thread, bytes of shared memory.

    The kernel goes the way of a launch: its arguments are bound and specialised, its constants compared.
    """
    options = rows.compiler_options(launch.warps) | {"grid": (launch.programs,)}
    with patch.object(driver, "_active", _Driver(capability)):
        # What a launch compares with the last one is compared the second time.
        _, made = (
            getattr(kernels, launch.kernel).warmup(*map(_stand_in, launch.arguments), **launch.constants, **options)
            for _ in range(2)
        )
    return _told(made.asm["ptx"], capability) | {"shared": made.metadata.shared}


def _told(assembly: str, capability: int) -> dict[str, int]:
    """What the assembler says of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(assembly)
        chip = f"--gpu-name={sm_arch_from_capability(capability)}"
        as_triton_does = ("-lineinfo", "-v", "--regAllocOptLevel=2")
        command = [get_ptxas(capability).path, *as_triton_does, chip, source, "-o", Path(folder) / "kernel.cubin"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = re.findall(r"(\d+) bytes spill stores", said)
    registers = re.findall(r"Used (\d+) registers", said)
    return {"registers": int(registers[0]), "spilled": sum(map(int, spilled))}


def summary(rows_of: list[dict[str, str]]) -> str:
    """What docs/gpu.md says of them: a row a kernel."""
    lines = ["| kernel | variants | warps | " + " | ".join(f"registers, {name}" for name in CHIPS.values())
             + " | shared memory | spilled |", "|---|" + "---:|" * (len(CHIPS) + 4)]  # fmt: skip
    for kernel in dict.fromkeys(row["kernel"] for row in rows_of):
        own = [row for row in rows_of if row["kernel"] == kernel]
        registers = (max(int(row["registers"]) for row in own if row["chip"] == chip) for chip in CHIPS.values())
        warps = sorted({int(row["warps"]) for row in own})
        shared, spilled = (max(int(row[name]) for row in own) for name in ("shared", "spilled"))
        cells = (
            f"`{kernel}`",
            len(own) // len(CHIPS),
            " to ".join(map(str, dict.fromkeys((warps[0], warps[-1])))),
            *(f"up to {r}" for r in registers),
        )
        cells = (*map(str, cells), f"up to {shared:,} bytes", str(spilled))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def told() -> list[dict[str, str]]:
    """The rows of docs/kernels.csv."""
    with OUT.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """All of them, row by row."""
    capabilities = [int(word) for word in sys.argv[1:]] or list(CHIPS)
    with OUT.open("w", newline="") as file:
        writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        variants = launches()
        print(len(variants), "variants", flush=True)
        for one in variants.values():
            for capability in capabilities:
                row: dict[str, Any] = {"kernel": one.kernel, "variant": one.variant, "warps": one.warps}
                row |= {"row": one.constants.get("ROW", ""), "block": one.constants["BLOCK"]}
                row |= {"capability": capability, "chip": CHIPS[capability], "version": triton.__version__}
                writer.writerow(row | compiled(one, capability))
            file.flush()
    begin, end = "<!-- kernels: begin -->", "<!-- kernels: end -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(f"{before}{begin}\n{summary(told())}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
