"""Every published layout, written small by the tests, comes back as the pixels and labels that were written."""

import os
import pickle

import numpy as np
import pytest
import torch

import published
from published import CLASSES, TEST, TRAIN, drawn, md5
from weince.lab.data.sets import load
from weince.lab.tasks.recipe.images import ImagesRecipe as Recipe
from weince.shell.errors import UserError

WRITERS = {
    "cifar10": published.cifar10,
    "cifar100": published.cifar100,
    "imagenet32": published.imagenet32,
    "stl10": published.stl10,
    "tiny-imagenet": published.tiny_imagenet,
}
PLACES = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "stl10": "stl10_binary"}


def recipe(data, folder, **settings):
    return Recipe(data=data, data_dir=folder, batch_size=8, **settings)


@pytest.mark.parametrize("data", WRITERS)
def test_pixels_and_labels_are_those_that_were_written(data, tmp_path, monkeypatch):
    WRITERS[data](tmp_path, monkeypatch)
    size = {"stl10": 96, "tiny-imagenet": 64}.get(data, 32)
    splits = load(recipe(data, tmp_path))
    pixels, labels = drawn(TEST, size, 1)
    order = np.lexsort(pixels.reshape(TEST, -1).T[:3]), np.lexsort(splits.test.pixels.flatten(1).numpy().T[:3])
    assert np.array_equal(splits.test.pixels.numpy()[order[1]], pixels[order[0]])
    assert np.array_equal(splits.test.labels.numpy()[order[1]], labels[order[0]])
    rest = torch.cat([splits.training.pixels, splits.validation.pixels]).flatten(1).numpy()
    both = torch.cat([splits.training.labels, splits.validation.labels]).numpy()
    wanted = {image.tobytes(): label for image, label in zip(*drawn(TRAIN, size), strict=True)}
    assert {image.tobytes(): label for image, label in zip(rest, both, strict=True)} == wanted
    assert splits.test.pixels.dtype == torch.uint8
    assert splits.test.pixels.is_contiguous()
    assert list(splits._asdict()) == ["training", "validation", "test", "pretraining"]
    assert splits.notes == ()


@pytest.mark.parametrize("data", PLACES)
def test_the_files_may_lie_in_a_folder_of_any_name(data, tmp_path, monkeypatch):
    WRITERS[data](tmp_path, monkeypatch)
    before = load(recipe(data, tmp_path)).fingerprint
    (tmp_path / PLACES[data]).rename(tmp_path / "mine")
    assert load(recipe(data, tmp_path / "mine")).fingerprint == before


def test_stl10_is_pretrained_on_its_images_without_labels(tmp_path, monkeypatch):
    published.stl10(tmp_path, monkeypatch)
    splits = load(recipe("stl10", tmp_path))
    assert np.array_equal(splits.pretraining.pixels.numpy(), drawn(30, 96, 2)[0])
    assert (splits.pretraining.labels == -1).all()
    some = load(recipe("stl10", tmp_path, pretrain_subset=20))
    assert len(some.pretraining.labels) == 20
    assert some.fingerprint != splits.fingerprint
    with pytest.raises(UserError, match=r"`pretrain_subset`.*30.*Found 31"):
        load(recipe("stl10", tmp_path, pretrain_subset=31))


def test_pretraining_may_see_the_validation_images_too(tmp_path, monkeypatch):
    published.cifar10(tmp_path, monkeypatch)
    own, all_of_them = (
        load(recipe("cifar10", tmp_path, pretrain_on=what)) for what in ("training", "training+validation")
    )
    assert own.pretraining is own.training
    assert len(all_of_them.pretraining.labels) == TRAIN
    assert len(all_of_them.training.labels) == 48
    assert own.fingerprint != all_of_them.fingerprint


def test_numbers_are_resized_by_averaging(tmp_path, monkeypatch):
    published.stl10(tmp_path, monkeypatch)
    splits = load(recipe("stl10", tmp_path, image_size=32))
    assert tuple(splits.pretraining.pixels.shape) == (30, 3, 32, 32)
    large = load(recipe("stl10", tmp_path)).pretraining.pixels.double().mean()
    assert splits.pretraining.pixels.double().mean() == pytest.approx(float(large), abs=1)


