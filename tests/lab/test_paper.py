"""The paper's table and ours, from result files that real comparisons wrote."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

import weince.lab.reproduction.paper
from weince.__main__ import main
from weince.lab.published import published
from weince.lab.reproduction.paper import collected, tidy_lines
from weince.lab.reproduction.report import write_table
from weince.lab.settings import write
from weince.lab.tasks import named
from weince.lab.tasks.recipe.images import ImagesRecipe
from weince.lab.tasks.recipe.sentences import SentencesRecipe

RESULTS = Path(__file__).parents[2] / "results"
NOWHERE = Path("nowhere")


def test_every_published_row_has_a_recipe_of_its_protocol():
    rows = published()
    assert len(rows) == 13
    for row in rows:
        settings = named(row.recipe)
        if row.benchmark == "stsb":
            assert {"infonce", "weince"} <= set(SentencesRecipe(**settings).losses)
            continue
        recipe = ImagesRecipe(**settings)
        assert (recipe.data, recipe.encoder) == (row.benchmark, row.encoder)
        assert recipe.losses == ("infonce", "weince", "weince-released")
        assert (recipe.temperatures, recipe.seeds, recipe.subset) == ((0.5,), (7, 21, 63, 84), None)
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (100, 256, 3e-4, "constant")
        assert recipe.protocols == ("published", "lightly")


def test_each_benchmark_has_a_small_version():
    for data in ("cifar10", "cifar100", "stl10", "imagenet32", "tiny-imagenet"):
        recipe = ImagesRecipe(**named(f"{data}-small"))
        assert (recipe.data, recipe.encoder, recipe.device) == (data, "resnet-small", "cpu")
        assert min(recipe.subset or 10**9, recipe.pretrain_subset or 10**9) <= 8000


def test_what_we_found_is_in_the_table_and_names_no_place():
    known, others = collected(RESULTS, NOWHERE, NOWHERE)
    assert len(known) == 13
    assert all(line.scores or line.because for line in known + others)
    fair = {line.metric: line for line in others if line.recipe == "fair-cifar10"}
    result = json.loads((RESULTS / "fair-cifar10.json").read_text())
    told = next(
        d for d in result["differences"]
        if (d["arm"], d["to"], d["metric"]) == ("weince", "reference", "linear_accuracy")
    )  # fmt: skip
    found = fair["linear_accuracy"].differences["weince"]
    assert found == pytest.approx((told["mean"], told["low"], told["high"]))
    assert any(line.metric == "spearman" and line.scores for line in others)
    for path in RESULTS.glob("*.json"):
        assert not {"output", "data_dir", "stsb_dir"} & set(json.loads(path.read_text())["settings"])


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A folder with the finished comparison of a published row, on digits."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = ImagesRecipe(
        name="cifar100-resnet18", output=folder, subset=400, losses=("infonce", "weince", "weince-released"),
        temperatures=(0.2,), seeds=(1, 2), epochs=1, protocols=("published", "lightly"), device="cpu",
    )  # fmt: skip
    (folder / "recipe.toml").write_text(write(recipe))
    assert main(["compare", str(folder / "recipe.toml")]) == 0
    return folder


def result_of(ran):
    return json.loads((ran / "cifar100-resnet18/result.json").read_text())


def test_a_published_row_with_ours_beside_it(ran, tmp_path):
    known, others = collected(RESULTS, ran, NOWHERE)
    line = next(line for line in known if (line.recipe, line.metric) == ("cifar100-resnet18", "linear_accuracy"))
    rows = {row["arm"]: row for row in result_of(ran)["rows"]}
    scores = {
        loss: [seed["published"]["linear_accuracy"] for seed in rows[loss]["others"]] for loss in ("infonce", "weince")
    }
    assert line.protocol == "published"
    assert line.scores["infonce"].interval.mean == pytest.approx(sum(scores["infonce"]) / 2)
    assert line.scores["infonce"].temperature == 0.2
    gain = [b - a for a, b in zip(scores["infonce"], scores["weince"], strict=True)]
    assert line.differences["weince"].mean == pytest.approx(sum(gain) / 2)
    assert set(line.differences) == {"weince", "weince-released"}
    assert line.made["torch"] == torch.__version__.split("+")[0]
    assert "; other than the recipe: data" in line.budget
    assert not any(line.scores for line in known if line.recipe != "cifar100-resnet18")

    page = write_table(known, others, tmp_path).read_text(encoding="utf-8")
    assert "2 of 13 published rows were run here." in page
    assert page.count("not run, because") == 7 + 7
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if row["recipe"] == "cifar100-resnet18" and row["infonce_mean"])
    assert float(row["published_weince"]) == 53.28
    assert float(row["infonce_mean"]) == pytest.approx(50 * sum(scores["infonce"]), abs=1e-3)


def test_the_protocols_stand_in_the_comparison_s_page_and_may_be_asked_for_later(ran, tmp_path):
    before = result_of(ran)
    folder = tmp_path / "cifar100-resnet18"
    shutil.copytree(ran / "cifar100-resnet18", folder)
    for path in folder.glob("runs/*/test.json"):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "others"}))
    (folder / "trials.db").unlink()  # what is done lies in the folder too
    words = ["compare", str(ran / "recipe.toml"), "--output", str(tmp_path)]
    assert main([*words, "--protocols"]) == 0
    assert all(not any(row["others"]) for row in result_of(tmp_path)["rows"])
    assert "by the protocol" not in (folder / "report.html").read_text(encoding="utf-8")
    assert main([*words, "--protocols", "lightly"]) == 0  # made up for, though all trials are in the database
    later = result_of(tmp_path)
    assert later["settings"]["protocols"] == ["lightly"]
    for old, new in zip(before["rows"], later["rows"], strict=True):
        assert new["by_seed"] == old["by_seed"]
        assert new["others"] == [{"lightly": seed["lightly"]} for seed in old["others"]]
    page = (folder / "report.html").read_text(encoding="utf-8")
    weince = next(row for row in before["rows"] if row["arm"] == "weince")
    mean = sum(seed["lightly"]["knn_accuracy"] for seed in weince["others"]) / 2
    assert f"{100 * mean:.1f}" in page.split("by the protocol lightly")[2]


def test_results_without_the_published_protocol_are_said_to_be_by_our_own(ran, tmp_path):
    result = result_of(ran)
    for row in result["rows"]:
        row["others"] = [{} for _ in row["others"]]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "cifar100-resnet18.json").write_text(json.dumps(result))
    known, _ = collected(tmp_path / "results", NOWHERE, NOWHERE)
    line = next(line for line in known if line.scores)
    assert line.protocol == "own"
    assert "by our own protocol" in write_table(known, [], tmp_path).read_text(encoding="utf-8")


def test_why_a_recipe_was_not_run(tmp_path, monkeypatch):
    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()

    def because(name: str, data_dir: Path = NOWHERE) -> str:
        lines = collected(results, runs, data_dir)
        return next(line.because for part in lines for line in part if line.recipe == name)

    monkeypatch.setattr(weince.lab.reproduction.paper.torch.cuda, "is_available", lambda: False)
    assert because("cifar10-resnet18") == "it is for a GPU, and there is none here; there is no cifar10 here"
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    (tmp_path / "data" / "cifar10" / "train-0.parquet").touch()
    monkeypatch.setattr(weince.lab.reproduction.paper.torch.cuda, "is_available", lambda: True)
    command = "weince compare cifar10-resnet18"
    assert because("cifar10-resnet18", tmp_path / "data") == f"it was not started ({command})"
    run = runs / "cifar10-resnet18" / "runs" / "infonce-t0.5-s7"
    run.mkdir(parents=True)
    (run / "validation.json").write_text("{}")
    assert because("cifar10-resnet18") == "not finished: 1 of 12 runs"
    (runs / "cifar10-resnet18" / "result.json").write_text("{}")
    assert because("cifar10-resnet18").endswith("is not a result that this version reads: it lacks 'settings'")
    (results / "cifar10-resnet18.json").write_text("{")
    assert "is damaged" in because("cifar10-resnet18")


def test_the_command(ran, tmp_path, capsys):
    words = ["--runs", str(ran), "--output", str(tmp_path / "table")]
    assert main(["report", str(RESULTS), *words]) == 0
    said = capsys.readouterr().out
    assert "2 of 13 published rows were run here." in said
    assert {"table.csv", "table.html"} <= {path.name for path in (tmp_path / "table").iterdir()}
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "Found no folder" in capsys.readouterr().err


def test_points_of_per_cent_in_the_csv():
    row = tidy_lines([line for line in collected(RESULTS, NOWHERE, NOWHERE)[0] if line.recipe == "simcse"])[0]
    assert (row["published_infonce"], row["published_infonce_half_width"]) == (71.74, 4.23)
