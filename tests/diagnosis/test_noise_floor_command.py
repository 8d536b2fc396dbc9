"""`weince noise-floor`, as a user runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from weince.__main__ import main


def test_table_figure_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["noise-floor", "--output", str(tmp_path), "--repetitions", "300"]) == 0
    assert "1.9245: a squared error of 0.0452 that stays" in capsys.readouterr().out
    with (tmp_path / "noise_floor.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["n"]) for row in rows] == [100, 200, 500, 1000, 2000, 5000, 10000]
    # The softmax stops at its floor, the law itself does not.
    assert float(rows[-1]["softmax_mse"]) > 0.04 > 0.002 > float(rows[-1]["weibit_mse"])
    with Image.open(tmp_path / "noise_floor.png") as image:
        assert image.size[0] > 800


@pytest.mark.parametrize("option", ["repetitions", "seed"])
def test_bad_numbers_are_refused_and_nothing_is_written(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["noise-floor", "--output", str(tmp_path / "new"), f"--{option}", "-1"]) == 2
    assert f"Parameter `{option}` should be an integer >= " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    assert main(["noise-floor", "--output", str(tmp_path / "file"), "--repetitions", "10"]) == 2
    assert "file" in capsys.readouterr().err
