"""The diagnosis: is the tail of these embeddings Weibull, and does it end at the cap?

file -> rows at length 1 -> hardest negatives, exactly -> the tail of all pairs, and each anchor's as the loss sees it

<output>/diagnosis.json   everything the page says
anchors.csv, thresholds.csv, exceedances.csv (duplicates.csv)
figures/*.png             report.html, which opens offline
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from weince.diagnosis.embeddings import Embeddings, open_embeddings
from weince.diagnosis.labels import Known, codes, read_labels
from weince.diagnosis.question import Question
from weince.extremes.curves import Curves, MeanExcess, curves, mean_excess
from weince.extremes.dependence import Dyads
from weince.extremes.domain import Tail, stability
from weince.extremes.geometry import alignment, uniformity
from weince.extremes.search import Excluded, Found, search
from weince.extremes.verdict import Verdict, judge
from weince.gate import Gate, mix
from weince.shell.errors import UserError
from weince.shell.provenance import provenance
from weince.shell.words import count
from weince.tail import fit_tail, tail_size, tail_sizes

__all__ = ["Anchors", "Diagnosis", "Progress", "diagnose", "examine"]

SAME_THING = 1e-6
"""Shortfall of two rows that are one thing twice: where the loss floors it."""
BACKGROUND = 1000
"""Rows against which the similarity of random pairs is measured."""
NEIGHBOURS = 8
"""Hardest negatives of an anchor that are shown by name."""
LEAST_PAIRS = 200
"""In a tail that is judged."""
TAIL_SHARE = 0.01
"""Of all pairs, at most: a tail of more is not one."""

Progress = Callable[[str, int, int], None]


class Anchors(NamedTuple):
    """What the loss's fit measures of each anchor, with all rows as its candidates, not a batch; (A,) or (A, K).

    Attributes:
        row: of the anchor.
        hardest: row of its hardest negative; -1 where it has none.
        similarity: of that one.
        nearness: rho, its shortfall.
        slope_line, slope_likelihood: beta by both estimators; twice it is the local intrinsic dimension.
        weight: lambda of the paper's gate among these anchors.
        effective_temperature: inverse slope of the blended logit at the hardest negative.
        neighbours, neighbour_similarity: the hardest few, (A, 8).
    """

    row: NDArray[np.int64]
    hardest: NDArray[np.int64]
    similarity: NDArray[np.float64]
    nearness: NDArray[np.float64]
    slope_line: NDArray[np.float64]
    slope_likelihood: NDArray[np.float64]
    weight: NDArray[np.float64]
    effective_temperature: NDArray[np.float64]
    neighbours: NDArray[np.int64]
    neighbour_similarity: NDArray[np.float64]


class Diagnosis(NamedTuple):
    """Everything that was found; `summary` is diagnosis.json."""

    verdict: Verdict
    tails: list[Tail]
    curves: list[Curves]
    excess: MeanExcess
    anchors: Anchors
    found: Found
    background: NDArray[np.float64]
    labels: NDArray[Any] | None
    corpus_labels: NDArray[Any] | None
    summary: dict[str, Any]


def diagnose(question: Question, progress: Progress = lambda what, done, total: None) -> Diagnosis:
    """Read, search, fit and judge. Nothing is written.

    Args:
        question: what to look at.
        progress: told what is being done, rows done and rows in all.

    Raises:
        UserError: a file that cannot be used, or options that contradict it.
    """
    progress("Reading", 0, 1)
    queries = open_embeddings(question.file, question.key)
    corpus = queries if question.corpus is None else open_embeddings(question.corpus, question.corpus_key, "corpus")
    if corpus.shape[1] != queries.shape[1]:
        raise UserError(
            f"Parameter `corpus` should have D = {queries.shape[1]} columns, like `file`. Found {corpus.shape[1]}."
        )
    if question.paired and corpus.shape != queries.shape:
        raise UserError(
            f"Parameter `paired` needs as many rows in `corpus` as in `file`, {queries.shape[0]:,}. "
            f"Found {corpus.shape[0]:,}."
        )
    known = {name: _known(question, name, queries, corpus) for name in ("labels", "ids")}
    return examine(question, queries, corpus, known["labels"], known["ids"], progress)


def _known(question: Question, name: str, queries: Embeddings, corpus: Embeddings) -> Known | None:
    given = getattr(question, name)
    if given is None:
        return None
    first = read_labels(given, queries, name)
    if question.corpus is None:
        (of_queries,) = codes(first)
        return Known(first, first, of_queries, of_queries)
    second = read_labels(getattr(question, f"corpus_{name}"), corpus, f"corpus_{name}")
    return Known(first, second, *codes(first, second))


def examine(
    question: Question,
    queries: Embeddings,
    corpus: Embeddings,
    labels: Known | None,
    ids: Known | None,
    progress: Progress = lambda what, done, total: None,
) -> Diagnosis:
    """`diagnose` of embeddings that are already open; `corpus` is `queries` where there is one tower."""
    generator = np.random.default_rng(question.seed)
    one = corpus is queries
    chosen = np.sort(generator.choice(queries.shape[0], min(question.anchors, queries.shape[0]), replace=False))
    other = np.sort(generator.choice(corpus.shape[0], min(BACKGROUND, corpus.shape[0]), replace=False))
    anchors, others = _drawn(queries, corpus, chosen, other)

    itself = chosen if one or question.paired else None
    exclusions = tuple((known.query_codes[chosen], known.corpus_codes) for known in (labels, ids) if known is not None)
    pairs = len(chosen) * corpus.shape[0]
    pooled = min(question.exceedances, int(TAIL_SHARE * pairs))
    total = corpus.shape[0]
    found = search(
        anchors,
        corpus.chunks(),
        min(question.tail, tail_size(total, Gate.tail_fraction, Gate.tail_min)),
        pooled,
        Excluded(itself, exclusions, SAME_THING),
        lambda rows: progress("Searching", rows, total),
    )
    progress("Fitting", total, total)
    negatives = int(found.negatives.sum())
    pooled = min(pooled, int(TAIL_SHARE * negatives))
    if pooled < LEAST_PAIRS:
        raise UserError(
            f"Parameter `file`: {question.file} should leave at least {int(LEAST_PAIRS / TAIL_SHARE):,} pairs of "
            f"negatives, whose largest hundredth is the tail. Found {negatives:,} of {len(chosen):,} anchors: draw "
            "more, or look at labels, ids and duplicates."
        )
    found = found._replace(pool=found.pool.at(np.arange(pooled + 1)))
    similarity = found.pool.similarity.astype(np.float64)
    others_from = 0 if one else queries.shape[0]
    dyads = Dyads(chosen[found.pool.anchor], found.pool.candidate + others_from)
    if ids is not None:  # near-copies are drawn together: what is drawn anew is an id, with all of its rows
        dyads = Dyads(ids.query_codes[dyads.first], ids.corpus_codes[found.pool.candidate])
    tails = stability(similarity, dyads, len(similarity) - 1)
    if not tails:
        raise UserError(
            f"Parameter `file`: {question.file} should hold rows that differ. The {len(similarity):,} largest "
            f"similarities are {similarity[-1]:.6f} to {similarity[0]:.6f}, nearly all tied: rows of few values, or a "
            "model that has collapsed."
        )
    measured = _measured(chosen, found, question)
    background = anchors @ others.T
    background = background[chosen[:, None] != other[None]] if one else background.ravel()
    verdict = judge(tails, float(similarity[0]))
    verdict = verdict._replace(notes=[*verdict.notes, *_remarks(queries, corpus, found, measured)])
    return Diagnosis(
        verdict,
        tails,
        [curves(similarity, tail) for tail in tails],
        mean_excess(similarity, len(similarity) - 1),
        measured,
        found,
        background.astype(np.float64),
        None if labels is None else labels.of_queries,
        None if labels is None else labels.of_corpus,
        {
            "verdict": verdict._asdict(),
            "file": _described(queries),
            "corpus": None if one else _described(corpus),
            "asked": {name: _without_folder(v) for name, v in asdict(question).items()},
            "made": provenance(torch.device("cpu"), ("numpy", "scipy")),
            "anchors": len(chosen),
            "pairs": int(found.negatives.sum()),
            "duplicate_pairs": found.duplicates_in_all,
            "thresholds": [_plain(tail) for tail in tails],
            "loss": {name: _quantiles(getattr(measured, name)) for name in _MEASURED},
            "uniformity": uniformity(background.astype(np.float64)),
            "alignment": _alignment(question, queries, corpus, chosen, anchors, (labels, ids), generator),
        },
    )


_MEASURED = ("nearness", "slope_line", "slope_likelihood", "weight", "effective_temperature")


def _drawn(
    queries: Embeddings, corpus: Embeddings, chosen: NDArray[np.int64], other: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Anchors and background rows, in one pass where they lie in one file."""
    if corpus is not queries:
        return queries.take(chosen), corpus.take(other)
    both = np.union1d(chosen, other)
    rows = queries.take(both)
    return rows[np.searchsorted(both, chosen)], rows[np.searchsorted(both, other)]


