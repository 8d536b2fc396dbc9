"""The pages of comparisons, drawn from the results that are kept here, in a real browser; and the numbers of README."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from weince.lab.engine.plan import words
from weince.lab.intervals import Interval
from weince.lab.pages.board import board_of
from weince.lab.pages.board_words import up_to_date
from weince.lab.pages.comparison import write_result
from weince.lab.pages.figures import colours_of, figures_of
from weince.lab.pages.results import read_results

ROOT = Path(__file__).parents[2]
RESULTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("*.json"))}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    return {name: write_result(result, folder / name) for name, result in RESULTS.items()}


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("name", RESULTS)
def test_a_page_has_real_headings_and_says_what_its_figures_show(name, pages):
    page = pages[name].read_text(encoding="utf-8")
    assert next(int(level) for level in re.findall(r"<h(\d)", page)) == 1
    assert set(re.findall(r"<h(\d)", page)[1:]) == {"2"}
    drawings = re.findall(r"<svg [^>]*>", page)
    assert len(drawings) == sum(len(drawn.drawings) for drawn in figures_of(RESULTS[name]))
    for drawing in drawings:
        assert 'role="img"' in drawing
        assert len(re.search(r'aria-label="([^"]*)"', drawing)[1]) > 40
    assert not re.search(r"\b1 (seeds|epochs|runs|settings|arms)\b|\bone (epochs|seeds)\b", page)
    leads = re.findall(r'<p class="verdict">(.*?)</p>', page)
    assert len(leads) == 1 if len(RESULTS[name]["rows"]) > 6 else 1 <= len(leads) <= 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["fair-cifar10", "simcse-small"])
def test_a_page_fits_a_phone_and_is_sorted_by_keyboard(name, scheme, pages, browser):
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{pages[name]}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    table = page.locator("table.sortable").first
    column = 1
    table.locator("thead button").nth(column).focus()
    page.keyboard.press("Enter")
    assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "descending"
    cells = table.locator("tbody tr").evaluate_all(
        f"rows => rows.map(row => Number(row.cells[{column}].dataset.value))"
    )
    assert cells == sorted(cells, reverse=True)
    page.keyboard.press("Enter")
    cells = table.locator("tbody tr").evaluate_all(
        f"rows => rows.map(row => Number(row.cells[{column}].dataset.value))"
    )
    assert cells == sorted(cells)
    assert not said
    context.close()


def test_a_colour_belongs_to_a_loss():
    found = {name: colours_of(result) for name, result in RESULTS.items()}
    by_loss: dict[str, set[str]] = {}
    for name, result in RESULTS.items():
        for arm, (colour, _) in found[name].items():
            by_loss.setdefault(result["plan"]["arms"][arm]["loss"], set()).add(colour)
    assert all(len(colours) == 1 for colours in by_loss.values())
    assert len({next(iter(colours)) for colours in by_loss.values()}) == len(by_loss)
    # Arms of one loss in one figure are told apart by their lines.
    for name, result in RESULTS.items():
        for loss in by_loss:
            styles = [found[name][arm] for arm, of in result["plan"]["arms"].items() if of["loss"] == loss]
            assert len(set(styles)) == min(len(styles), 4), name


def difference(name, arm, metric):
    found = next(
        d for d in RESULTS[name]["differences"]
        if (d["arm"], d["to"], d["metric"]) == (arm, "reference", metric)
    )  # fmt: skip
    return str(Interval(found["mean"], found["low"], found["high"]))


def test_the_numbers_of_readme_and_docs_are_those_of_the_results():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    told = readme.split("## What we have seen")[1].split("**The paper's tables**")[0]
    for name, arm, metric in (
        ("banking77-5", "weince", "recall_at_1"),
        ("banking77-5-x3", "weince", "recall_at_1"),
        ("banking77-5-x10", "weince", "recall_at_1"),
        ("banking77-5-x3", "cautious", "recall_at_1"),
        ("banking77-5-x10", "cautious", "recall_at_1"),
        ("fair-cifar10", "weince", "recall_at_1"),
        ("fair-cifar10", "weince-endpoint", "recall_at_1"),
        ("cifar10-8000", "cautious", "recall_at_1"),
        ("cifar10-8000", "cautious-dcl", "recall_at_1"),
        ("cifar10-8000-x3", "cautious", "linear_accuracy"),
        ("cifar10-8000-x3", "cautious", "recall_at_1"),
        ("cifar10-8000-x3", "cautious-dcl", "linear_accuracy"),
        ("cifar10-8000-x3", "cautious-dcl", "recall_at_1"),
        ("simcse-small", "weince", "spearman"),
    ):
        assert difference(name, arm, metric) in told, (name, arm, metric)
    tables = (
        "banking77-5", "banking77-10", "banking77", "clinc150-5", "clinc150-10", "captions-5000", "cifar10-pretrained",
        "cifar10-8000", "fair-cifar10", "fair-tiny-imagenet",
    )  # fmt: skip
    board = board_of(read_results([ROOT / "results" / f"{name}.json" for name in tables]))
    shown = ("weince", "cautious", "cautious-dcl", "dcl", "weibit")
    more = ("endpoint", "hardness", "macl", "student-t", "one-slope", "infonce-measured")
    for path, losses in (("README.md", shown), ("docs/choosing.md", (*shown, *more))):
        assert up_to_date(ROOT / path, board, losses), path
    tuned = next(d for d in RESULTS["cifar10-8000"]["differences"]
                 if (d["arm"], d["to"], d["metric"]) == ("infonce", "usual", "linear_accuracy"))  # fmt: skip
    assert f"tuning alone gives it {Interval(tuned['mean'], tuned['low'], tuned['high'])}" in readme
    same = {(row["table"], row["loss"]): row for row in rows_of_csv("same_temperature")}
    for table, loss in (*((one, "cautious") for one in ("banking77-5", "clinc150-5", "captions-5000")),
                        ("captions-5000", "weince")):  # fmt: skip
        row = same[table, loss]
        bounds = (float(row[end]) / 100 for end in ("difference", "low", "high"))
        assert str(Interval(*bounds)) in told, (table, loss)


def rows_of_csv(name):
    with (ROOT / "experiments" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_settings_read_as_words():
    assert words({"gate.slope": "unit", "temperature": 0.1}) == "at 0.1, slope unit"
    assert words({}) == ""
