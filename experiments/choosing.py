"""Which settings matter: one changed at a time, from WEINCE at temperature 0.1 with the paper's gate.

    python experiments/choosing.py PATH/TO/cifar10 [--seeds 7 21 63]

6,000 CIFAR-10 images (4,000 train, 2,000 judge), the small encoder, 20 epochs of batch 128. Rows go to choosing.csv;
the same command goes on where it was stopped. `--table` prints the means and the paired differences.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weince import Gate
from weince.lab.data.sets import load
from weince.lab.evaluation.features import extract, freeze
from weince.lab.evaluation.probes import Labelled, fit_probe, neighbour_scores
from weince.lab.intervals import paired
from weince.lab.training.fit import train
from weince.lab.training.settings import ImageSettings, Run
from weince.shell.provenance import provenance

OUT = Path(__file__).with_name("choosing.csv")
COLUMNS = ("arm", "seed", "linear_accuracy", "knn_accuracy", "recall_at_1", "seconds", "commit", "torch")
BASE = "weince, temperature 0.1"


def arms() -> dict[str, dict[str, Any]]:
    """Name -> loss, temperature, gate, batch size, where they are not the base's."""
    found: dict[str, dict[str, Any]] = {BASE: {}}
    for temperature in (0.05, 0.2):
        found[f"weince, temperature {temperature:g}"] = {"temperature": temperature}
    for temperature in (0.1, 0.05, 0.2):
        found[f"infonce, temperature {temperature:g}"] = {"loss": "infonce", "temperature": temperature}
    for name, values in {
        "kappa_rho": (5.0, 20.0),
        "tail_fraction": (0.05, 0.3),
        "slope": ("unit",),
        "slope_estimator": ("maximum_likelihood",),
        "evidence": ("nearness",),
    }.items():
        for value in values:
            found[f"weince, {name} {value}"] = {"gate": Gate(**{name: value})}
    for size in (256,):
        found[f"weince, batch size {size}"] = {"batch_size": size}
        found[f"infonce, batch size {size}"] = {"batch_size": size, "loss": "infonce"}
    return found


def measure(
    data_dir: Path, name: str, arm: dict[str, Any], seed: int, data: str = "cifar10", epochs: int = 20
) -> dict[str, Any]:
    """Train one arm and judge it."""
    recipe = ImageSettings(
        data=data,
        data_dir=data_dir,
        subset=6000,
        validation_fraction=1 / 3,
        test_subset=200,
        epochs=epochs,
        batch_size=arm.get("batch_size", 128),
        gate=arm.get("gate", Gate()),
    )
    splits = load(recipe)
    run = Run(arm.get("loss", "weince"), arm.get("temperature", 0.1), seed)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(recipe, run, splits.pretraining, Path(folder), lambda epoch: None)
    encoder = freeze(trained.model.encoder)
    training, judged = (
        Labelled(extract(encoder, images.pixels), images.labels.numpy())
        for images in (splits.training, splits.validation)
    )
    # One penalty for all: what chose it would have to be held out from what judges.
    probe = fit_probe(training, judged, (1.0,))
    made = provenance(torch.device("cpu"))
    return {
        "arm": name,
        "seed": seed,
        "linear_accuracy": float(probe.model.score(*judged)),
        **{metric: value for metric, value in neighbour_scores(training, judged).items() if metric in COLUMNS},
        "seconds": round(trained.seconds, 1),
        "commit": made["commit"],
        "torch": made["torch"],
    }


def rows() -> list[dict[str, str]]:
    """Those that are there."""
    if not OUT.exists():
        return []
    with OUT.open(newline="") as file:
        return list(csv.DictReader(file))


def table() -> None:
    """Means over seeds, and paired differences to the base."""
    scores = {(row["arm"], row["seed"]): row for row in rows()}
    for name in arms():
        seeds = [seed for arm, seed in scores if arm == name and (BASE, seed) in scores]
        cells = [name.ljust(44), str(len(seeds))]
        for metric in ("linear_accuracy", "recall_at_1"):
            own = [100 * float(scores[name, seed][metric]) for seed in seeds]
            base = [100 * float(scores[BASE, seed][metric]) for seed in seeds]
            gap = paired([a - b for a, b in zip(own, base, strict=True)]) if len(own) > 1 else None
            low_high = "" if gap is None or gap.low is None else f" [{gap.low:+.1f}, {gap.high:+.1f}]"
            cells.append(f"{np.mean(own):5.1f}  {np.mean(own) - np.mean(base):+.1f}{low_high}" if own else "-")
        print("  ".join(cells))


def main() -> None:
    """Measure what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 21, 63])
    parser.add_argument("--table", action="store_true")
    wanted = parser.parse_args()
    if wanted.table or wanted.data_dir is None:
        table()
        return
    for seed in wanted.seeds:
        for name in arms():
            done = rows()
            if any((row["arm"], row["seed"]) == (name, str(seed)) for row in done):
                continue
            row = measure(wanted.data_dir, name, arms()[name], seed)
            with OUT.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
                if not done:
                    writer.writeheader()
                writer.writerow(row)
            print(name, seed, f"{100 * row['linear_accuracy']:.1f}", f"{row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
