"""The recipe: one typed, validated object that says everything a comparison does, as TOML and on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from weince.gate import Gate
from weince.lab.rivals.criteria import Rivals
from weince.shell.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore

__all__ = [
    "PAPER_TEMPERATURE",
    "REFERENCE",
    "Comparison",
    "Data",
    "Loss",
    "Metric",
    "Recipe",
    "preset",
    "read",
    "reason",
    "write",
]

Data = Literal["digits", "cifar10", "cifar100", "stl10", "imagenet32", "tiny-imagenet", "folder"]
Encoder = Literal["small", "resnet-small", "resnet18", "resnet50", "vit-small"]
Loss = Literal["infonce", "weince", "weince-released", "dcl", "hard-negatives", "matched-temperature"]
Metric = Literal["linear_accuracy", "knn_accuracy", "recall_at_1", "recall_at_5", "recall_at_10", "recall_at_20"]
Protocol = Literal["published", "lightly"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32-true", "bf16-mixed", "64-true"]

REFERENCE: Loss = "infonce"
"""The loss that the others are compared with."""
PAPER_TEMPERATURE = 0.5
"""InfoNCE at this temperature is what the paper compares with."""


class Comparison(BaseModel):
    """What every recipe of a comparison has: losses, temperatures and seeds, tried alike, and a folder of results."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    FREE: ClassVar[frozenset[str]]
    """Settings in which a continued comparison may differ: finished runs stay what they are."""
    PLACES: ClassVar[frozenset[str]]
    """Settings that say where things lie on one machine: left out of results, which people send to each other."""

    name: str
    output: Path
    losses: tuple[Any, ...]
    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise UserError("\n".join(reason(item, type(self)) for item in error.errors())) from None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        for setting in ("losses", "temperatures", "seeds"):
            values = getattr(self, setting)
            if len(set(values)) < len(values):
                raise ValueError(f"`{setting}` names something twice: {list(values)}")
        if REFERENCE not in self.losses:
            raise ValueError(f'`losses` must hold "{REFERENCE}", with which the others are compared')
        return self

    def differences(self, other: Self) -> list[str]:
        """Settings, those of FREE aside, in which another recipe differs, for a message."""
        before, now = (recipe.model_dump(mode="json", exclude=set(self.FREE)) for recipe in (other, self))
        return [f"{key}: {before[key]!r} there, {now[key]!r} now" for key in now if before[key] != now[key]]

    def told(self) -> dict[str, Any]:
        """The settings as a result keeps them: without places, and without those that are None."""
        return self.model_dump(mode="json", exclude_none=True, exclude=set(self.PLACES))

    @property
    def folder(self) -> Path:
        """Where the results of this comparison lie."""
        return self.output / self.name


