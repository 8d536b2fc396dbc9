"""What a loss costs: forward and backward on embeddings, side by side with the InfoNCE of other libraries.

    python bench/loss.py [--sizes 512 4096] [--widths 128] [--only "WEINCE tiled" "lightly NTXentLoss"]

Every cell is timed in this one process, as `competitors.py` does it. Peak extra memory is read in a process of its own.
A step that would take more than a minute, or more memory than there is, by what the next smaller size took, is skipped
and marked.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from competitors import competitors, embeddings, gpu_peak_mib, once, time_cell, too_much
from rows import RESULTS, record

SIZES = (512, 2048, 4096, 8192, 16384, 65536)
WIDTHS = (128, 64, 512)


def peak_mib(name: str, two_n: int, width: int, device: str) -> float | None:
    """Peak memory of one forward and backward beyond what the process held before it, in a process of its own."""
    words = ["--memory-of", name, "--size", str(two_n), "--width", str(width), "--device", device]
    command = [sys.executable, __file__, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return float(ran.stdout) if ran.returncode == 0 else None


def _peak_here(name: str, two_n: int, width: int, device: str) -> float:
    step = competitors()[name].make()
    once(step, embeddings(64, width, device))
    z = embeddings(two_n, width, device)
    if device == "cuda":
        return gpu_peak_mib(step, z)
    # Not ru_maxrss: a child inherits its parent's peak.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_peak_kib()
    once(step, z)
    return (_resident_peak_kib() - before) / 2**10


def _resident_peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    """Measure, write the rows, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--only", nargs="+", default=list(competitors()))
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    warnings.simplefilter("ignore")
    if wanted.memory_of:
        print(_peak_here(wanted.memory_of, wanted.size, wanted.width, wanted.device))
        return
    for width in wanted.widths:
        before: dict[str, tuple[int, float, float]] = {}
        for two_n in sorted(wanted.sizes):
            names = [name for name in wanted.only if not too_much(name, two_n, before, wanted.device)]
            times, _, failed = time_cell({name: competitors()[name] for name in names}, two_n, width, wanted.device)
            for name, why in failed.items():
                print(f"{name}, 2N = {two_n}: {why}", flush=True)
            rows = []
            for name in wanted.only:
                cell = {"loss": name, "kind": competitors()[name].kind, "two_n": two_n, "width": width}
                ms = times.get(name)
                rows.append(
                    {"metric": "step_ms", "value": "skipped" if ms is None else round(ms, 3), "unit": "ms", **cell}
                )
                peak = None if ms is None else peak_mib(name, two_n, width, wanted.device)
                if ms is not None and peak is not None:
                    before[name] = (two_n, ms, peak)
                    rows.append({"metric": "peak_mib", "value": round(peak, 1), "unit": "MiB", **cell})
            record(rows, wanted.device, wanted.out)
            print(width, two_n, {name: round(ms, 1) for name, ms in times.items()}, flush=True)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
