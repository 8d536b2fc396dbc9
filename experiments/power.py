"""How often the test of an exponential tail says no: size, power, and the penultimate shape of normal scores.

    python experiments/power.py [--repetitions 2000]

Independent scores; the largest `share` of them are exceedances over the next one. Rows go to power.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from scipy.stats import expon, genpareto, norm

from weince.extremes.gpd import exponential_test, moment_fit

OUT = Path(__file__).with_name("power.csv")
LAWS = {
    "exponential": lambda g, n: expon.rvs(size=n, random_state=g),
    "normal": lambda g, n: norm.rvs(size=n, random_state=g),
    "GPD -0.1": lambda g, n: genpareto.rvs(-0.1, size=n, random_state=g),
    "GPD -0.2": lambda g, n: genpareto.rvs(-0.2, size=n, random_state=g),
    "GPD -0.39": lambda g, n: genpareto.rvs(-0.39, size=n, random_state=g),
}
TAILS = ((510, 0.1), (5_000, 0.1), (5_000, 0.01), (10_000, 0.1), (50_000, 0.01), (100_000, 0.01), (100_000, 0.001))


def main() -> None:
    """Simulate every law at every tail."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    with OUT.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["law", "scores", "share", "exceedances", "rejected", "error", "mean_shape"])
        for law, draw in LAWS.items():
            for scores, share in TAILS:
                many = repetitions if scores <= 10_000 else repetitions // 4
                generator, n = np.random.default_rng([scores, round(1 / share)]), round(scores * share)
                found, shapes = [], []
                for _ in range(many):
                    s = draw(generator, scores)
                    top = np.partition(s, scores - n - 1)[scores - n - 1 :]
                    y = np.sort(top)[1:] - top.min()
                    found.append(exponential_test(y).p_value <= 0.05)
                    shapes.append(moment_fit(y).shape)
                rate = float(np.mean(found))
                error = float(np.sqrt(max(rate * (1 - rate), 1 / many) / many))
                writer.writerow([law, scores, share, n, f"{rate:.3f}", f"{error:.3f}", f"{np.mean(shapes):.3f}"])
                print(law, scores, share, n, f"{rate:.3f}", f"{np.mean(shapes):.3f}", flush=True)


if __name__ == "__main__":
    main()
