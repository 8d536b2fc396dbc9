"""Every format, read alike; and every file that is no good, refused in one sentence before anything runs."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.numpy import save_file

from weince.diagnosis.embeddings import embeddings_of, open_embeddings
from weince.diagnosis.labels import codes, read_labels
from weince.shell.errors import UserError


def rows(dtype=np.float32, count=300, width=7) -> np.ndarray:
    return (3 * np.random.default_rng(0).standard_normal((count, width))).astype(dtype)


def write(path, x, labels=None):
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, z=x, **({} if labels is None else {"label": labels}))
    elif path.suffix == ".safetensors":
        save_file({"z": x} | ({} if labels is None else {"label": labels}), path)
    elif path.suffix == ".parquet":
        columns = {"z": list(x)} | ({} if labels is None else {"label": labels})
        parquet.write_table(pyarrow.table(columns), path, row_group_size=64)
    else:
        torch.save({"z": torch.from_numpy(x)} | ({} if labels is None else {"label": torch.from_numpy(labels)}), path)
    return path


FORMATS = ("npy", "npz", "parquet", "safetensors", "pt")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_format_gives_the_same_unit_rows(suffix, dtype, tmp_path):
    x = rows(dtype)
    read = open_embeddings(write(tmp_path / f"e.{suffix}", x))
    assert (read.shape, read.dtype) == ((300, 7), np.dtype(dtype).name)
    wanted = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    found = np.concatenate([part for _, part in read.chunks()])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=2e-7)
    index = np.array([0, 3, 299])
    np.testing.assert_array_equal(read.take(index), found[index])
    assert not read.normalised
    assert read.sha256 == embeddings_of(x, "x").sha256


def test_bfloat16_and_the_older_torch_format(tmp_path):
    x = torch.from_numpy(rows())
    torch.save(x.bfloat16(), tmp_path / "a.pt")
    torch.save(x, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert open_embeddings(tmp_path / "a.pt").dtype == "bfloat16"
    first, second = (open_embeddings(tmp_path / name).unit(0, 300) for name in ("a.pt", "b.pth"))
    np.testing.assert_allclose(first, second, atol=2e-2)


def test_chunks_meet_and_mapped_files_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("weince.diagnosis.embeddings.CHUNK_BYTES", 1000)
    x = rows(count=1001)
    read = open_embeddings(write(tmp_path / "e.npy", x))
    starts = [start for start, _ in read.chunks()]
    assert len(starts) > 20
    np.testing.assert_allclose(
        np.concatenate([part for _, part in read.chunks()]), x / np.linalg.norm(x, axis=1, keepdims=True), atol=2e-7
    )


@pytest.mark.parametrize("suffix", FORMATS[1:])
def test_labels_from_the_same_file(suffix, tmp_path):
    labels = np.arange(300) % 5
    read = open_embeddings(write(tmp_path / f"e.{suffix}", rows(), labels))
    np.testing.assert_array_equal(read_labels("label", read, "labels"), labels)


def test_labels_from_files_of_their_own(tmp_path):
    read = embeddings_of(rows(), "e")
    labels = np.arange(300) % 5
    np.save(tmp_path / "l.npy", labels)
    np.savez(tmp_path / "l.npz", labels)
    torch.save(torch.from_numpy(labels), tmp_path / "l.pt")
    parquet.write_table(pyarrow.table({"l": labels}), tmp_path / "l.parquet")
    for name in ("l.npy", "l.npz", "l.pt", "l.parquet"):
        np.testing.assert_array_equal(read_labels(str(tmp_path / name), read, "labels"), labels)
    (tmp_path / "l.txt").write_text("\n".join(f"nº {k}" for k in labels) + "\n", encoding="utf-8")
    text = read_labels(str(tmp_path / "l.txt"), read, "labels")
    assert text[1] == "nº 1"
    a, b = codes(labels, text[:10])
    assert (len(a), len(b)) == (300, 10)
    first, second = codes(np.array(["x", "y"]), np.array(["y", "z"]))
    assert first[1] == second[0]
    assert len({*first, *second}) == 3


class Hostile:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def hostile(path, trap):
    if path.suffix == ".npy":
        np.save(path, np.array([Hostile(trap)] * 300, dtype=object), allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, z=np.array([Hostile(trap)] * 300, dtype=object))
    elif path.suffix == ".pt":
        torch.save({"z": Hostile(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Hostile(trap)))
    return path


@pytest.mark.parametrize(
    "name", ["e.npy", "e.npz", "e.pt", "raw.npy", "raw.npz", "raw.pth", "raw.safetensors", "raw.parquet"]
)
def test_nothing_in_a_file_is_executed(name, tmp_path):
    trap = tmp_path / "trap"
    path = tmp_path / name
    if name.startswith("raw"):
        path.write_bytes(pickle.dumps(Hostile(trap)))
    else:
        hostile(path, trap)
    with pytest.raises(UserError, match=r"refused|damaged|should hold") as refused:
        open_embeddings(path)
    assert not trap.exists()
    assert "\n" not in str(refused.value)
    if name in ("e.npy", "e.npz", "e.pt"):
        assert "could execute code" in str(refused.value)
    with pytest.raises(UserError):
        read_labels(str(path), embeddings_of(rows(), "e"), "labels")
    assert not trap.exists()


def broken(x: np.ndarray, place, value) -> np.ndarray:
    x[place] = value
    return x


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (rows(count=199), "at least 200 rows"),
        (rows(width=1), "at least 2 numbers"),
        (np.ones((300, 4), np.float32), "different rows"),
        (broken(rows(), [[3], [200]], np.nan), "Found NaN or infinity in 2 of 300 rows: 3, 200."),
        (broken(rows(), 5, np.inf), "NaN or infinity in 1 of 300 rows: 5."),
        (broken(rows(), slice(0, 9), 0), "zeros alone in 9 of 300 rows: 0, 1, 2, 3, 4, ..."),
        (rows().astype(np.int64), "Found int64"),
        (rows().astype(np.complex64), "Found complex64"),
        (rows()[0], "shape (M, D)"),
        (rows()[None], "shape (M, D)"),
    ],
)
def test_rows_that_are_no_embeddings_are_refused(x, says, tmp_path):
    np.save(tmp_path / "e.npy", x)
    with pytest.raises(UserError) as refused:
        open_embeddings(tmp_path / "e.npy")
    assert says in str(refused.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_file_is_refused(suffix, tmp_path):
    path = write(tmp_path / f"e.{suffix}", rows())
    whole = path.read_bytes()
    for damage in (whole[: len(whole) // 2], b"", b"not this format at all"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"damaged|holds pickled") as refused:
            open_embeddings(path)
        assert str(path) in str(refused.value)


def test_what_is_not_there_or_not_told_apart_is_named(tmp_path):
    with pytest.raises(UserError, match="is not there"):
        open_embeddings(tmp_path / "none.npy")
    (tmp_path / "e.txt").write_text("1 2 3")
    with pytest.raises(UserError, match=r"should end in \.npy"):
        open_embeddings(tmp_path / "e.txt")
    np.savez(tmp_path / "two.npz", a=rows(), b=rows())
    with pytest.raises(UserError, match="Found a, b"):
        open_embeddings(tmp_path / "two.npz")
    with pytest.raises(UserError, match="`key` should name an array"):
        open_embeddings(tmp_path / "two.npz", "c")
    assert open_embeddings(tmp_path / "two.npz", "b").shape == (300, 7)
    parquet.write_table(pyarrow.table({"z": [[1.0, 2.0]] * 299 + [[1.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(UserError, match=r"lists of one length\. Found lengths 1, 2"):
        open_embeddings(tmp_path / "ragged.parquet")


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.arange(299), "300 rows of e. Found 299"),
        (np.ones(300), "one integer or string"),
        (np.ones((300, 2), int), "one integer or string"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, says, tmp_path):
    np.save(tmp_path / "l.npy", labels)
    with pytest.raises(UserError) as refused:
        read_labels(str(tmp_path / "l.npy"), embeddings_of(rows(), "e"), "labels")
    assert says in str(refused.value)


def test_labels_that_are_nowhere_are_named():
    with pytest.raises(UserError, match="`labels` should be a file, or the name of an array in e"):
        read_labels("colour", embeddings_of(rows(), "e"), "labels")


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1e-25), (np.float32, 1e20), (np.float64, 1e170), (np.float64, 1e-200)]
)
def test_rows_of_any_scale_come_to_length_1(dtype, scale):
    x = rows(np.float64)
    found = embeddings_of((x * scale).astype(dtype), "e")
    np.testing.assert_allclose(found.unit(0, 300), x / np.linalg.norm(x, axis=1, keepdims=True), atol=1e-6)
    assert found.lengths[0] == pytest.approx(np.linalg.norm(x, axis=1).min() * scale, rel=1e-3)


def test_labels_that_only_look_alike_stay_apart():
    unsigned, signed = codes(np.array([2**60, 2**60 + 1], np.uint64), np.array([2**60], np.int64))
    assert unsigned[0] == signed[0]
    assert unsigned[0] != unsigned[1]


def test_a_missing_label_is_refused_and_a_key_where_there_is_none(tmp_path):
    parquet.write_table(pyarrow.table({"l": [None, "a"] * 150}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match="150 rows without"):
        read_labels(str(tmp_path / "l.parquet"), embeddings_of(rows(), "e"), "labels")
    with pytest.raises(UserError, match="`key` names an array"):
        open_embeddings(write(tmp_path / "e.npy", rows()), "z")
    path = tmp_path / "half.pt"
    torch.save({"z": torch.from_numpy(rows()), "l": torch.ones(300).bfloat16()}, path)
    with pytest.raises(UserError, match="one integer or string"):
        read_labels("l", open_embeddings(path, "z"), "labels")
