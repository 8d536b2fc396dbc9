"""`weince noise-floor`: what a softmax cannot learn of a shortfall law."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from weince.extremes import noise_floor
from weince.extremes.plots import noise_floor_figure
from weince.shell.files import write_bytes, write_csv

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince noise-floor`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="weince noise-floor", description=noise_floor.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("runs/noise-floor"), help="folder of the CSV and the figure"
    )
    parser.add_argument("--repetitions", type=int, default=12_000, help="samples of each size (12000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    wanted = parser.parse_args(list(words))
    for name, value, least in (("repetitions", wanted.repetitions, 2), ("seed", wanted.seed, 0)):
        if value < least:
            print(f"Parameter `--{name}` should be an integer >= {least}. Found {value}.", file=sys.stderr)
            return 2
    limit = noise_floor.theory()
    generator = np.random.default_rng(wanted.seed)
    found = [noise_floor.simulate(n, wanted.repetitions, generator) for n in noise_floor.SIZES]
    rows = [
        {**one._asdict(), "weibit_theory": limit.weibit_mse(one.n), "softmax_theory": limit.softmax_mse(one.n)}
        for one in found
    ]
    table = Table(title=f"Mean squared error of the log-odds, whose truth is {limit.log_odds:.4f}")
    for column in ("n", "Weibit", "theory", "softmax", "theory "):
        table.add_column(column, justify="right")
    for row in rows:
        errors = (row["weibit_mse"], row["weibit_theory"], row["softmax_mse"], row["softmax_theory"])
        table.add_row(str(row["n"]), *(f"{value:.5f}" for value in errors))
    buffer = io.BytesIO()
    noise_floor_figure(found, limit).savefig(buffer, format="png", dpi=160, facecolor="white")
    try:
        write_csv(wanted.output / "noise_floor.csv", rows)
        write_bytes(wanted.output / "noise_floor.png", buffer.getvalue())
    except OSError as error:
        print(f"{error.filename or wanted.output}: {error.strerror or error}.", file=sys.stderr)
        return 2
    Console().print(table)
    print(f"The softmax converges to {limit.softmax_log_odds:.4f}: a squared error of {limit.floor:.4f} that stays.")
    print(f"{wanted.output / 'noise_floor.png'} shows it.")
    return 0
