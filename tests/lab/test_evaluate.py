import numpy as np
import pytest
import torch
from torch import nn

from weince.lab.evaluation.probes import Labelled, fit_probe, held_out_contest, neighbour_scores


def clusters(count, classes=3, spread=0.6, seed=0, centres_seed=0):
    centres = np.random.default_rng(centres_seed).normal(size=(classes, 8))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    return Labelled((centres[labels] + spread * rng.normal(size=(count, 8))).astype(np.float32), labels)


def by_hand(reference, query):
    """Recall@k and the weighted vote, one query at a time."""
    recall = dict.fromkeys((1, 5, 10, 20), 0)
    right = 0
    for feature, label in zip(query.features, query.labels, strict=True):
        norms = np.linalg.norm(reference.features, axis=1) * np.linalg.norm(feature)
        similarity = reference.features @ feature / norms
        order = np.argsort(-similarity)[:50]
        for k in recall:
            recall[k] += label in reference.labels[order[:k]]
        votes = {}
        for j in order:
            votes[reference.labels[j]] = votes.get(reference.labels[j], 0.0) + np.exp(similarity[j] / 0.1)
        right += max(votes, key=votes.get) == label
    total = len(query.labels)
    return {**{f"recall_at_{k}": v / total for k, v in recall.items()}, "knn_accuracy": right / total}


def test_neighbour_scores_are_those_of_plain_loops():
    reference, query = clusters(200, spread=1.5), clusters(80, spread=1.5, seed=1)
    expected = by_hand(reference, query)
    assert neighbour_scores(reference, query) == pytest.approx(expected, abs=1e-12)
    assert expected["recall_at_1"] < expected["recall_at_20"] <= 1  # not saturated: the comparison means something


def test_neighbours_of_fewer_references_than_fifty():
    assert neighbour_scores(clusters(9, spread=0.01), clusters(20, spread=0.01, seed=1))["recall_at_5"] == 1.0


def test_scores_do_not_depend_on_the_length_of_features():
    reference, query = clusters(100, spread=1.5), clusters(50, spread=1.5, seed=1)
    scaled = Labelled(query.features * np.float32(37.0), query.labels)
    assert neighbour_scores(reference, query) == neighbour_scores(reference, scaled)


def test_probe_finds_the_classes_and_its_penalty_on_validation():
    training, validation = clusters(300, spread=1.2), clusters(300, spread=1.2, seed=1)
    probe = fit_probe(training, validation)
    assert probe.validation_accuracy == probe.model.score(*validation)
    assert probe.validation_accuracy > 0.6
    assert probe.converged
    shuffled = Labelled(training.features, np.random.default_rng(0).permutation(training.labels))
    assert fit_probe(shuffled, validation).validation_accuracy < 0.5


def test_noise_asks_for_a_stronger_penalty_than_signal():
    noise = np.random.default_rng(2).normal(size=(60, 200)).astype(np.float32)
    few = clusters(60, spread=1.0)
    training = Labelled(np.hstack([few.features, noise]), few.labels)
    many = clusters(400, spread=1.0, seed=1)
    noise = np.random.default_rng(3).normal(size=(400, 200)).astype(np.float32)
    assert fit_probe(training, Labelled(np.hstack([many.features, noise]), many.labels)).inverse_penalty < 1.0


def test_held_out_contest_counts_every_negative_once():
    torch.manual_seed(0)
    views = torch.rand(24, 1, 8, 8)
    held = held_out_contest(nn.Flatten(), nn.Linear(64, 6), views)
    assert held.histogram.sum() == 24 * 22
    assert held.positive.shape == held.hardest.shape == (24,)
    assert (held.hardest <= 1 + 1e-6).all()
