"""Texts as people have them: tables and aligned files of many layouts, read, split, and refused in one sentence."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from weince.lab.data.aligned import load_aligned
from weince.lab.data.labelled import load_labelled
from weince.lab.data.settings import AlignedData, LabelledData
from weince.lab.data.tables import lines_of, table_of
from weince.shell.errors import UserError

ROWS = [(f"{what}, number {at}", what) for at in range(20) for what in ("hello there", "goodbye now", "a pizza")]
PAIRS = [(f"how do I {v} the {n}?", f"guide: {v} your {n}") for v in ("open", "close", "fix", "sell", "paint")
         for n in ("door", "window", "car", "bike")]  # fmt: skip


def _csv(path: Path, rows, header=None, delimiter=",", encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([*([header] if header else []), *rows])
    return path


def _write_labelled(folder: Path, layout: str) -> Path:
    if layout == "csv":
        return _csv(folder / "a.csv", ROWS, ("text", "category"))
    if layout == "semicolons, other names and columns":
        rows = [(at, text, label, "me") for at, (text, label) in enumerate(ROWS)]
        return _csv(folder / "a.csv", rows, ("id", "Utterance", "Intent", "author"), ";")
    if layout == "tsv without a header, labels first":
        return _csv(folder / "a.tsv", [(label, text) for text, label in ROWS], None, "\t")
    if layout == "Windows, unknown names":
        return _csv(folder / "a.csv", ROWS, ("frage", "klasse"), encoding="utf-16")
    if layout == "json lines, gzip":
        path = folder / "a.jsonl.gz"
        path.write_bytes(gzip.compress("\n".join(json.dumps({"body": t, "kind": k}) for t, k in ROWS).encode()))
        return path
    if layout == "json of all parts":
        parts = {"train": ROWS[:40], "val": ROWS[40:50], "test": ROWS[50:], "oos_train": [["what", "oos"]]}
        path = folder / "data_full.json"
        path.write_text(json.dumps(parts), encoding="utf-8")
        return path
    assert layout == "parquet, numbers as labels"
    number = {name: at for at, name in enumerate(dict.fromkeys(label for _, label in ROWS))}
    table = pyarrow.table({"text": [t for t, _ in ROWS], "label": [number[k] for _, k in ROWS]})
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    return folder / "a.parquet"


LAYOUTS = (
    "csv", "semicolons, other names and columns", "tsv without a header, labels first", "Windows, unknown names",
    "json lines, gzip", "json of all parts", "parquet, numbers as labels",
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("by_folder", [False, True])
def test_labelled_texts_of_any_layout_are_read_and_split_by_label(tmp_path, layout, by_folder):
    path = _write_labelled(tmp_path, layout)
    read = load_labelled(LabelledData(data_dir=tmp_path if by_folder else path))
    everything = [(text, read.classes[label]) for part in read[:3] for text, label in zip(*part, strict=True)]
    assert sorted(text for text, _ in everything) == sorted(text for text, _ in ROWS)
    assert len(read.classes) == 3
    # Every text keeps its own label, whatever that is called.
    meant = dict(ROWS)
    assert len({(meant[text], found) for text, found in everything}) == 3
    for part in read[:3]:
        assert len(set(part.labels)) == 3 or layout == "json of all parts"
    assert read.fingerprint == load_labelled(LabelledData(data_dir=path)).fingerprint
    if layout != "json of all parts":
        assert read.fingerprint != load_labelled(LabelledData(data_dir=path, split_seed=1)).fingerprint


def test_parts_of_their_own_files_are_kept_shots_and_subsets_are_drawn_from_training_texts_alone(tmp_path):
    _csv(tmp_path / "train.csv", ROWS[:45], ("text", "label"))
    _csv(tmp_path / "test.csv", [*ROWS[45:], ("new", "unknown label"), ("", "a pizza")], ("text", "label"))
    read = load_labelled(LabelledData(data_dir=tmp_path, shots=3))
    assert Counter(read.training.labels.tolist()) == {0: 3, 1: 3, 2: 3}
    assert sorted(read.test.texts) == sorted(text for text, _ in ROWS[45:])
    assert not set(read.training.texts) & set(read.validation.texts)
    assert {*read.training.texts, *read.validation.texts} <= {text for text, _ in ROWS[:45]}
    assert any("1 test texts have labels that no training text has" in note for note in read.notes)
    assert any("1 rows of test.csv have no text or no label" in note for note in read.notes)
    assert len(load_labelled(LabelledData(data_dir=tmp_path, subset=9)).training.texts) == 9
    assert len(load_labelled(LabelledData(data_dir=tmp_path, test_subset=9)).test.texts) == 9


@pytest.mark.parametrize(
    ("content", "settings", "told"),
    [
        ("text,label\nhello,a\n\"more, here\",b,c\n", {}, "row 3: should have 2 cells"),
        ("id,body,other,more\n1,a,b,c\n2,d,e,f\n", {}, "`text_column`: should name a column"),
        ("text,label\nhello,a\nthere,a\n", {}, "at least two labels"),
        ("text,label\n", {}, "should hold a table"),
        ("text,label\nhello,a\nthere,b\n", {"label_column": "kind"}, "has no column 'kind'. Found text, label"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_refused_by_name(tmp_path, content, settings, told):
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        load_labelled(LabelledData(data_dir=tmp_path, **settings))


def test_what_is_no_text_no_json_or_no_table_is_called_that(tmp_path):
    for name, content, told in (
        ("a.csv", b"\x00\x01\x02\xff\xfe" * 20, "should be text in UTF-8"),
        ("a.csv.gz", b"not gzip", "cannot be read"),
        ("a.json", b"{", "should be JSON"),
        ("a.jsonl", b'{"a": 1}\nnot json\n', "line 2, should be JSON"),
        ("a.json", b"[1, 2]", "should hold rows"),
        ("a.parquet", b"nothing", "cannot be read as parquet"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=told):
            table_of(path)
        path.unlink()
    with pytest.raises(UserError, match="should hold one table"):
        load_labelled(LabelledData(data_dir=tmp_path))
    for part in ("train", "training"):
        _csv(tmp_path / f"{part}.csv", ROWS, ("text", "label"))
    with pytest.raises(UserError, match="holds two training tables"):
        load_labelled(LabelledData(data_dir=tmp_path))


def test_lines_end_with_newlines_alone_and_the_last_empty_one_is_none(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\u2028still one\r\ntwo\n\nfour\n".encode())
    assert lines_of(path) == ["one\u2028still one", "two", "", "four"]


def _texts(pairs, side):
    return "\n".join(pair[side] for pair in pairs) + "\n"


def test_aligned_files_of_queries_and_documents_and_of_parts(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "documents.txt").write_text(_texts(PAIRS, 1), encoding="utf-16")
    (tmp_path / "one" / "queries.txt").write_text(_texts(PAIRS, 0), encoding="utf-8")
    (tmp_path / "two").mkdir()
    for part, rows in (("train", PAIRS[:10]), ("val", PAIRS[10:18]), ("test_2016_flickr", PAIRS[10:])):
        for side, name in enumerate(("en", "de")):
            path = tmp_path / "two" / f"{part}.{name}.gz"
            path.write_bytes(gzip.compress(_texts(rows, side).encode()))
    _csv(tmp_path / "pairs.csv", PAIRS, ("question", "answer"))
    one = load_aligned(AlignedData(data_dir=tmp_path / "one"))
    two = load_aligned(AlignedData(data_dir=tmp_path / "two"))
    three = load_aligned(AlignedData(data_dir=tmp_path / "pairs.csv", left="question", right="answer"))
    assert one.sides == ("queries", "documents")
    assert two.sides == ("en", "de")  # the side that asks, or is English, first
    assert three.sides == ("question", "answer")
    for read in (one, three):
        assert sorted(pair for part in read[:3] for pair in zip(*part, strict=True)) == sorted(PAIRS)
    assert list(zip(*two.training, strict=True)) == PAIRS[:10]
    assert list(zip(*two.test, strict=True)) == PAIRS[10:]
    swapped = load_aligned(AlignedData(data_dir=tmp_path / "two", left="de", right="en"))
    assert swapped.training.left == two.training.right
    by_name = AlignedData(data_dir=tmp_path / "one", left="documents.txt", right="queries.txt", subset=8)
    assert load_aligned(by_name).training.left[0].startswith("guide")
    assert len(load_aligned(by_name).training.left) == 8


def test_equal_texts_of_pairs_get_equal_numbers_and_empty_ones_are_left_out(tmp_path):
    rows = [*PAIRS, PAIRS[0], (PAIRS[1][0], "another answer"), ("", "an answer to nothing")]
    _csv(tmp_path / "a.csv", rows, ("question", "answer"))
    read = load_aligned(AlignedData(data_dir=tmp_path))
    assert any("1 training pairs have an empty text" in note for note in read.notes)
    assert sum(len(part.left) for part in read[:3]) == len(PAIRS) + 2
    whole = type(read.training)(*(tuple(row[side] for row in rows[:-1]) for side in (0, 1)))
    ids = whole.ids()
    assert ids is not None
    assert (ids[0] == ids[len(PAIRS)]).all()
    assert ids[1, 0] == ids[-1, 0]
    assert ids[1, 1] != ids[-1, 1]
    assert type(read.training)(*(tuple(row[side] for row in PAIRS) for side in (0, 1))).ids() is None
    assert len(np.unique(ids[:, 1])) == len(PAIRS) + 1


def test_files_of_different_length_and_sides_that_cannot_be_told_are_refused(tmp_path):
    (tmp_path / "queries.txt").write_text(_texts(PAIRS, 0), encoding="utf-8")
    with pytest.raises(UserError, match="`left` and `right`: should name the two sides"):
        load_aligned(AlignedData(data_dir=tmp_path))
    (tmp_path / "documents.txt").write_text(_texts(PAIRS[1:], 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"equally many lines, a pair each. Found 20 and 19"):
        load_aligned(AlignedData(data_dir=tmp_path))
    (tmp_path / "more.txt").write_text(_texts(PAIRS, 1), encoding="utf-8")
    with pytest.raises(UserError, match="Found texts called documents, more, queries"):
        load_aligned(AlignedData(data_dir=tmp_path))
    with pytest.raises(UserError, match=r"`left`: .* holds no training texts called 'fr'"):
        load_aligned(AlignedData(data_dir=tmp_path, left="fr", right="queries"))
    _csv(tmp_path / "a.csv", [(1, *pair) for pair in PAIRS], ("id", "question", "answer"))
    with pytest.raises(UserError, match="should name two columns of"):
        load_aligned(AlignedData(data_dir=tmp_path / "a.csv"))
