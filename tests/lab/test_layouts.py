"""Every published layout, written small by the tests, comes back as the pixels and labels that were written."""

import io
import os
import pickle
import re
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from weince.lab.tasks.recipe import Recipe

from weince.lab.data.sets import load
from weince.lab.data.unpickle import arrays_of
from weince.shell.errors import UserError

TRAIN, TEST, CLASSES = 60, 20, 4


def drawn(count, size=32, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8), np.arange(count) % CLASSES


def cifar_binary(folder, train, test, before):
    folder.mkdir()
    for name, (pixels, labels) in ((train, drawn(TRAIN)), (test, drawn(TEST, seed=1))):
        shares = np.array_split(np.arange(len(labels)), len(name))
        for part, rows in zip(name, shares, strict=True):
            records = [bytes(before) + bytes([labels[i]]) + pixels[i].tobytes() for i in rows]
            (folder / part).write_bytes(b"".join(records))


def cifar10_binary(folder):
    names = [f"data_batch_{n}.bin" for n in range(1, 6)]
    cifar_binary(folder / "cifar-10-batches-bin", names, ["test_batch.bin"], [])


def cifar100_binary(folder):
    cifar_binary(folder / "cifar-100-binary", ["train.bin"], ["test.bin"], [19])  # a coarse label first


def python2(value):
    """A pickle as Python 2 and its NumPy wrote it: protocol 2, `str` for keys and bytes, old module names."""

    def text(content):
        return (
            b"U" + bytes([len(content)]) if len(content) < 256 else b"T" + struct.pack("<i", len(content))
        ) + content

    if isinstance(value, dict):
        return b"}" + b"".join(text(k.encode()) + python2(v) + b"s" for k, v in value.items())
    if isinstance(value, list):
        return b"](" + b"".join(b"K" + bytes([v]) for v in value) + b"e"
    shape = b"".join(b"M" + struct.pack("<H", n) for n in value.shape)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    kind = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    return made + b"(K\x01" + shape + b"\x86" + kind + b"\x89" + text(value.tobytes()) + b"tb"


def cifar10_pickled(folder):
    (folder / "cifar-10-batches-py").mkdir()
    pixels, labels = drawn(TRAIN)
    for n, rows in enumerate(np.array_split(np.arange(TRAIN), 5), 1):
        held = {"data": pixels[rows].reshape(len(rows), -1), "labels": [int(v) for v in labels[rows]]}
        (folder / "cifar-10-batches-py" / f"data_batch_{n}").write_bytes(b"\x80\x02" + python2(held) + b".")
    pixels, labels = drawn(TEST, seed=1)
    held = {"data": pixels.reshape(TEST, -1), "labels": [int(v) for v in labels]}
    (folder / "cifar-10-batches-py" / "test_batch").write_bytes(b"\x80\x02" + python2(held) + b".")


def cifar100_pickled(folder):
    (folder / "cifar-100-python").mkdir()
    for name, (pixels, labels) in (("train", drawn(TRAIN)), ("test", drawn(TEST, seed=1))):
        held = {b"data": pixels.reshape(len(labels), -1), b"fine_labels": labels.tolist(), b"coarse_labels": []}
        (folder / "cifar-100-python" / name).write_bytes(pickle.dumps(held, protocol=2))


def imagenet32_batches():
    pixels, labels = drawn(TRAIN)
    for n, rows in enumerate(np.array_split(np.arange(TRAIN), 10), 1):
        yield f"train_data_batch_{n}", pixels[rows].reshape(len(rows), -1), labels[rows] + 1
    pixels, labels = drawn(TEST, seed=1)
    yield "val_data", pixels.reshape(TEST, -1), labels + 1


def imagenet32_npz(folder):
    for name, data, labels in imagenet32_batches():
        np.savez(folder / f"{name}.npz", data=data, labels=labels, mean=data.mean(axis=0))


def imagenet32_pickled(folder):
    for name, data, labels in imagenet32_batches():
        held = {"data": data, "labels": labels.tolist(), "mean": data.mean(axis=0)}
        (folder / name).write_bytes(pickle.dumps(held, protocol=4))


def stl10_binary(folder):
    (folder / "stl10_binary").mkdir()
    for part, count, seed in (("train", TRAIN, 0), ("test", TEST, 1), ("unlabeled", 30, 2)):
        pixels, labels = drawn(count, 96, seed)
        pixels.swapaxes(2, 3).tofile(folder / "stl10_binary" / f"{part}_X.bin")
        if part != "unlabeled":
            (labels + 1).astype(np.uint8).tofile(folder / "stl10_binary" / f"{part}_y.bin")


def tiny_imagenet_folder(folder):
    root = folder / "tiny-imagenet-200"
    names = [f"n0{9 - label}" for label in range(CLASSES)]  # written in another order than sorted
    for part, (pixels, labels) in (("train", drawn(TRAIN, 64)), ("val", drawn(TEST, 64, 1))):
        notes = []
        for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            wnid = names[CLASSES - 1 - label]
            place = root / part / (f"{wnid}/images" if part == "train" else "images")
            place.mkdir(parents=True, exist_ok=True)
            buffer = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "PNG")  # lossless, under the published suffix
            (place / f"{part}_{i:03d}.JPEG").write_bytes(buffer.getvalue())
            notes.append(f"{part}_{i:03d}.JPEG\t{wnid}\t0\t0\t62\t62\n")
        if part == "val":
            (root / "val" / "val_annotations.txt").write_text("".join(notes))
    (root / "wnids.txt").write_text("\n".join(names))


