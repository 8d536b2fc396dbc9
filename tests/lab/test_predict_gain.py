"""What could predict a gain: the statistics against SciPy's, predictors and noise, the row of a tiny task."""

from __future__ import annotations

import argparse
import csv

import numpy as np
import predict_gain
import pytest
import torch
from gain_ranks import permutation_p, ranks_of, sign_share, sign_share_left_out, spearman, told
from predict_gain import BATCHES, FORMS, MEASURES, gated, held_out, rows_for, written
from scipy.stats import permutation_test, spearmanr

from weince import ENDPOINT, PAPER, ContestLoss, setups
from weince.evidence import end_of
from weince.lab.engine.comparison import opened, publish, result_of
from weince.lab.engine.work import work
from weince.lab.pages.comparison import write_result
from weince.lab.tasks import texts
from weince.lab.tasks.recipe.pairs import PairsRecipe
from weince.lab.tasks.recipe.texts import TextsRecipe

X = [0.3, 1.2, -0.4, 0.9, 0.9, 2.0, float("inf")]
Y = [1.0, 2.0, 0.5, 2.0, 1.5, 1.7, 3.0]


def test_the_correlation_is_scipys_with_ties_and_infinity():
    assert spearman(X, Y) == pytest.approx(spearmanr(X, Y).statistic)
    assert spearman(X, [-y for y in Y]) == pytest.approx(-spearman(X, Y))


def test_the_p_value_of_few_tables_is_that_of_all_orders():
    expected = permutation_test((X,), lambda x: abs(spearmanr(x, Y).statistic), permutation_type="pairings",
                                alternative="greater", n_resamples=10_000)  # fmt: skip
    assert permutation_p(X, Y) == pytest.approx(expected.pvalue)
    assert permutation_p([1, 2, 3, 4, 5], [2, 4, 6, 8, 9]) == pytest.approx(2 / 120)


def test_the_p_value_of_many_tables_is_drawn_and_never_zero():
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = 0.6 * x + rng.normal(size=12)
    assert permutation_p(x, y) == pytest.approx(spearmanr(x, y).pvalue, abs=0.02)
    assert permutation_p(x, x) == pytest.approx(1 / 20_001)


def test_signs_by_a_threshold_on_these_tables_and_on_the_others():
    gain = [-2, -1, -1, 1, 2, 3]
    assert sign_share([1, 2, 3, 4, 5, 6], gain) == 1
    assert sign_share([6, 5, 4, 3, 2, float("-inf")], gain) == 1
    assert sign_share_left_out([1, 2, 3, 4, 5, 6], gain) == pytest.approx(5 / 6)
    assert sign_share([1, 1, 1, 1, 1, 2], gain) == pytest.approx(4 / 6)
    # A threshold found in noise is good on its own tables, and no better than chance on others.
    rng = np.random.default_rng(0)
    noise = [(rng.normal(size=10), rng.normal(size=10)) for _ in range(100)]
    assert np.mean([sign_share(*one) for one in noise]) > 0.7
    assert np.mean([sign_share_left_out(*one) for one in noise]) == pytest.approx(0.5, abs=0.1)


def tables(seed, planted, number=10, measures=12):
    """Rows with measures of noise; the first one is the gain, a little disturbed, where it is planted."""
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=number)
    found = rng.normal(size=(measures, number))
    if planted:
        found[0] = gain + 0.05 * rng.normal(size=number)
    return [{"gain": gain[at], **{f"m{i}": found[i, at] for i in range(measures)}} for at in range(number)]


MANY = tuple(f"m{i}" for i in range(12))


def test_a_planted_predictor_is_found_among_noise():
    ranks = ranks_of(tables(1, True), MANY, {"weince": "gain"})
    assert [row["measure"] for row in ranks if row["holm"] <= 0.05] == ["m0"]
    assert ranks[0]["tables"] == 10
    assert told(ranks, 10, 5).startswith("After the correction 1 of 12 correlations are left, over 10 tables of 5 data")


def test_noise_predicts_nothing_after_the_correction_though_something_looks_good():
    every = [ranks_of(tables(seed, False), MANY, {"weince": "gain"}) for seed in range(25)]
    before = sum(min(row["p"] for row in ranks) <= 0.05 for ranks in every)
    after = sum(min(row["holm"] for row in ranks) <= 0.05 for ranks in every)
    assert before >= 8
    assert after <= 4
    assert "No measure is shown to predict a gain" in told(every[0], 10, 5)


def test_what_is_missing_or_constant_is_left_out():
    rows = tables(1, True)
    for row in rows:
        row["m1"], row["m2"] = 1.0, None
    rows[0]["m3"], rows[1]["m3"] = None, float("nan")
    found = {row["measure"]: row["tables"] for row in ranks_of(rows, MANY, {"a": "gain", "b": "nothing"})}
    assert "m1" not in found
    assert "m2" not in found
    assert found["m3"] == 8
    assert told(ranks_of(rows[:3], MANY, {"a": "gain"}), 3, 1).startswith("Nothing can be said over 3 tables of 1 data")


