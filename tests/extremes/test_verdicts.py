"""Verdicts on laws that are known: what the documents say of them, and a few new draws, end to end."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from verdicts import LAWS, OUT, markdown, verdict_of

DOCS = Path(__file__).parents[2] / "docs" / "diagnose.md"
CAP = (
    "sphere, D = 4, 1,500 rows",
    "sphere, D = 8, 1,500 rows",
    "sphere, D = 16, 3,000 rows",
    "power law, slope 5, 20,000 of 4,000,000",
)
"""These are told."""
NOT_CAP = {
    "normal, 0 ± 0.15, 2,000 of 2,000,000": {"light", "exponential"},
    "normal, 0.7 ± 0.04, 20,000 of 40,000,000": {"light"},
    "normal, 0.3 ± 0.1, 5,000 of 500,000": {"light"},
    "normal, 0.5 ± 0.07, 5,000 of 500,000": {"light"},
    "sphere beside own directions, D = 12, 210 rows": {"light", "unsettled", "exponential", "short"},
    "cone, D = 64, 250 rows": {"light", "unsettled", "exponential"},
    "cone, D = 64, 400 rows": {"light", "unsettled", "exponential"},
    "cone, D = 64, 1,000 rows": {"light", "unsettled"},
    "sphere, D = 64, 2,000 rows": {"light", "unsettled"},
    "codes of ±1, D = 64, 1,000 rows": {"unsettled"},
}
"""These were called cap, short or heavy."""


def lines() -> list[list[str]]:
    with OUT.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_table_of_the_documents_is_what_the_script_found():
    text = DOCS.read_text(encoding="utf-8")
    assert markdown(lines()) in text
    assert [line[0] for line in lines()[1:]] == list(LAWS)
    (draws,) = {line[2] for line in lines()[1:]}
    assert f"Verdicts on {draws} draws of each law" in text


def test_no_law_in_the_table_has_an_end_that_is_not_its_own():
    """No cap is false where the end is not near it; of the ends below the cap at most 1 in 20, as of 95 % intervals."""
    head, *laws = lines()
    for line in laws:
        name, truth, counts = line[0], line[1], dict(zip(head[3:], map(int, line[3:]), strict=True))
        if truth not in ("ends at 1", "ends at 0.95", "ends at 0.9"):
            assert counts["cap"] == 0, name
        if truth in ("ends at 1", "no end"):
            assert counts["short"] <= 0.05 * sum(counts.values()), name
        if name in CAP:
            assert counts["cap"] >= 0.9 * sum(counts.values()), name


@pytest.mark.parametrize("name", CAP)
def test_tails_of_the_cap_are_told(name: str):
    assert [verdict_of(LAWS[name], seed).kind for seed in (100, 101)] == ["cap"] * 2


@pytest.mark.parametrize(("name", "kinds"), NOT_CAP.items(), ids=NOT_CAP)
def test_laws_that_were_called_what_they_are_not(name: str, kinds: set[str]):
    """Two draws: a rule that errs in half of them passes one law with 1 in 4, and all ten with 1 in a million."""
    for seed in (100, 101):
        verdict = verdict_of(LAWS[name], seed)
        assert verdict.kind in kinds
        assert "over this threshold" in verdict.text