WRITERS = {
    "cifar10": (cifar10_binary, cifar10_pickled),
    "cifar100": (cifar100_binary, cifar100_pickled),
    "imagenet32": (imagenet32_npz, imagenet32_pickled),
    "stl10": (stl10_binary,),
    "tiny-imagenet": (tiny_imagenet_folder,),
}
CASES = [(data, write) for data, writers in WRITERS.items() for write in writers]


def recipe(data, folder, **settings):
    return Recipe(data=data, data_dir=folder, batch_size=8, **settings)


@pytest.mark.parametrize(("data", "write"), CASES)
def test_pixels_and_labels_are_those_that_were_written(data, write, tmp_path):
    write(tmp_path)
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


def test_stl10_is_pretrained_on_its_images_without_labels(tmp_path):
    stl10_binary(tmp_path)
    splits = load(recipe("stl10", tmp_path))
    assert np.array_equal(splits.pretraining.pixels.numpy(), drawn(30, 96, 2)[0])
    assert (splits.pretraining.labels == -1).all()
    some = load(recipe("stl10", tmp_path, pretrain_subset=20))
    assert len(some.pretraining.labels) == 20
    assert some.fingerprint != splits.fingerprint
    with pytest.raises(UserError, match=r"`pretrain_subset`.*30.*Found 31"):
        load(recipe("stl10", tmp_path, pretrain_subset=31))


def test_pretraining_may_see_the_validation_images_too(tmp_path):
    cifar10_binary(tmp_path)
    own, all_of_them = (
        load(recipe("cifar10", tmp_path, pretrain_on=what)) for what in ("training", "training+validation")
    )
    assert own.pretraining is own.training
    assert len(all_of_them.pretraining.labels) == TRAIN
    assert len(all_of_them.training.labels) == 48
    assert own.fingerprint != all_of_them.fingerprint


def test_numbers_are_resized_by_averaging(tmp_path):
    stl10_binary(tmp_path)
    splits = load(recipe("stl10", tmp_path, image_size=32))
    assert tuple(splits.pretraining.pixels.shape) == (30, 3, 32, 32)
    large = load(recipe("stl10", tmp_path)).pretraining.pixels.double().mean()
    assert splits.pretraining.pixels.double().mean() == pytest.approx(float(large), abs=1)


@pytest.mark.parametrize(
    ("data", "write", "file", "says"),
    [
        ("cifar10", cifar10_binary, "cifar-10-batches-bin/data_batch_3.bin", "whole number of records of 3,073 bytes"),
        ("stl10", stl10_binary, "stl10_binary/unlabeled_X.bin", "whole number of records of 27,648 bytes"),
        ("imagenet32", imagenet32_npz, "train_data_batch_4.npz", "not a readable npz"),
        ("imagenet32", imagenet32_pickled, "train_data_batch_4", "not a readable pickle"),
        ("cifar10", cifar10_pickled, "cifar-10-batches-py/test_batch", "not a readable pickle"),
        ("tiny-imagenet", tiny_imagenet_folder, "tiny-imagenet-200/val/images/val_003.JPEG", "not a readable image"),
    ],
)
def test_a_file_cut_short_is_named(data, write, file, says, tmp_path):
    write(tmp_path)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:-101])
    with pytest.raises(UserError, match=says) as error:
        load(recipe(data, tmp_path))
    assert path.name in str(error.value)


def test_a_file_that_is_missing_and_a_class_that_is_none_are_named(tmp_path):
    cifar10_binary(tmp_path)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin").unlink()
    with pytest.raises(UserError, match=r"data_batch_2\.bin cannot be read"):
        load(recipe("cifar10", tmp_path))
    tiny_imagenet_folder(tmp_path)
    notes = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    notes.write_text(notes.read_text().replace("n09", "n77", 1))
    with pytest.raises(UserError, match="one of the 4 classes"):
        load(recipe("tiny-imagenet", tmp_path))
    with pytest.raises(UserError, match=r"unlabeled_X\.bin.*weince data stl10"):
        load(recipe("stl10", tmp_path))


class Hostile:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Hostile(os.system, ("touch ran",)), r"posix\.system"),
        (Hostile(eval, ("open('ran', 'w')",)), r"builtin.*\.eval"),
        (Hostile(np.load, ("ran",)), r"numpy.*load"),
        (Hostile(getattr, (os, "system")), "posix|getattr|os"),
        (np.array([Hostile(os.system, ("touch ran",))], dtype=object), r"posix\.system|kind 'O8'"),
        (np.array([1, "a"], dtype=object), "kind 'O8'"),
        (np.zeros(3, dtype=[("a", "i4"), ("b", "O")]), "kind 'V12'"),
        (np.zeros(3, dtype="M8[s]"), "kind 'M8'"),
        (torch.zeros(3), r"torch\._utils"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_is_refused_by_name_and_nothing_runs(value, says, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        content = pickle.dumps({"data": value, "labels": [0]}, protocol=protocol)
    except TypeError:  # modules cannot be pickled: written by hand
        content = b"cos\nsystem\n(S'touch ran'\ntR."
    path = tmp_path / "batch"
    path.write_bytes(content)
    with pytest.raises(UserError, match="refused") as error:
        arrays_of(path)
    assert not (tmp_path / "ran").exists()
    assert re.search(says, str(error.value))


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("kind", ["u1", "<i8", ">i4", "<f4", "|b1"])
def test_arrays_of_numbers_come_back(protocol, kind, tmp_path):
    held = {"data": np.asfortranarray(np.arange(12).reshape(3, 4)).astype(kind), "labels": [1, 2, 3], "x": (1.5, None)}
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(held, protocol=protocol))
    found = arrays_of(path)
    assert np.array_equal(found["data"], held["data"])
    assert found["labels"] == [1, 2, 3]
