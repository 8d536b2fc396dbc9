"""The paper's table and ours, from result files that a real comparison, study and SimCSE wrote."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

import weince.lab.reproduction.paper
from weince.__main__ import main
from weince.lab.engine.plan import read_plan
from weince.lab.pages.report import write_report
from weince.lab.reproduction.paper import collected, tidy_lines
from weince.lab.published import published
from weince.lab.reproduction.report import write_table
from weince.lab.tasks.compare import compare
from weince.lab.tasks.recipe import Recipe, read, write
from weince.lab.tasks.text_recipe import TextRecipe
from weince.shell.errors import UserError

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "runs"


def test_every_recipe_of_ours_is_one_and_is_called_by_its_file():
    for path in sorted(RUNS.glob("*.toml")):
        settings = read(path)
        if "study" in settings:
            recipe = read_plan(path, {}).recipe
        else:
            recipe = Recipe(**settings) if "data" in settings else TextRecipe(**settings)
        assert recipe.name == path.stem


def test_every_published_row_has_a_recipe_of_its_protocol():
    rows = published()
    assert len(rows) == 13
    for row in rows:
        settings = read(RUNS / f"{row.recipe}.toml")
        if row.benchmark == "stsb":
            assert {"infonce", "weince"} <= set(TextRecipe(**settings).losses)
            continue
        recipe = Recipe(**settings)
        assert (recipe.data, recipe.encoder) == (row.benchmark, row.encoder)
        assert recipe.losses == ("infonce", "weince", "weince-released")
        assert (recipe.temperatures, recipe.seeds, recipe.subset) == ((0.5,), (7, 21, 63, 84), None)
        assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (100, 256, 3e-4, "constant")
        assert recipe.protocols == ("published", "lightly")


def test_each_benchmark_has_a_small_version():
    for data in ("cifar10", "cifar100", "stl10", "imagenet32", "tiny-imagenet"):
        recipe = Recipe(**read(RUNS / f"{data}-resnet-small.toml"))
        assert (recipe.data, recipe.encoder, recipe.device) == (data, "resnet-small", "cpu")
        assert min(recipe.subset or 10**9, recipe.pretrain_subset or 10**9) <= 8000


def test_what_we_found_is_in_the_table_and_names_no_place():
    known, others = collected(RUNS, Path("nowhere"))
    assert len(known) == 13
    assert all(line.scores or line.because for line in known + others)
    fair = {line.metric: line for line in others if line.recipe == "fair-cifar10"}
    study = json.loads((RUNS / "done/fair-cifar10/study.json").read_text())
    told = next(
        d for d in study["differences"]
        if (d["arm"], d["minus"], d["metric"]) == ("weince", "infonce", "linear_accuracy")
    )  # fmt: skip
    found = fair["linear_accuracy"].differences["weince"]
    assert found == pytest.approx((told["mean"], told["low"], told["high"]))
    assert any(line.metric == "spearman" and line.scores for line in others)
    for path in RUNS.glob("done/*/*.json"):
        assert not {"output", "data_dir", "stsb_dir"} & set(json.loads(path.read_text()).get("recipe", {}))


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A folder with a recipe and its finished comparison, on digits."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = Recipe(
        name="cifar100-resnet18", output=folder, subset=400, losses=("infonce", "weince", "weince-released"),
        temperatures=(0.2,), seeds=(1, 2), epochs=1, protocols=("published", "lightly"), device="cpu",
    )  # fmt: skip
    compare(recipe)
    (folder / "cifar100-resnet18.toml").write_text(write(recipe.model_copy(update={"epochs": 2, "output": Path("x")})))
    return folder


def test_a_published_row_with_ours_beside_it(ran, tmp_path):
    known, others = collected(ran, Path("nowhere"))
    line = next(line for line in known if (line.recipe, line.metric) == ("cifar100-resnet18", "linear_accuracy"))
    result = json.loads((ran / "cifar100-resnet18/result.json").read_text())
    assert "output" not in result["recipe"]
    scores = {
        loss: [run["protocols"]["published"]["linear_accuracy"] for run in result["test"] if run["loss"] == loss]
        for loss in ("infonce", "weince")
    }
    assert line.protocol == "published"
    assert line.scores["infonce"].interval.mean == pytest.approx(sum(scores["infonce"]) / 2)
    assert line.scores["infonce"].temperature == 0.2
    gain = [b - a for a, b in zip(scores["infonce"], scores["weince"], strict=True)]
    assert line.differences["weince"].mean == pytest.approx(sum(gain) / 2)
    assert set(line.differences) == {"weince", "weince-released"}
    assert line.made["torch"] == torch.__version__.split("+")[0]
    assert line.budget.endswith("; other than the recipe: epochs")
    assert not others
    assert not any(line.scores for line in known if line.recipe != "cifar100-resnet18")

    page = write_table(known, others, tmp_path).read_text(encoding="utf-8")
    assert "2 of 13 published rows were run here." in page
    assert page.count("not run, because") == 7
    assert "http" not in page.replace("http://www.w3.org", "")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    row = next(row for row in rows if row["infonce_mean"])
    assert float(row["published_weince"]) == 53.28
    assert float(row["infonce_mean"]) == pytest.approx(50 * sum(scores["infonce"]), abs=1e-3)
    assert (tmp_path / "table.png").stat().st_size > 10_000


def test_the_protocols_stand_in_the_comparison_s_page_and_may_be_asked_for_later(ran, tmp_path):
    asked = json.loads((ran / "cifar100-resnet18/result.json").read_text())["recipe"]
    recipe = Recipe(**{**asked, "output": tmp_path, "protocols": ()})
    shutil.copytree(ran / "cifar100-resnet18", recipe.folder)
    for path in recipe.folder.glob("runs/*/test.json"):
        path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "protocols"}))
    assert "protocols" not in compare(recipe)["test"][0]
    assert "by the protocols of others" not in write_report(recipe.folder).read_text(encoding="utf-8")
    later = compare(recipe.model_copy(update={"protocols": ("lightly",)}))
    before = json.loads((ran / "cifar100-resnet18/result.json").read_text())
    for old, new in zip(before["test"], later["test"], strict=True):
        assert new["protocols"] == {"lightly": old["protocols"]["lightly"]}
    page = write_report(recipe.folder).read_text(encoding="utf-8")
    mean = sum(run["protocols"]["lightly"]["knn_accuracy"] for run in before["test"] if run["loss"] == "weince") / 2
    assert f"{100 * mean:.1f} ± " in page.split("by the protocols of others")[1]


def test_results_without_the_published_protocol_are_said_to_be_by_our_own(ran, tmp_path):
    folder = tmp_path / "done" / "cifar100-resnet18"
    folder.mkdir(parents=True)
    result = json.loads((ran / "cifar100-resnet18/result.json").read_text())
    for run in result["test"]:
        del run["protocols"]
    (folder / "result.json").write_text(json.dumps(result))
    known, _ = collected(tmp_path, Path("nowhere"))
    line = next(line for line in known if line.scores)
    assert line.protocol == "own"
    assert "by our own protocol" in write_table(known, [], tmp_path).read_text(encoding="utf-8")
    # One's own results go before those that are kept under done.
    shutil.copytree(ran / "cifar100-resnet18", tmp_path / "cifar100-resnet18")
    assert next(line for line in collected(tmp_path, Path("nowhere"))[0] if line.scores).protocol == "published"


def test_why_a_recipe_was_not_run(tmp_path, monkeypatch):
    def because(name: str, data_dir: Path = Path("nowhere")) -> str:
        return next(line.because for part in collected(tmp_path, data_dir) for line in part if line.recipe == name)

    monkeypatch.setattr(weince.lab.reproduction.paper.torch.cuda, "is_available", lambda: False)
    assert because("stl10-resnet18") == f"{tmp_path} has no recipe of it"
    shutil.copy(RUNS / "cifar10-resnet18.toml", tmp_path)
    assert because("cifar10-resnet18") == "it is for a GPU, and there is none here; nowhere holds no cifar10"
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    (tmp_path / "data" / "cifar10" / "train-0.parquet").touch()
    monkeypatch.setattr(weince.lab.reproduction.paper.torch.cuda, "is_available", lambda: True)
    command = f"weince compare {tmp_path / 'cifar10-resnet18'}.toml"
    assert because("cifar10-resnet18", tmp_path / "data") == f"it was not started ({command})"
    run = tmp_path / "cifar10-resnet18" / "runs" / "infonce-t0.5-s7"
    run.mkdir(parents=True)
    (run / "validation.json").write_text("{}")
    assert because("cifar10-resnet18") == "not finished: 1 of 12 runs"
    (tmp_path / "cifar10-resnet18" / "result.json").write_text("{}")
    assert because("cifar10-resnet18").endswith("is not a result that this version reads: it lacks 'recipe'")
    (tmp_path / "cifar10-resnet18" / "result.json").write_text("{")
    assert "is damaged" in because("cifar10-resnet18")


def test_the_command(ran, tmp_path, capsys):
    assert main(["report", str(ran), "--output", str(tmp_path / "table")]) == 0
    said = capsys.readouterr().out
    assert "2 of 13 published rows were run here." in said
    assert {path.name for path in (tmp_path / "table").iterdir()} == {"table.csv", "table.png", "table.html"}
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "Found no folder" in capsys.readouterr().err
    (tmp_path / "bad.toml").write_text('data = "cifar11"\n')
    with pytest.raises(UserError, match="`data`"):
        collected(tmp_path, Path("nowhere"))


def test_points_of_per_cent_in_the_csv():
    row = tidy_lines([line for line in collected(RUNS, Path("nowhere"))[0] if line.recipe == "simcse"])[0]
    assert (row["published_infonce"], row["published_infonce_half_width"]) == (71.74, 4.23)
