"""Drawings inside a page."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

import weince
from weince.shell.figures import CARD, INK, svg

STYLE = (Path(weince.__file__).parent / "shell" / "style.css").read_text(encoding="utf-8")


def figure(colour: str = "#AA3377") -> Figure:
    made = Figure(figsize=(4, 3))
    ax = made.add_subplot()
    ax.plot([0, 1], [0, 1], color=colour, label="a <loss> & its name")
    ax.axhline(0.5, color="0.3")
    ax.text(0.5, 0.5, "in colour", color="#CCBB44")
    ax.legend()
    return made


def test_it_says_what_is_seen_and_its_text_is_text():
    drawn = svg(figure(), 'A line "up" from 0 to 1 & on.')
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert root.get("aria-label") == root[0].text == 'A line "up" from 0 to 1 & on.'
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a <loss> & its name", "in colour"} <= set(texts)
    assert not drawn.startswith("<?xml")
    assert "*{" not in drawn  # a rule for all of the page
    assert "width" not in root.attrib


def test_two_figures_of_a_page_share_no_name():
    ids = [set(re.findall(r' id="([^"]+)"', svg(figure(colour), "seen"))) for colour in ("#AA3377", "#4477AA")]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", svg(figure(), "seen"))) <= ids[0]


def test_the_same_figure_is_the_same_drawing():
    assert svg(figure(), "seen") == svg(figure(), "seen")


def test_colours_follow_the_screen():
    drawn = svg(figure(), "seen")
    assert "#ffffff;" not in drawn.replace("var(--cffffff, #ffffff)", "")  # no ground of its own
    assert "stroke: currentColor" in drawn
    assert "#000000" not in drawn
    # The text loses its colour, which a dark or light ground could swallow.
    assert "ccbb44" not in drawn.lower()
    dark = dict(re.findall(r"--(c\w+): (#\w+)", drawn.split("</style>")[0]))
    assert dark["caa3377"] != "#aa3377"
    assert "var(--caa3377, #aa3377)" in drawn


@pytest.mark.parametrize(("name", "colour"), [("ink", INK), ("card", CARD)])
def test_the_dark_is_that_of_the_style(name, colour):
    dark = STYLE.split("@media (prefers-color-scheme: dark)")[1]
    found = re.search(rf"--{name}: #(\w+)", dark)
    assert found is not None
    assert found[1] == "".join(f"{part:02x}" for part in colour)


def test_a_continuous_scale_keeps_its_colours():
    made = Figure()
    made.add_subplot().scatter(range(60), range(60), c=range(60), cmap="viridis")
    assert "#440154" in svg(made, "seen")
    assert "var(--c440154" not in svg(made, "seen")
