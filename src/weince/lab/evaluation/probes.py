"""The evaluation: how good frozen features are, by nearest neighbours and by a linear probe."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler, normalize
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from weince.lab.evaluation.geometry import geometry
from weince.setups import two_views

__all__ = ["HeldOut", "Labelled", "Probe", "fit_probe", "held_out_contest", "neighbour_outcomes",
           "neighbour_scores"]  # fmt: skip

NEIGHBOURS = 50
"""k of the weighted vote."""
VOTE_TEMPERATURE = 0.1
RECALL_AT = (1, 5, 10, 20)
INVERSE_PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
"""C of the logistic regression, tried on validation data."""


class Labelled(NamedTuple):
    """Features (N, F) and labels (N,)."""

    features: np.ndarray
    labels: np.ndarray


class Probe(NamedTuple):
    """A linear probe, and how its regularisation was chosen."""

    model: Pipeline
    inverse_penalty: float
    validation_accuracy: float
    converged: bool


class HeldOut(NamedTuple):
    """How held-out views compete: similarities by anchor (A,), all negatives counted in 200 bins of [-1, 1], and what
    `geometry` says of them."""

    positive: np.ndarray
    hardest: np.ndarray
    histogram: np.ndarray
    geometry: dict[str, float]


def neighbour_scores(
    reference: Labelled, query: Labelled, neighbours: int = NEIGHBOURS, recall_at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """The mean of each of `neighbour_outcomes`: recall_at_K for each K, and knn_accuracy, in [0, 1]."""
    found = neighbour_outcomes(reference, query, neighbours, recall_at)
    return {metric: float(outcomes.mean()) for metric, outcomes in found.items()}


def neighbour_outcomes(
    reference: Labelled, query: Labelled, neighbours: int = NEIGHBOURS, recall_at: Sequence[int] = RECALL_AT
) -> dict[str, np.ndarray]:
    """Recall@k and weighted kNN accuracy under cosine similarity, of every query.

    recall@k is the share of queries of which any of the k nearest reference features has the label. The vote is
    that of the nearest, each weighing exp(s / 0.1).

    Args:
        reference: labelled training features.
        query: what is judged.
        neighbours: how many vote; all where there are fewer.
        recall_at: the k of recall@k.

    Returns:
        bool (queries,): recall_at_K for each K, and knn_accuracy.

    Source: arXiv:2606.00262, frozen-feature evaluation; the vote is that of arXiv:1805.01978.
    """
    count = min(max(neighbours, *recall_at), len(reference.labels))
    search = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute")
    distance, index = search.fit(normalize(reference.features)).kneighbors(normalize(query.features))
    found = reference.labels[index]
    right = found == query.labels[:, None]
    outcomes = {f"recall_at_{k}": right[:, :k].any(axis=1) for k in recall_at}
    votes = np.zeros((len(query.labels), int(max(reference.labels.max(), query.labels.max())) + 1))
    voting, far = found[:, :neighbours], distance[:, :neighbours]
    # The nearest one's factor is taken out: it is common to all votes of a row.
    np.add.at(votes, (np.arange(len(found))[:, None], voting), np.exp((far[:, :1] - far) / VOTE_TEMPERATURE))
    return {**outcomes, "knn_accuracy": votes.argmax(axis=1) == query.labels}


def fit_probe(
    training: Labelled, validation: Labelled, inverse_penalties: Sequence[float] = INVERSE_PENALTIES
) -> Probe:
    """Multinomial logistic regression on standardised features, its L2 penalty chosen on validation data.

    Args:
        training: what it is fitted on.
        validation: what the penalty is chosen on; of equal accuracies the strongest penalty wins.
        inverse_penalties: C, ascending; one where it was chosen before.
    """
    best: Probe | None = None
    # The solver's vectors are short: BLAS threads that wait for each other made it ten times slower on small sets.
    threads = 1 if training.features.size * len(np.unique(training.labels)) < 1e8 else None
    for inverse_penalty in inverse_penalties:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=inverse_penalty, max_iter=500, tol=1e-3))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            with threadpool_limits(threads, user_api="blas"):
                model.fit(*training)
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        accuracy = float(model.score(*validation))
        if best is None or accuracy > best.validation_accuracy:
            best = Probe(model, inverse_penalty, accuracy, converged)
    assert best is not None
    return best


@torch.no_grad()
def held_out_contest(encoder: nn.Module, projection: nn.Module, views: Tensor) -> HeldOut:
    """How the two views of held-out images compete in the space of the loss.

    Args:
        encoder: frozen.
        projection: to the embeddings.
        views: (2N, C, S, S), all of view a, then all of view b.
    """
    contest = two_views(*projection.eval()(encoder(views)).float().cpu().chunk(2))
    similarity, roles = contest.similarity(), contest.roles()
    negatives = roles.only_negatives(similarity, float("-inf"))
    return HeldOut(
        positive=roles.positives(similarity, 0.0).flatten().numpy(),
        hardest=negatives.amax(dim=1).clamp_min(-1.0).numpy(),
        histogram=torch.histc(negatives[negatives.isfinite()], bins=200, min=-1.0, max=1.0).numpy(),
        geometry=geometry([contest]),
    )
