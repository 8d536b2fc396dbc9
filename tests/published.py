"""Small stand-ins for the published sets of images, whose checksums torchvision is told to expect."""

import hashlib
import io
import pickle
import struct

import numpy as np
from PIL import Image
from torchvision import datasets

TRAIN, TEST, CLASSES = 60, 20, 4


def drawn(count, size=32, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8), np.arange(count) % CLASSES


def expected(name, place, monkeypatch):
    """Let torchvision expect the files that lie there."""
    kind = getattr(datasets, name)
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(kind, part, [[file, md5(place / file)] for file, _ in getattr(kind, part)])
    if hasattr(kind, "meta"):
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(place / kind.meta["filename"])})


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def python2(value):
    """A pickle as Python 2 and its NumPy wrote CIFAR: protocol 2, `str` for keys and bytes, old module names."""

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


def cifar10(folder, monkeypatch):
    place = folder / "cifar-10-batches-py"
    place.mkdir(parents=True)
    pixels, labels = drawn(TRAIN)
    batches = {f"data_batch_{n}": rows for n, rows in enumerate(np.array_split(np.arange(TRAIN), 5), 1)}
    for name, rows in batches.items():
        held = {"data": pixels[rows].reshape(len(rows), -1), "labels": [int(v) for v in labels[rows]]}
        (place / name).write_bytes(b"\x80\x02" + python2(held) + b".")
    pixels, labels = drawn(TEST, seed=1)
    held = {"data": pixels.reshape(TEST, -1), "labels": [int(v) for v in labels]}
    (place / "test_batch").write_bytes(b"\x80\x02" + python2(held) + b".")
    (place / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c", "d"]}))
    expected("CIFAR10", place, monkeypatch)


def cifar100(folder, monkeypatch):
    place = folder / "cifar-100-python"
    place.mkdir(parents=True)
    for name, (pixels, labels) in (("train", drawn(TRAIN)), ("test", drawn(TEST, seed=1))):
        held = {"data": pixels.reshape(len(labels), -1), "fine_labels": labels.tolist(), "coarse_labels": []}
        (place / name).write_bytes(pickle.dumps(held, protocol=2))
    (place / "meta").write_bytes(pickle.dumps({"fine_label_names": ["a", "b", "c", "d"]}))
    expected("CIFAR100", place, monkeypatch)


def imagenet32(folder, monkeypatch):
    pixels, labels = drawn(TRAIN)
    batches = {f"train_data_batch_{n}": rows for n, rows in enumerate(np.array_split(np.arange(TRAIN), 10), 1)}
    for name, rows in batches.items():
        np.savez(folder / f"{name}.npz", data=pixels[rows].reshape(len(rows), -1), labels=labels[rows] + 1)
    pixels, labels = drawn(TEST, seed=1)
    np.savez(folder / "val_data.npz", data=pixels.reshape(TEST, -1), labels=labels + 1)


def stl10(folder, monkeypatch):
    place = folder / "stl10_binary"
    place.mkdir(parents=True)
    for part, count, seed in (("train", TRAIN, 0), ("test", TEST, 1), ("unlabeled", 30, 2)):
        pixels, labels = drawn(count, 96, seed)
        pixels.swapaxes(2, 3).tofile(place / f"{part}_X.bin")
        if part != "unlabeled":
            (labels + 1).astype(np.uint8).tofile(place / f"{part}_y.bin")
    expected("STL10", place, monkeypatch)


def tiny_imagenet(folder, monkeypatch):
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