def _measured(chosen: NDArray[np.int64], found: Found, question: Question) -> Anchors:
    """The loss's own fits and gate, on the anchors that were drawn against all candidates."""
    gate = Gate()
    hardest = torch.from_numpy(found.similarity)
    counts = torch.from_numpy(found.negatives)
    sizes = tail_sizes(counts, gate.rule).clamp_max(hardest.shape[1])
    line = fit_tail(hardest, SAME_THING, sizes)
    likelihood = fit_tail(hardest, SAME_THING, sizes, "maximum_likelihood", lines=False)
    weight, slope = mix(line, gate)
    assert isinstance(weight, torch.Tensor)
    steepness = (1 - weight) / question.temperature + weight * slope / line.nearness
    nearest = found.similarity[:, 0].astype(np.float64)
    return Anchors(
        chosen,
        found.candidate[:, 0],
        np.where(np.isfinite(nearest), nearest, np.nan),
        line.nearness.double().numpy(),
        line.slope.double().numpy(),
        likelihood.slope.double().numpy(),
        weight.double().numpy(),
        (1 / steepness).double().numpy(),
        found.candidate[:, :NEIGHBOURS],
        found.similarity[:, :NEIGHBOURS].astype(np.float64),
    )


def _alignment(
    question: Question,
    queries: Embeddings,
    corpus: Embeddings,
    chosen: NDArray[np.int64],
    anchors: NDArray[np.float32],
    known: tuple[Known | None, Known | None],
    generator: np.random.Generator,
) -> float | None:
    """Of one positive of each anchor, drawn among the known ones."""
    if question.paired:
        place, partner = np.arange(len(chosen)), chosen
    else:
        given = next((one for one in known if one is not None), None)
        if given is None:
            return None
        order = np.argsort(given.corpus_codes, kind="stable")
        first = np.searchsorted(given.corpus_codes[order], given.query_codes[chosen], "left")
        alike = np.searchsorted(given.corpus_codes[order], given.query_codes[chosen], "right") - first
        partner = order[np.minimum(first + generator.integers(np.maximum(alike, 1)), len(order) - 1)]
        place = np.flatnonzero((alike > 0) & ((partner != chosen) if corpus is queries else True))
        partner = partner[place]
    if not len(place):
        return None
    rows, back = np.unique(partner, return_inverse=True)
    return alignment(np.einsum("ij,ij->i", anchors[place], corpus.take(rows)[back]).astype(np.float64))


