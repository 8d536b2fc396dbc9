"""Which evidence opens the gate best: the paper's two factors, each alone, that of the fitted end, or none.

    python experiments/evidence.py PATH/TO/DATA --data cifar10|tiny-imagenet [--seeds 7 21 63]

6,000 images (4,000 train, 2,000 judge), the small encoder, batch 128, temperature 0.1; 20 epochs on CIFAR-10, 10 on
Tiny-ImageNet. Rows go to evidence.csv; the same command goes on where it was stopped. `--table` prints means and
differences, paired by seed, to the paper's gate.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from choosing import COLUMNS, measure
from filelock import FileLock

from weince import Gate
from weince.lab.intervals import paired

OUT = Path(__file__).with_name("evidence.csv")
BASE = "both"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    "infonce": {"loss": "infonce"},
    "endpoint": {"gate": Gate(evidence="endpoint")},
    "nearness*endpoint": {"gate": Gate(evidence="nearness*endpoint")},
    "nearness": {"gate": Gate(evidence="nearness")},
    "weight 1": {"gate": Gate(evidence=1.0)},
}
EPOCHS = {"cifar10": 20, "tiny-imagenet": 10}


def rows() -> list[dict[str, str]]:
    """Those that are there."""
    if not OUT.exists():
        return []
    with OUT.open(newline="") as file:
        return list(csv.DictReader(file))


def table() -> None:
    """Means over seeds, and paired differences to the base."""
    scores = {(row["data"], row["arm"], row["seed"]): row for row in rows()}
    for data in EPOCHS:
        print(data)
        for name in ARMS:
            seeds = [s for d, arm, s in scores if (d, arm) == (data, name) and (data, BASE, s) in scores]
            cells = [name.ljust(20), str(len(seeds))]
            for metric in ("linear_accuracy", "recall_at_1"):
                own, base = ([100 * float(scores[data, arm, s][metric]) for s in seeds] for arm in (name, BASE))
                gap = paired([a - b for a, b in zip(own, base, strict=True)]) if len(own) > 1 else None
                low_high = "" if gap is None or gap.low is None else f" [{gap.low:+.1f}, {gap.high:+.1f}]"
                cells.append(f"{np.mean(own):5.1f}  {np.mean(own) - np.mean(base):+.1f}{low_high}" if own else "-")
            print("  ".join(cells))


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, nargs="?")
    parser.add_argument("--data", choices=list(EPOCHS), default="cifar10")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 21, 63])
    parser.add_argument("--table", action="store_true")
    wanted = parser.parse_args()
    if wanted.table or wanted.data_dir is None:
        table()
        return
    for seed in wanted.seeds:
        for name, arm in ARMS.items():
            if any((row["data"], row["arm"], row["seed"]) == (wanted.data, name, str(seed)) for row in rows()):
                continue
            row = {"data": wanted.data} | measure(wanted.data_dir, name, arm, seed, wanted.data, EPOCHS[wanted.data])
            with FileLock(OUT.with_suffix(".lock")), OUT.open("a", newline="") as file:
                writer = csv.DictWriter(file, ("data", *COLUMNS), lineterminator="\n", extrasaction="ignore")
                if not file.tell():
                    writer.writeheader()
                writer.writerow(row)
            print(name, seed, f"{100 * row['linear_accuracy']:.1f} {100 * row['recall_at_1']:.1f}", flush=True)


if __name__ == "__main__":
    main()
