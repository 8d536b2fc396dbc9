"""The loss on a GPU, in one command: is it right there, what does it take, are the targets met.

    python bench/gpu.py [--minutes 8] [--resume] [--sweep]     # torch and triton are enough
    python bench/gpu.py --device cpu --quick                   # the same program, for a test

In this order: correctness; time and peak memory of forward + backward beside InfoNCE, other libraries and the bare
products; the step of a ResNet-18 and a ViT-S; larger widths; what is compiled. Rows are written after every cell, so a
run that is killed, or whose time is up, keeps what it has, and `--resume` goes on there. What is not installed, too
slow, or out of memory is left out and named at the end. Exit status 1 means that something was wrong, not slow.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))  # what is measured is this checkout, installed or not

import torch

import step
from cells import Run, TimeUp, plan, sweep_constants, tidy, time_cells
from competitors import reason
from correctness import gates, oracle
from correctness.bounds import Check, Work
from rows import RESULTS, stamp
from targets import verdicts
from weince import CAUTIOUS, InfoNCELoss, WEINCELoss

SIZES = {"cuda": (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072), "cpu": (64, 128, 256, 512)}
WIDTHS = {"cuda": (128, 512, 768), "cpu": (128,)}
QUICK = {"sizes": (64, 128), "widths": (32,), "encoders": ("resnet18",)}
ENCODERS = {"cuda": ("resnet18", "vit-small"), "cpu": ("resnet18",)}
SHARE_OF_CHECKS, SHARE_OF_STEP = 0.35, 0.25
"""Of the whole time: correctness takes no more, the first cells leave as much for the training step."""


# ---- Is it right?


def check(run: Run) -> None:
    """Every check, each a row with its bound; what is wrong is told at once and does not stop the rest."""
    works: list[Work] = []
    try:
        works += oracle.checks(run.device, run.options.quick)
    except ImportError as error:
        run.miss(f"oracle and golden cases: they need the folder tests/ and NumPy ({reason(error)})")
    works += gates.checks(run.device, run.options.quick)
    for work in works:
        if time.monotonic() - run.started > SHARE_OF_CHECKS * run.seconds:
            run.miss(f"correctness of {work.name}: its share of the time is up")
            continue
        try:
            found = work.checks()
        except Exception as error:
            found = [Check(work.name, math.inf, 0.0, reason(error))]
        rows = []
        for each in found:
            cell = {"unit": "relative", "loss": each.name, "kind": "correctness"}
            rows += [
                {"metric": "error", "value": f"{each.error:.2e}", **cell},
                {"metric": "error_bound", "value": f"{each.bound:.2e}", **cell},
            ]
            if not each.passed:
                run.wrong.append(each)
                print(f"WRONG: {_told(each)}", flush=True)
        run.checked += len(found)
        run.add(rows)
    print(f"correctness: {run.checked} checks, {len(run.wrong)} wrong, {time.monotonic() - run.started:.0f} s")


def _told(wrong: Check) -> str:
    return f"{wrong.name}: error {wrong.error:.2e}, bound {wrong.bound:.2e} ({wrong.where})"


# ---- What does it take in training?


def train(run: Run) -> None:
    """The whole training step with each loss."""
    cuda = run.device == "cuda"
    batch = step.BATCH if cuda else 2
    for name in run.options.encoders:
        encoder = step.ENCODERS[name]
        if run.has("step_overhead", "WEINCE", 2 * batch, step.WIDTH, encoder.title):
            continue
        losses = {"InfoNCE": InfoNCELoss(), "WEINCE": WEINCELoss(), "WEINCE cautious": WEINCELoss(gate=CAUTIOUS)}
        until = time.monotonic() + min(60.0, run.left / 3)
        rounds, steps = (12, 10 if name == "resnet18" else 4) if cuda else (1 if run.options.quick else 3, 1)
        try:
            rows = step.measure(name, losses, run.device, batch, rounds, steps, until)
        except Exception as error:  # not installed, out of memory
            run.miss(f"the step of {encoder.title}: {reason(error)}")
            tidy(run.device)
            continue
        run.add(rows)
        told = (f"{row['loss']} {row['value']} ms" for row in rows if row["metric"] == "train_step_ms")
        print(f"step of {encoder.title}, batch {batch}:", ", ".join(told), flush=True)
        tidy(run.device)


# ---- One command.


def draw(run: Run) -> None:
    """The figure."""
    width = str(run.options.widths[0])
    if run.options.figure is None or not any((row["metric"], row["width"]) == ("step_ms", width) for row in run.rows):
        return
    try:
        from figure import draw as draw_rows

        draw_rows(run.rows, run.options.figure, width)
    except Exception as error:  # above all matplotlib that is not there; the verdicts are to come
        run.miss(f"the figure: {reason(error)}")


def _work(run: Run) -> None:
    check(run)
    if run.device == "cpu":
        run.miss("peak memory: on a CPU it takes a process for each number, which bench/loss.py starts")
    first, after = plan(run.options)
    time_cells(run, first, SHARE_OF_STEP * run.seconds if run.options.encoders else 0.0)
    train(run)
    time_cells(run, after, 5.0)
    if run.options.sweep:
        sweep_constants(run)


def main() -> int:
    """Measure, write, print the verdicts; 1 where something was wrong."""
    options = parsed()
    warnings.simplefilter("ignore")
    run = Run(options)
    print("; ".join(stamp(run.device).values()), flush=True)

    def ring(*_: object) -> None:
        raise TimeUp

    signal.signal(signal.SIGALRM, ring)
    # What a plan cannot foresee, a compiler above all, is cut off: before the end, for imports were not counted and
    # something is left to write; again and again, for a destructor may swallow one.
    signal.setitimer(signal.ITIMER_REAL, max(1.0, run.seconds - 15), 5.0)
    try:
        _work(run)
    except TimeUp:
        run.miss(f"what was to come: {options.minutes:g} minutes are up")
    signal.setitimer(signal.ITIMER_REAL, 0)
    draw(run)
    print("\n" + "; ".join(stamp(run.device).values()))
    if run.device == "cpu":
        print("The targets are a GPU's; on a CPU these lines show only that the program runs.")
    print("\n".join(verdicts(run.rows)))
    for what in run.missing:
        print(f"not measured: {what}")
    for wrong in run.wrong:
        print(f"WRONG: {_told(wrong)}")
    print(f"correctness: {run.checked} checks, {len(run.wrong)} wrong")
    print(f"{run.out}, {time.monotonic() - run.started:.0f} s")
    return 1 if run.wrong else 0


def parsed() -> argparse.Namespace:
    """The command line; what cannot be is refused in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, the default, or cpu")
    parser.add_argument("--out", type=Path, default=RESULTS.with_name("gpu.csv"))
    parser.add_argument("--figure", type=Path, help="default: docs/gpu.png on a GPU, none on a CPU")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--sizes", type=int, nargs="+", help="embeddings in a batch, 2N")
    parser.add_argument("--widths", type=int, nargs="+", help="the first at all sizes, the others at every third")
    parser.add_argument("--encoders", nargs="*", choices=list(step.ENCODERS), help="of the training step")
    parser.add_argument("--rounds", type=int, help="of each cell")
    parser.add_argument("--quick", action="store_true", help="few sizes and checks: does the program run?")
    parser.add_argument("--resume", action="store_true", help="leave out what the file has of this device and commit")
    parser.add_argument("--sweep", action="store_true", help="tiles of 2^22 to 2^28 elements as well")
    options = parser.parse_args()
    _refuse(options.device not in SIZES, f'--device should be "cuda" or "cpu". Found {options.device!r}.')
    none = options.device == "cuda" and not torch.cuda.is_available()
    _refuse(none, "--device cuda: PyTorch sees no GPU here. Give --device cpu for a trial of the program.")
    usual = {"sizes": SIZES[options.device], "widths": WIDTHS[options.device], "encoders": ENCODERS[options.device]}
    for name, value in {**usual, **(QUICK if options.quick else {})}.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.quick and options.rounds is None:
        options.rounds = 3
    options.sizes = sorted(set(options.sizes))
    odd = [size for size in options.sizes if size < 16 or size % 8]
    _refuse(bool(odd), f"--sizes should be multiples of 8 from 16 on. Found {odd[:1]}.")
    _refuse(min(options.widths) < 1, f"--widths should be >= 1. Found {min(options.widths)}.")
    _refuse(not 0 < options.minutes < math.inf, f"--minutes should be > 0. Found {options.minutes:g}.")
    _refuse(options.rounds is not None and options.rounds < 1, f"--rounds should be >= 1. Found {options.rounds}.")
    if options.figure is None and options.device == "cuda":
        options.figure = RESULTS.parents[1] / "docs" / "gpu.png"
    for path in (options.out, options.figure):
        _refuse(path is not None and not path.parent.is_dir(), f"no folder {path and path.parent}.")
    return options


def _refuse(condition: bool, message: str) -> None:
    if condition:
        print(f"gpu.py: error: {message}", file=sys.stderr)
        raise SystemExit(2)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