def _remarks(queries: Embeddings, corpus: Embeddings, found: Found, measured: Anchors) -> list[str]:
    remarks = []
    for one in {id(part): part for part in (queries, corpus)}.values():
        if not one.normalised:
            remarks.append(
                f"The rows of {one.path.name} have lengths from {one.lengths[0]:.3g} to {one.lengths[1]:.3g}; "
                "they were brought to length 1."
            )
    if found.duplicates_in_all:
        remarks.append(f"{count(found.duplicates_in_all, 'pair')} of duplicates (1 - s < {SAME_THING:g}), left out.")
    remarks.append(
        f"The loss would give these anchors a mean weight of {measured.weight.mean():.2f} against all rows; in a batch "
        "slopes are smaller and hardest negatives farther. Its nearness compares anchors with each other, so about a "
        "fifth are above a half in every batch: that share is no evidence."
    )
    return remarks


def _described(embeddings: Embeddings) -> dict[str, Any]:
    return {
        "name": embeddings.path.name,
        "shape": list(embeddings.shape),
        "dtype": embeddings.dtype,
        "normalised": embeddings.normalised,
        "sha256": embeddings.sha256,
    }


def _without_folder(value: Any) -> Any:
    """The name alone of a file or folder: what is shown to others says nothing of the machine."""
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_file()):
        return Path(value).resolve().name
    return value


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    names = ("q05", "q25", "median", "q75", "q95")
    return {"mean": float(values.mean())} | dict(
        zip(names, map(float, np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))), strict=True)
    )


def _plain(value: Any) -> Any:
    """Tuples with names as dictionaries; what is infinite or unknown as None, since JSON has neither."""
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, np.bool_ | bool):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
