"""The search against all similarities at once."""

from __future__ import annotations

import numpy as np
import pytest

from weince.extremes import search as module
from weince.extremes.search import Excluded, search


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def in_chunks(x: np.ndarray, size: int):
    return ((start, x[start : start + size]) for start in range(0, len(x), size))


@pytest.mark.parametrize(
    ("rows", "chunk", "each", "pooled"), [(700, 700, 20, 100), (1500, 37, 64, 3000), (600, 599, 5, 10)]
)
def test_it_finds_what_sorting_everything_finds(rows, chunk, each, pooled, monkeypatch):
    monkeypatch.setattr(module, "WAITING", 5000)  # so that bounds rise many times
    monkeypatch.setattr(module, "COLUMNS", 100)
    x = unit(rows, 8, rows)
    anchors = np.sort(np.random.default_rng(1).choice(rows, 150, replace=False))
    found = search(x[anchors], in_chunks(x, chunk), each, pooled, Excluded(itself=anchors))
    everything = x[anchors] @ x.T
    everything[np.arange(150), anchors] = -np.inf
    np.testing.assert_allclose(found.similarity, -np.sort(-everything, axis=1)[:, :each], atol=1e-6)
    np.testing.assert_allclose(found.pool.similarity, -np.sort(-everything, axis=None)[: pooled + 1], atol=1e-6)
    np.testing.assert_allclose(
        np.take_along_axis(everything, found.candidate, axis=1), found.similarity, atol=1e-6
    )  # the rows are the right ones
    np.testing.assert_allclose(everything[found.pool.anchor, found.pool.candidate], found.pool.similarity, atol=1e-6)
    assert (found.negatives == rows - 1).all()


def test_known_positives_and_duplicates_are_no_negatives():
    x = unit(400, 6, 0)
    x[7] = x[3]
    x[9] = x[3]
    labels, ids = np.arange(400) % 7, np.arange(400) // 2
    anchors = np.arange(0, 400, 4)
    anchors[0] = 3
    excluded = Excluded(anchors, ((labels[anchors], labels), (ids[anchors], ids)), nearer_than=1e-6)
    found = search(x[anchors], in_chunks(x, 64), 10, 50, excluded)
    everything = x[anchors] @ x.T
    out = (labels[anchors][:, None] == labels) | (ids[anchors][:, None] == ids)
    out[np.arange(len(anchors)), anchors] = True
    twice = (everything > 1 - 1e-6) & ~out
    assert twice[0].nonzero()[0].tolist() == [7, 9]
    assert found.duplicates_in_all == twice.sum()
    assert set(zip(anchors[found.duplicates.anchor], found.duplicates.candidate, strict=True)) == {
        (anchors[a], c) for a, c in zip(*twice.nonzero(), strict=True)
    }
    everything[out | twice] = -np.inf
    np.testing.assert_allclose(found.similarity, -np.sort(-everything, axis=1)[:, :10], atol=1e-6)
    assert (found.negatives == (~(out | twice)).sum(axis=1)).all()


def test_an_anchor_with_fewer_negatives_than_asked_for_ends_in_nothing():
    x = unit(300, 4, 2)
    codes = np.zeros(300, dtype=np.int64)
    codes[290:] = 1
    anchors = np.arange(20)
    found = search(x[anchors], in_chunks(x, 300), 16, 20, Excluded(anchors, ((codes[anchors], codes),)))
    assert np.isfinite(found.similarity[:, :10]).all()
    assert (found.similarity[:, 10:] == -np.inf).all()
    assert (found.candidate[:, 10:] == -1).all()
    assert (found.negatives == 10).all()
    assert np.isfinite(found.pool.similarity).all()


def test_two_files_have_no_pair_in_common():
    queries, corpus = unit(50, 5, 3), unit(300, 5, 4)
    found = search(queries, in_chunks(corpus, 70), 3, 20)
    np.testing.assert_allclose(found.similarity, -np.sort(-(queries @ corpus.T), axis=1)[:, :3], atol=1e-6)