@pytest.mark.parametrize(
    ("data", "file", "says"),
    [
        ("imagenet32", "train_data_batch_4.npz", "not a readable npz"),
        ("tiny-imagenet", "tiny-imagenet-200/val/images/val_003.JPEG", "not a readable image"),
    ],
)
def test_a_file_cut_short_is_named(data, file, says, tmp_path, monkeypatch):
    WRITERS[data](tmp_path, monkeypatch)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-101])
    with pytest.raises(UserError, match=says) as error:
        load(recipe(data, tmp_path))
    assert path.name in str(error.value)


def test_an_npz_of_other_arrays_and_a_class_that_is_none_are_named(tmp_path, monkeypatch):
    published.imagenet32(tmp_path, monkeypatch)
    path = tmp_path / "val_data.npz"
    for data, labels, says in (
        (np.zeros((4, 3072), np.float32), np.ones(4), "uint8"),
        (np.zeros((4, 3072), np.uint8), np.ones(3), "as many labels"),
        (np.zeros((4, 3072), np.uint8), np.zeros(4, int), "from 1"),
        (np.zeros((4, 3072), np.uint8), np.array([{}] * 4), "not a readable npz"),  # pickled, and never unpickled
    ):
        np.savez(path, data=data, labels=labels)
        with pytest.raises(UserError, match=rf"val_data\.npz.*{says}"):
            load(recipe("imagenet32", tmp_path))
    published.tiny_imagenet(tmp_path, monkeypatch)
    notes = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    notes.write_text(notes.read_text().replace("n09", "n77", 1))
    with pytest.raises(UserError, match=f"one of the {CLASSES} classes"):
        load(recipe("tiny-imagenet", tmp_path))
    with pytest.raises(UserError, match=r"unlabeled_X\.bin.*weince data stl10"):
        load(recipe("stl10", tmp_path))


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("data", "file"),
    [
        *(("cifar10", file) for file in ("data_batch_1", "data_batch_5", "test_batch", "batches.meta")),
        *(("cifar100", file) for file in ("train", "test", "meta")),
        *(("stl10", file) for file in ("train_y.bin", "unlabeled_X.bin", "test_X.bin")),
    ],
)
@pytest.mark.parametrize("change", ["hostile", "hostile at the end", "cut", "one bit", "missing"])
def test_a_file_that_is_not_the_published_one_is_named_and_never_unpickled(data, file, change, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    WRITERS[data](tmp_path, monkeypatch)
    path = tmp_path / PLACES[data] / file
    whole, expected = path.read_bytes(), md5(path)
    if change == "missing" and file in ("data_batch_1", "train", "unlabeled_X.bin"):
        return  # by these files a set is known
    changed = {
        "hostile": pickle.dumps(Hostile()),
        "hostile at the end": whole[:-1] + pickle.dumps(Hostile(), protocol=0),
        "cut": whole[:-7],
        "one bit": whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
    }
    path.write_bytes(changed[change]) if change in changed else path.unlink()
    found = md5(path) if change in changed else "no such file"
    with pytest.raises(UserError) as error:
        load(recipe(data, tmp_path))
    assert all(word in str(error.value) for word in (str(path), expected, found))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "file", "says"),
    [
        ("cifar10", "cifar-10-batches-bin/data_batch_1.bin", "the binary version.*not read.*weince data cifar10"),
        ("cifar10", "data_batch_1.bin", "should hold .*cifar-10-batches-py.*the binary version.*not read"),
        ("cifar100", "cifar-100-binary/train.bin", "the binary version.*not read"),
        ("imagenet32", "train_data_batch_1", r"should hold train_data_batch_1\.npz.*the Python version.*not read"),
    ],
)
def test_of_a_version_that_is_not_read_it_is_said_what_is(data, file, says, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match=says):
        load(recipe(data, tmp_path))
