"""What is read: images or texts, which of them, and how they are split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from weince.lab.settings import Settings
from weince.shell.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AlignedData", "Data", "ImageData", "LabelledData", "SentenceData"]

Data = Literal["digits", "cifar10", "cifar100", "stl10", "imagenet32", "tiny-imagenet", "folder"]


class ImageData(Settings):
    """Images, and how they are split."""

    data: Data = "digits"
    """Images: scikit-learn's digits, a published set, or a folder of images."""
    data_dir: Path | None = None
    """Folder of the published files (`weince data` fetches them), or of the images: CLASS/IMAGE, or train/CLASS/IMAGE
    with test, val or valid beside it."""
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
    """Share of the training images that chooses settings and regularisation, never trained on."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of subsets and splits, which are the same for every run."""

    @model_validator(mode="after")
    def _has_its_data(self) -> Self:
        if self.data == "digits" and self.data_dir is not None:
            raise ValueError('data "digits" ships with scikit-learn: leave `data_dir` out, or name other `data`')
        if self.image_size is not None and self.data == "digits":
            raise ValueError('`image_size` resizes photographs; data "digits" has its own size')
        return self

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused.

        Raises:
            UserError: no folder is given, or there is none.
        """
        if self.data != "digits":
            _check_folder("data_dir", self.data_dir, f'data "{self.data}" needs the folder that holds it')


class SentenceData(Settings):
    """Sentences to train on, and the pairs of the STS Benchmark to judge by."""

    stsb_dir: Path | None = None
    """Folder of the STS Benchmark: sts-train.csv, sts-dev.csv, sts-test.csv as published."""
    sentences: Path | None = None
    """Text file to train on, a sentence a line, as SimCSE's wiki1m_for_simcse.txt; the sentences of sts-train.csv,
    without their scores, when not given. Each is used once."""
    subset: Annotated[int, Field(ge=2)] | None = None
    """Sentences to use, drawn by `split_seed`; all when not given."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the subset, which is the same for every run."""

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused.

        Raises:
            UserError: no folder is given, or there is none.
        """
        _check_folder("stsb_dir", self.stsb_dir, "needs the folder of sts-train.csv, sts-dev.csv and sts-test.csv")


class LabelledData(Settings):
    """Texts with a label each, and how they are split."""

    data_dir: Path | None = None
    """A table of texts and labels (csv, tsv, json lines, json, parquet; .gz or not), or a folder with one, or with
    train and, if there are, val and test tables."""
    text_column: str | None = None
    """Column of the texts; found by its name when not given."""
    label_column: str | None = None
    """Column of the labels; likewise."""
    shots: Annotated[int, Field(ge=2)] | None = None
    """Texts of each label to train on, drawn by `split_seed`; all when not given."""
    subset: Annotated[int, Field(ge=8)] | None = None
    """Training texts to use, the same share of every label; all when not given."""
    test_subset: Annotated[int, Field(ge=8)] | None = None
    """Test texts to use, likewise."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.2
    """Share of the training texts that chooses settings, where there is no validation table."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of subsets and splits, which are the same for every run."""

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused.

        Raises:
            UserError: no file or folder is given, or there is none.
        """
        _check_place("data_dir", self.data_dir, "needs a table of texts and labels, or a folder that holds one")


class AlignedData(Settings):
    """Pairs of texts, one of each side, and how they are split."""

    data_dir: Path | None = None
    """Folder of two aligned text files, a text a line (of each part, as train.en and train.de, where they are split),
    or a table with a column for each side; .gz or not."""
    left: str | None = None
    """The left side: what its files are called beside the part (as "en"), a file, or a column; found when not given."""
    right: str | None = None
    """The right side, likewise."""
    subset: Annotated[int, Field(ge=8)] | None = None
    """Training pairs to use, drawn by `split_seed`; all when not given."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.9)] = 0.1
    """Share of the training pairs that chooses settings, where there is no validation part."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of subsets and splits, which are the same for every run."""

    def check_places(self) -> None:
        """Refuse what needs no reading to be refused.

        Raises:
            UserError: no file or folder is given, or there is none.
        """
        _check_place("data_dir", self.data_dir, "needs two aligned text files, or a table with a column for each side")


def _check_place(setting: str, place: Path | None, needs: str) -> None:
    if place is None:
        raise UserError(f"Setting `{setting}`: {needs}. Found nothing.")
    if not place.exists():
        raise UserError(f"Setting `{setting}`: {needs}. Found nothing at {place}.")


def _check_folder(setting: str, folder: Path | None, needs: str) -> None:
    if folder is None:
        raise UserError(f"Setting `{setting}`: {needs}. Found nothing.")
    if not folder.is_dir():
        raise UserError(f"Setting `{setting}`: {needs}. Found no folder {folder}.")