def test_batches_are_contests_of_the_task():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 80, 6)).astype(np.float32)
    views = np.stack([one, other], axis=1).reshape(160, 6)
    held = held_out({"views": views}, None)
    found = gated(held, 80, batches=2)
    contest = setups.two_views(torch.from_numpy(one), torch.from_numpy(other))
    whole = ContestLoss(0.1, ENDPOINT)(contest)
    end = end_of(whole.tail)
    assert found["place"] == pytest.approx(float(end.place), rel=1e-3)
    assert found["statistic"] == pytest.approx(float(end.statistic), rel=1e-3)
    assert found["weight_endpoint"] == pytest.approx(float(whole.weight.mean()), rel=1e-3)
    paper = ContestLoss(0.1, PAPER)(contest).weight.mean()
    assert found["weight_paper"] == pytest.approx(float(paper), rel=1e-3)
    assert (found["batch"], gated(held, 500, batches=1)["batch"]) == (80, 80)
    assert held.alike[0].tolist() == [image for image in range(80) for _ in range(2)]


def test_pairs_with_equal_texts_are_no_negatives_in_batches(tmp_path):
    sides = {"en": [f"text {at}" for at in range(40)], "de": [f"Text {at // 2}" for at in range(40)]}
    for part in ("train", "val", "test"):
        for side, lines in sides.items():
            (tmp_path / f"{part}.{side}").write_text("\n".join(lines) + "\n")
    rows = np.random.default_rng(0).normal(size=(2, 40, 5)).astype(np.float32)
    held = held_out({"left": rows[0], "right": rows[1]}, PairsRecipe(data_dir=tmp_path))
    there, back = held.contests(np.arange(10))
    assert there.roles().negative_count().flatten().tolist() == [8] * 10
    assert back.roles().negative_count().flatten().tolist() == [8] * 10
    assert [len(set(side)) for side in held.alike] == [40, 20]


@pytest.fixture
def table_of_texts(tmp_path, monkeypatch):
    """A finished comparison on texts whose features are noise around a direction for each label."""

    def features(encoder, lines, kept, device):
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(8, 12))
        return np.stack([centres[int(line.split()[1])] + rng.normal(size=12) for line in lines]).astype(np.float32)

    monkeypatch.setattr(texts, "text_features", features)
    data = tmp_path / "data"
    data.mkdir()
    for part, number in (("train", 96), ("val", 40), ("test", 240)):
        lines = [f"label {at % 8} number {at},{at % 8}" for at in range(number)]
        (data / f"{part}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    recipe = TextsRecipe(
        name="tiny", output=tmp_path / "runs", data_dir=data, losses=("infonce", "weince", "weibit"),
        temperatures=(0.1, 0.3), seeds=(7,), confirm_seeds=(1, 2), widen=0, epochs=2, batch_size=48, hidden=16,
        projection=8,
    )  # fmt: skip
    task = texts.Texts(recipe)
    with opened(recipe.folder, recipe.name) as store:
        publish(store, task, recipe.plan(), recipe.task, recipe.model_dump(mode="json"), recipe.differences)
        work(store, task, recipe.folder, lambda *told: None)
        write_result(result_of(store), recipe.folder)
    return tmp_path


def test_the_row_of_a_tiny_task_end_to_end(table_of_texts, monkeypatch, capsys):
    folder = table_of_texts
    monkeypatch.setattr(predict_gain, "TABLES", {"tiny": argparse.Namespace(data="data")})
    for name in ("OUT", "RANKS"):
        monkeypatch.setattr(predict_gain, name, folder / f"{name}.csv")
    asked = argparse.Namespace(data=folder, names=["tiny", "none"], output=folder / "runs", seed=2, embeddings=None)
    (row,) = rows_for(asked)
    assert "none: not finished, left out" in capsys.readouterr().out
    assert (row["table"], row["seed"], row["training_examples"], row["batch"]) == ("tiny", 2, 96, 48)
    assert all(row[measure] is not None for measure in MEASURES)
    assert 0 <= row["weight_paper"] <= 1
    assert row["xi_low"] <= row["xi"] <= row["xi_high"]
    assert row["gain_weince_low"] < row["gain_weince"] < row["gain_weince_high"]
    assert row["gain_endpoint"] is None
    assert abs(row["gain_weibit"]) < 100
    written([row])
    assert "Nothing can be said over 1 table of 1 data set:" in capsys.readouterr().out
    with (folder / "OUT.csv").open(newline="") as file:
        (kept,) = csv.DictReader(file)
    assert kept["verdict"] == row["verdict"]
    assert {f"gain_{form}" for form in FORMS} < set(kept)
    assert BATCHES == 20
