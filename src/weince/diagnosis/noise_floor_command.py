"""`weince noise-floor`: what a softmax cannot learn of a shortfall law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from weince.shell.errors import UserError
from weince.shell.terminal import answered, table

__all__ = ["Simulation", "run"]


@dataclass(frozen=True)
class Simulation:
    """What can a softmax not learn of a shortfall law? The paper's toy, simulated beside theory, in seconds.

    Winners are drawn from the law, and two models with one parameter are fitted to them: the law itself (Weibit),
    whose error vanishes as winners are added, and a softmax in the score, which keeps an error that no number removes.

    Attributes:
        output: folder of the results, noise_floor.csv and noise_floor.png.
        repetitions: samples that are drawn of each size; their mean squared errors are compared with theory.
        seed: of the draws.
    """

    output: Path = Path("runs/noise-floor")
    repetitions: int = 12_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("repetitions", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"Parameter `{name}` should be an integer >= {least}. Found {getattr(self, name)}.")


def run(words: Sequence[str]) -> int:
    """`weince noise-floor`; returns the exit status."""
    return answered(lambda: _simulate(words), "Nothing was written.")


def _simulate(words: Sequence[str]) -> None:
    wanted = tyro.cli(Simulation, args=list(words), prog="weince noise-floor")
    # SciPy and matplotlib take longer to import than a refusal should.
    import numpy as np

    from weince.extremes import noise_floor
    from weince.extremes.plots import noise_floor_figure
    from weince.shell.figures import png
    from weince.shell.files import write_bytes, write_csv

    limit = noise_floor.theory()
    generator = np.random.default_rng(wanted.seed)
    found = [noise_floor.simulate(n, wanted.repetitions, generator) for n in noise_floor.SIZES]
    rows = [
        {**one._asdict(), "weibit_theory": limit.weibit_mse(one.n), "softmax_theory": limit.softmax_mse(one.n)}
        for one in found
    ]
    picture = wanted.output / "noise_floor.png"
    write_csv(wanted.output / "noise_floor.csv", rows)
    write_bytes(picture, png(noise_floor_figure(found, limit)))
    shown = table(
        f"Mean squared error of the log-odds, whose truth is {limit.log_odds:.4f}",
        ("n", "Weibit", "Weibit, theory", "softmax", "softmax, theory"),
    )
    for row in rows:
        errors = (row["weibit_mse"], row["weibit_theory"], row["softmax_mse"], row["softmax_theory"])
        shown.add_row(f"{row['n']:,}", *(f"{value:.5f}" for value in errors))
    Console().print(shown)
    print(f"The softmax converges to {limit.softmax_log_odds:.4f}: a squared error of {limit.floor:.4f} that stays.")
    print(f"{picture} shows it.")
