"""The frame and the macros of all pages, in a browser."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from matplotlib.figure import Figure
from playwright.sync_api import Browser

from browser import browser, opened, owes
from weince.shell import pages
from weince.shell.figures import svg

TEMPLATE = """
{% extends "shell/page.html" %}
{% import "shell/macros.html" as m %}
{% block title %}A page{% endblock %}
{% block lead %}{{ m.verdict("It is so.") }}{{ m.facts("3 seeds") }}{{ m.notes(["One < two."]) }}{% endblock %}
{% block body %}
<section><h2>Tables</h2>
{{ m.table(["", "mean"], [["linear", {"text": "80.1", "tone": "up"}], ["kNN", "79.0"]], "Scores") }}
{{ m.sortable(["run", "score", "temperature"], rows, "Runs", id="runs") }}
</section>
<section><h2>Figures</h2>{{ m.figure([drawing, drawing], "Twice the same.") }}</section>
<section>{% call m.details("More") %}{{ m.table([], [["a", "b" * 300]]) }}{% endcall %}</section>
{% endblock %}
{% block footer %}{{ m.provenance({"date": "today", "commit": None, "torch": "2"}) }}{% endblock %}
"""
ROWS = [["b", 9, {"text": "one tenth", "value": 0.1}], ["a", "1,000", {"text": "a half", "value": 0.5}],
        ["c", "none", {"text": "a fifth", "value": 0.2}]]  # fmt: skip


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = Figure(figsize=(8, 3))
    made.add_subplot().plot([0, 1], [0, 1], label="rising")
    both = jinja2.ChoiceLoader([jinja2.DictLoader({"test.html": TEMPLATE}), jinja2.PackageLoader("weince", "")])
    monkeypatch.setattr(pages, "PackageLoader", lambda *_: both)
    path = tmp_path / "page.html"
    path.write_text(pages.render("test.html", rows=ROWS, drawing=svg(made, "A line rises.")), encoding="utf-8")
    return path


def test_a_page_owes_its_readers_nothing_and_sorts_by_keyboard(page):
    with browser() as running:
        _sorts(running, page)


def _sorts(running: Browser, page: Path) -> None:
    owes(running, page)
    with opened(running, page) as shown:
        assert shown.inner_text("h1") == shown.title() == "A page"
        assert shown.inner_text("footer") == "Made with date today · torch 2"
        assert shown.inner_text(".note") == "One < two."
        assert shown.get_attribute("td.up >> nth=0", "class") == "up"

        def column(place: int) -> list[str]:
            return shown.locator(f"#runs tbody tr > :nth-child({place})").all_inner_texts()

        shown.locator("#runs button >> nth=1").focus()
        shown.keyboard.press("Enter")
        assert column(2) == ["1,000", "9", "none"]
        assert shown.locator("#runs th[aria-sort]").get_attribute("aria-sort") == "descending"
        shown.keyboard.press("Space")
        assert column(2) == ["9", "1,000", "none"]
        shown.keyboard.press("Tab")
        shown.keyboard.press("Enter")
        assert column(3) == ["a half", "a fifth", "one tenth"]
        assert shown.locator("#runs th[aria-sort]").count() == 1
        shown.click("#runs button >> nth=0")
        shown.click("#runs button >> nth=0")
        assert column(1) == ["a", "b", "c"]


def test_a_value_that_a_template_asks_for_and_nobody_gives_is_an_error(page):
    with pytest.raises(jinja2.UndefinedError):
        pages.render("test.html", rows=ROWS)
