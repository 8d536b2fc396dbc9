"""The protocols of others: against plain reference code, and against the library whose settings they take."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split

from weince.lab.evaluation.probes import Labelled, neighbour_scores
from weince.lab.evaluation.protocols import (
    LIGHTLY,
    PUBLISHED,
    PUBLISHED_RECALL_AT,
    lightly_scores,
    published_scores,
    train_probe,
)


def clusters(count, classes=4, spread=0.3, seed=0, width=8):
    centres = np.random.default_rng(9).normal(size=(classes, width))
    labels = np.arange(count) % classes
    noise = np.random.default_rng(seed).normal(size=(count, width))
    return Labelled((centres[labels] + spread * noise).astype(np.float32), labels)


def test_separable_classes_are_found_and_shuffled_labels_are_chance():
    # Wide features: 500 steps of Adam at 3e-4 move a weight by 0.15 at most, and those of narrow ones begin larger.
    training, test = clusters(1600, width=128), clusters(400, seed=1, width=128)
    for scores in (published_scores(training, test, seeds=(1,)), lightly_scores(training, test)):
        assert scores["linear_accuracy"] > 0.97
        assert scores["knn_accuracy"] > 0.97
    shuffled = Labelled(training.features, np.random.default_rng(3).permutation(training.labels))
    other = Labelled(test.features, np.random.default_rng(4).permutation(test.labels))
    error = 4 * (0.25 * 0.75 / 400) ** 0.5  # four standard deviations
    for scores in (published_scores(shuffled, other, seeds=(1,)), lightly_scores(shuffled, other)):
        assert scores["linear_accuracy"] == pytest.approx(0.25, abs=error)
        assert scores["knn_accuracy"] == pytest.approx(0.25, abs=error)


def test_published_scores_are_means_over_stratified_splits():
    training, test = clusters(300, spread=1.2), clusters(200, spread=1.2, seed=1)
    found = published_scores(training, test, seeds=(1, 2))
    by_seed = []
    for seed in (1, 2):
        kept, _ = train_test_split(np.arange(300), test_size=0.2, stratify=training.labels, random_state=seed)
        reference = Labelled(training.features[kept], training.labels[kept])
        assert np.bincount(reference.labels).tolist() == [60] * 4
        by_seed.append(neighbour_scores(reference, test, 50, PUBLISHED_RECALL_AT))
    for name in by_seed[0]:
        assert found[name] == pytest.approx(np.mean([scores[name] for scores in by_seed]))
    assert found["recall_at_1"] <= found["recall_at_2"] <= found["recall_at_50"]
    assert published_scores(training, test, seeds=(1, 2)) == found


def test_drop_last_scores_whole_batches_alone():
    training, test = clusters(300, spread=1.2), clusters(300, spread=1.2, seed=1)
    some = Labelled(test.features[:256], test.labels[:256])
    dropped = published_scores(training, test, seeds=(1,), drop_last=True)
    assert dropped["linear_accuracy"] == published_scores(training, some, seeds=(1,))["linear_accuracy"]
    assert dropped["linear_accuracy"] != published_scores(training, test, seeds=(1,))["linear_accuracy"]


@pytest.mark.parametrize("schedule", [PUBLISHED, LIGHTLY])
def test_the_probe_takes_the_steps_that_are_written(schedule, monkeypatch):
    """Plain loops over the same initial weights and order: gradient by formula, Adam and SGD written out."""
    monkeypatch.setattr("weince.lab.evaluation.protocols.BATCH", 16)
    training = clusters(40)
    few = schedule._replace(epochs=2)
    found = train_probe(training, few, 7)
    generator = torch.Generator().manual_seed(7)
    bound = 8**-0.5
    weight = torch.empty(4, 8).uniform_(-bound, bound, generator=generator).double()
    bias = torch.empty(4).uniform_(-bound, bound, generator=generator).double()
    x, y = torch.from_numpy(training.features).double(), torch.from_numpy(training.labels)
    state = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in (("w", weight), ("b", bias))}
    step, steps = 0, 6
    for _ in range(2):
        order = torch.randperm(40, generator=generator)
        for rows in order.split(16):
            error = (x[rows] @ weight.T + bias).softmax(dim=1) - torch.nn.functional.one_hot(y[rows], 4)
            gradients = {"w": error.T @ x[rows] / len(rows), "b": error.mean(dim=0)}
            rate = schedule.learning_rate * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1
            for name, value in (("w", weight), ("b", bias)):
                first, second = state[name]
                if schedule.optimizer == "sgd":
                    first.mul_(0.9).add_(gradients[name])
                    value -= rate * first
                else:
                    first.mul_(0.9).add_(0.1 * gradients[name])
                    second.mul_(0.999).add_(0.001 * gradients[name] ** 2)
                    first_hat, second_hat = first / (1 - 0.9**step), second / (1 - 0.999**step)
                    value -= schedule.learning_rate * first_hat / (second_hat.sqrt() + 1e-8)
    assert torch.allclose(found.weight.double(), weight, atol=1e-5)
    assert torch.allclose(found.bias.double(), bias, atol=1e-5)


def test_the_vote_is_that_of_lightly():
    knn_predict = pytest.importorskip("lightly.utils.benchmarking").knn_predict
    training, test = clusters(600, spread=1.5), clusters(300, spread=1.5, seed=1)
    bank, query = (torch.nn.functional.normalize(torch.from_numpy(part.features)) for part in (training, test))
    theirs = knn_predict(query, bank.T, torch.from_numpy(training.labels), 4, knn_k=200, knn_t=0.1)[:, 0]
    accuracy = float((theirs.numpy() == test.labels).mean())
    assert 0.4 < accuracy < 0.95
    assert lightly_scores(training, test)["knn_accuracy"] == pytest.approx(accuracy, abs=1e-9)
