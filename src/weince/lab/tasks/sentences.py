"""Sentences: SimCSE, judged by the STS Benchmark. A trial that was killed half-way is repeated from its start.

    <folder of a trial>/
      history.csv, test_similarities.npy, model/ with `keep_models`
      validation.json   it is finished when this is there

The cosine similarities of the test pairs are kept beside each run, but met with people's scores only where the run is
reported, so that encoders need not be kept.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weince.lab.data.text import load_text
from weince.lab.engine.outcomes import packed_all
from weince.lab.engine.task import Settings
from weince.lab.launch import launched
from weince.lab.published import published
from weince.lab.rivals import NAMES
from weince.lab.tasks.recipe.sentences import SentencesRecipe
from weince.lab.training.settings import Run
from weince.lab.training.simcse import (
    dev_spearman,
    load_encoder,
    place,
    similarities,
    spearman,
    spearman_outcomes,
    told_apart,
    train_simcse,
    weights_digest,
)
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_bytes, write_json
from weince.shell.provenance import provenance
from weince.shell.words import count

__all__ = ["Sentences"]

LIBRARIES = ("sentence-transformers", "transformers", "tokenizers", "datasets", "accelerate")


class Sentences:
    """The task of a recipe.

    Raises:
        UserError: several processes; unreadable text, an encoder that cannot be had or has no dropout, a GPU that is
            not there.
    """

    metrics: Mapping[str, str] = {"spearman": "STS-B Spearman"}
    unit = "steps"
    untrained = "the untrained encoder"

    def __init__(self, recipe: SentencesRecipe) -> None:
        if launched() is not None:
            raise UserError('Task "sentences" trains with one process: start it without torchrun.')
        self.recipe = recipe
        place(recipe)
        self.text = load_text(recipe)
        if len(self.text.sentences) < recipe.batch_size:
            raise UserError(
                f"Setting `batch_size`: should be at most the number of sentences, {len(self.text.sentences)}. "
                f"Found {recipe.batch_size}."
            )
        encoder = load_encoder(recipe)
        if told_apart(encoder, self.text.sentences[0]) == 0.0:
            raise UserError(
                "Setting `dropout`: should be > 0, here or in the encoder: without it a sentence's two views are the "
                f"same. Found {'none in the encoder' if recipe.dropout is None else recipe.dropout}."
            )
        self.digest = weights_digest(encoder)
        self.facts = (
            f"{len(self.text.sentences):,} sentences, {len(self.text.dev.scores):,} dev and "
            f"{len(self.text.test.scores):,} test pairs of the STS Benchmark",
            f"encoder {recipe.encoder}, {count(recipe.epochs, 'epoch')} of batch {recipe.batch_size}",
            _published(),
        )

    def amount(self, settings: Settings) -> int:
        """Steps."""
        own = self.recipe.applied(settings)[0]
        return own.epochs * (len(self.text.sentences) // own.batch_size)

    def fingerprint(self) -> str:
        """Of all text, and of the encoder before training."""
        return f"{self.text.fingerprint} {self.digest}"

    def train(
        self, loss: str, settings: Settings, seed: int, folder: Path, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        """Train, and judge by the dev pairs."""
        done = folder / "validation.json"
        if done.is_file():
            return read_json(done)
        own, temperature = self.recipe.applied(settings)
        progress(0)
        trained = train_simcse(own, Run(loss, temperature, seed), self.text, folder, progress)
        if not trained.diverged:
            kept = io.BytesIO()
            np.save(kept, similarities(trained.encoder, self.text.test), allow_pickle=False)
            write_bytes(folder / "test_similarities.npy", kept.getvalue())
            if own.keep_models:
                shutil.rmtree(folder / "model", ignore_errors=True)
                trained.encoder.save(str(folder / "model"), create_model_card=False)
        found = {
            "diverged": trained.diverged,
            "scores": {"spearman": 0.0 if trained.diverged else trained.dev},
            "step": trained.step,
            "mean_weight": trained.mean_weight,
            "seconds": round(trained.seconds, 2),
            "made": provenance(place(own), LIBRARIES),
        }
        write_json(done, found)
        return found

    def test(self, loss: str, settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
        """The kept similarities of the test pairs, met with people's scores."""
        kept = np.load(folder / "test_similarities.npy", allow_pickle=False)
        return {
            "scores": {"spearman": spearman(kept, self.text.test)},
            "outcomes": packed_all({"spearman": spearman_outcomes(kept, self.text.test)}),
            "curves": _curves(folder / "history.csv"),
        }

    def untrained_scores(self) -> dict[str, dict[str, float]]:
        """Of the encoder as it is before training."""
        encoder = load_encoder(self.recipe)
        return {
            "validation": {"spearman": dev_spearman(encoder, self.text.dev)},
            "test": {"spearman": spearman(similarities(encoder, self.text.test), self.text.test)},
        }


def _published() -> str:
    known = next(row.estimates for row in published() if row.benchmark == "stsb")
    told = (f"{100 * mean:.2f} ± {100 * (half or 0):.2f} for {NAMES[loss]}" for loss, (mean, half) in known.items())
    return f"published, of an encoder, sentences and a temperature not known to us: {', '.join(told)}"


def _curves(path: Path) -> dict[str, list[float]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    columns = {"loss": "loss", "gradient_norm": "grad_norm", "weight": "weight"}
    return {name: [float(f"{float(row[column]):.6g}") for row in rows] for name, column in columns.items()}
