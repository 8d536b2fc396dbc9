"""The tail through training, from a real comparison that kept its epochs."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from browser import browser, opened, owes
from weince.__main__ import main
from weince.diagnosis.question import Question
from weince.lab.evaluation.through_training import PER_FILE, examine_epochs, write_epochs
from weince.shell.errors import UserError

SMALL = ["--losses", "infonce", "weince", "--temperatures", "0.2", "--seeds", "1", "--epochs", "3", "--device", "cpu"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    words = ["compare", *SMALL, "--losses", "infonce", "--keep-every", "2", "--output", str(output)]
    assert main(words) == 0
    return output / "digits"


def test_epochs_are_kept_before_between_and_at_the_end(kept):
    folder = kept / "runs" / "infonce-t0.2-s1"
    assert sorted(path.name for path in (folder / "kept").iterdir()) == [f"0000{k}.safetensors" for k in (0, 2, 3)]
    last = load_file(folder / "kept" / "00003.safetensors")
    for name in ("encoder", "projection"):
        for key, value in load_file(folder / f"{name}.safetensors").items():
            assert torch.equal(last[f"{name}.{key}"], value)


def test_keeping_epochs_changes_nothing_else(kept, tmp_path):
    assert main(["compare", *SMALL, "--losses", "infonce", "--output", str(tmp_path)]) == 0
    runs = [folder / "runs" / "infonce-t0.2-s1" for folder in (kept, tmp_path / "digits")]
    for name in ("encoder.safetensors", "projection.safetensors", "test.json"):
        first, second = ((run / name).read_bytes() for run in runs)
        assert first == second
    assert not (runs[1] / "kept").exists()


def test_the_command_diagnoses_every_kept_epoch(kept, tmp_path, capsys):
    output = tmp_path / "through"
    assert main(["diagnose", str(kept), "--output", str(output)]) == 0
    assert {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()} == {
        "training.json", "training.csv", "figures/training.png", "report.html"
    }  # fmt: skip
    summary = json.loads((output / "training.json").read_text())
    with (output / "training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 2, 3]
    assert [float(row["shape"]) for row in rows] == [row["shape"] for row in summary["rows"]]
    assert summary["images"] == 270
    # Each epoch is measured on its own weights.
    assert len({row["nearness"] for row in rows}) == 3
    assert "InfoNCE at 0.2, seed 1" in capsys.readouterr().out
    assert summary["comparison"] == "digits"
    # The same command again takes the place of its own earlier output.
    assert main(["diagnose", str(kept), "--output", str(output)]) == 0


def test_the_page_answers_to_clicks_and_owes_its_readers_nothing(kept, tmp_path):
    one = examine_epochs(Question(kept, anchors=100))
    other = [{**row, "run": "weince-t0.2-s1", "loss": "weince", "endpoint_high": float("inf")} for row in one.rows]
    both = one._replace(rows=one.rows + other)
    both.summary["rows"] = [{k: None if v == float("inf") else v for k, v in row.items()} for row in both.rows]
    path = write_epochs(both, tmp_path / "out")
    assert str(kept.parent) not in path.read_text(encoding="utf-8")
    with browser() as running:
        owes(running, path)
        with opened(running, path) as page:
            lines = page.locator("#shape .scatterlayer .trace")
            assert lines.count() == 4  # two runs, each with its band
            # An interval without a bound goes to the edge of the axis.
            band = page.evaluate("Math.max(...document.getElementById('endpoint').data[2].y)")
            assert band == pytest.approx(page.evaluate("document.getElementById('endpoint').layout.yaxis.range[1]"))
            page.click("#runs button >> nth=0")
            assert lines.count() == 2
            assert page.get_attribute("#runs button >> nth=0", "aria-pressed") == "false"
            page.click("#runs button >> nth=1")
            assert lines.count() == 0
            page.click("#runs button >> nth=0")
            assert lines.count() == 2
            page.click("summary")
            page.click("#epochs button >> nth=1")
            assert page.inner_text("#epochs tbody tr >> nth=0 >> td >> nth=0") == "3"


def test_what_cannot_be_diagnosed_is_refused(kept, tmp_path):
    for name in PER_FILE:
        with pytest.raises(UserError, match=f"`{name}` belongs to a file"):
            examine_epochs(Question(kept, **{name: kept if name == "corpus" else "x"}))
    bare = tmp_path / "bare"
    shutil.copytree(kept, bare, ignore=shutil.ignore_patterns("kept"))
    with pytest.raises(UserError, match="--keep-every 1"):
        examine_epochs(Question(bare))
    other = tmp_path / "other"
    shutil.copytree(kept, other)
    (other / "data.json").write_text(json.dumps({"sha256": "0"}))
    with pytest.raises(UserError, match="Found other ones"):
        examine_epochs(Question(other))
