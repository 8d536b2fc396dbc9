"""What a diagnosis takes for one row: ids in the variance, rows of two towers, and where two rows are one thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from weince.diagnosis.embeddings import embeddings_of
from weince.diagnosis.examine import examine
from weince.diagnosis.labels import Known
from weince.diagnosis.question import Question
from weince.extremes.dependence import Dyads
from weince.extremes.domain import fit_tail_at


def diagnosed(rows: np.ndarray, ids: np.ndarray | None = None, corpus: np.ndarray | None = None):
    queries = embeddings_of(rows.astype(np.float32), "rows")
    other = queries if corpus is None else embeddings_of(corpus.astype(np.float32), "corpus")
    known = None if ids is None else Known(ids, ids, ids, ids)
    return examine(
        Question(Path("rows"), corpus=None if corpus is None else Path("corpus")), queries, other, None, known
    )


def test_ids_enter_the_variance():
    """100 originals x 8 near-copies in 24 draws: the spread of xi is what is stated, within three standard errors of a
    spread (3 / sqrt(46) = 44 %); with rows for what is drawn, less than 0.6 of it is stated."""
    shapes, stated, by_rows = [], [], []
    for seed in range(24):
        generator, ids = np.random.default_rng(seed), np.repeat(np.arange(100), 8)
        x = generator.standard_normal((100, 8))[ids] + 0.05 * generator.standard_normal((800, 8))
        found = diagnosed(x, ids)
        tail, pool = found.tails[0], found.found.pool
        as_rows = fit_tail_at(
            pool.similarity.astype(np.float64), Dyads(found.anchors.row[pool.anchor], pool.candidate), tail.n
        )
        shapes.append(tail.moments.shape)
        stated.append(tail.moments.shape_se)
        by_rows.append(as_rows.moments.shape_se)
        assert tail.rows <= 100 < as_rows.rows
    spread = np.std(shapes, ddof=1)
    assert 0.56 < np.mean(stated) / spread < 1.44
    assert np.mean(by_rows) < 0.6 * np.mean(stated)


@pytest.mark.parametrize("named", [False, True])
def test_rows_of_two_towers_are_others_unless_ids_say_they_are_one(named: bool):
    generator = np.random.default_rng(1)
    queries, corpus = generator.standard_normal((300, 6)), generator.standard_normal((300, 6))
    found = diagnosed(queries, np.arange(300) if named else None, corpus)
    pool, n = found.found.pool, found.tails[0].n
    anchors = found.anchors.row[pool.anchor]
    apart = Dyads(anchors, pool.candidate + 300).top(n).rows
    together = Dyads(anchors, pool.candidate).top(n).rows
    assert together < 0.9 * apart
    assert found.tails[0].rows == pytest.approx(together if named else apart)


def test_rows_are_one_thing_where_the_loss_cannot_tell_them_apart():
    """1 - s below 1e-6: a pair at 3e-7 is left out, one at 3e-6 is a negative."""
    x = np.random.default_rng(2).standard_normal((400, 10))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for row, shortfall in ((0, 3e-7), (2, 3e-6)):
        aside = np.cross(np.eye(3)[0], x[row, :3])
        aside = np.concatenate([aside, np.zeros(7)]) / np.linalg.norm(aside)
        x[row + 1] = np.sqrt(1 - 2 * shortfall) * x[row] + np.sqrt(2 * shortfall) * aside
    found = diagnosed(x)
    assert found.summary["duplicate_pairs"] == 2
    assert found.found.pool.similarity[0] == pytest.approx(1 - 3e-6, abs=3e-7)