class Recipe(Comparison):
    """Everything a comparison does. On a CPU, with the same number of threads, equal recipes give equal numbers.

    The images of another `data_dir` must be the same ones, pixel by pixel.
    """

    FREE: ClassVar = frozenset({"losses", "temperatures", "seeds", "output", "data_dir", "keep_every", "protocols"})
    PLACES: ClassVar = frozenset({"output", "data_dir"})

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "digits"
    """Folder of the results, under `output`."""
    output: Path = Path("runs")
    """Where results go."""

    data: Data = "digits"
    """Images: scikit-learn's digits, a published set, or a folder of images."""
    data_dir: Path | None = None
    """Folder of the published files (docs/data.md; `weince data` fetches them), or of the images: CLASS/IMAGE, or
    train/CLASS/IMAGE with test, val or valid."""
    subset: Annotated[int, Field(ge=20)] | None = None
    """Training and validation images to use, the same share of every class; all when not given."""
    test_subset: Annotated[int, Field(ge=10)] | None = None
    """Test images to use, likewise."""
    pretrain_on: Literal["training", "training+validation"] = "training"
    """What the loss sees, without labels. STL-10 has images without labels for it: those are taken."""
    pretrain_subset: Annotated[int, Field(ge=20)] | None = None
    """Images without labels to use, of a set that has such; all when not given."""
    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    """Edge length in pixels to which images are resized; when not given, 32 for those of a folder and their own
    otherwise."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    """Share of the training images that chooses temperatures and regularisation, never trained on."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of subsets and splits, which are the same for every run."""

    encoder: Encoder = "small"
    """Six 3x3 convolutions (wide enough for a CPU); a narrow ResNet of four blocks; or timm's ResNet-18, ResNet-50
    (with a 3x3 stem and no max-pool up to 64 pixels) or ViT-Small (64 patches)."""
    projection: Annotated[int, Field(ge=2)] = 64
    """Width of the projection, where the loss is computed."""

    losses: Annotated[tuple[Loss, ...], Field(min_length=1)] = ("infonce", "weince")
    """What is compared. "weince-released" is slope 1 with the two extra top-M terms; "dcl", "hard-negatives" and
    "matched-temperature" are other answers (`weince.lab.rivals.criteria`)."""
    temperatures: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.05, 0.1, 0.2, 0.5, 1.0)
    """Every loss is tried at every one of these."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)] = (7, 21, 63)
    """Seeds of initial weights, order of data and views, the same for every loss and temperature."""
    gate: Gate = Gate()
    """How WEINCE measures weight and slope."""
    rivals: Rivals = Rivals()
    """Settings of the other answers."""

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

    select_by: Metric = "linear_accuracy"
    """Validation score, averaged over seeds, by which each loss's temperature is chosen."""
    protocols: tuple[Protocol, ...] = ()
    """Other evaluations of the chosen runs, beside our own: the paper's as published, the field's as in lightly."""
    drop_last: bool = False
    """Whether the published protocol scores whole batches of 256 alone, as the released evaluation does."""
    device: Device = "auto"
    """Where to train; auto takes a CUDA GPU when there is one."""
    precision: Precision = "32-true"
    """Of the encoder; the loss is always float32 or better. "bf16-mixed" is for GPUs; "64-true" is slow: for checks to
    many digits."""
    channels_last: bool = True
    """Memory layout of images and convolutions; faster on CPUs and on GPUs with tensor cores."""
    compile: bool = False
    """Whether the encoder is compiled (`torch.compile`): a minute before the first step, a few per cent after it."""

    @model_validator(mode="after")
    def _has_its_data(self) -> Recipe:
        if self.data == "digits" and self.data_dir is not None:
            raise ValueError('data "digits" ships with scikit-learn: leave `data_dir` out, or name other `data`')
        if self.image_size is not None and self.data == "digits":
            raise ValueError('`image_size` resizes photographs; data "digits" has its own size')
        return self


class Run(NamedTuple):
    """What differs between the runs of a comparison."""

    loss: Loss
    temperature: float
    seed: int

    @property
    def slug(self) -> str:
        """Folder name."""
        return f"{self.loss}-t{self.temperature!r}-s{self.seed}"


def preset(data: Data) -> dict[str, Any]:
    """Settings from which a comparison on `data` starts when no file is given."""
    return {"name": data, "data": data} | ({} if data == "digits" else {"epochs": 100})


def reason(item: Any, recipe: type[BaseModel]) -> str:
    """What is wrong with a setting of such a recipe, from an item of pydantic's list of errors."""
    where = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ").rstrip(".")
    if not where:
        return f"Contradiction: {message}."
    if item["type"] == "extra_forbidden":
        return f"Setting `{where}` is unknown. Known: {', '.join(recipe.model_fields)}."
    return f"Setting `{where}`: {message}. Found {item['input']!r}."


def read(path: Path) -> dict[str, Any]:
    """Settings of a TOML file, not yet validated.

    Raises:
        UserError: no such file, or not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"Recipe {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"Recipe {path} is not TOML: {error}.") from None


def write(recipe: BaseModel) -> str:
    """TOML text that `read` and the recipe's class turn into an equal one; settings left out are None."""
    return tomli_w.dumps(_without_none(recipe.model_dump(mode="json")))


def _without_none(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in settings.items()
        if value is not None
    }
