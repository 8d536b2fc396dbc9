"""The leaderboard: numbers, words and files from results made by hand, what it refuses, its page in a browser."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from browser import browser, opened, owes
from weince.__main__ import main
from weince.lab.engine.choice import Record
from weince.lab.engine.conclusion import concluded
from weince.lab.engine.plan import Arm, Plan, Point
from weince.lab.intervals import holm, p_value
from weince.lab.pages.board import board_of
from weince.lab.pages.board_figures import figures_of_board
from weince.lab.pages.board_words import BEGIN, END, lead, markdown, up_to_date
from weince.lab.pages.leaderboard import write_leaderboard
from weince.lab.pages.results import read_results
from weince.shell.errors import UserError

METRICS = {"recall_at_1": "recall@1", "knn_accuracy": "kNN accuracy"}
TEMPERATURES = (0.05, 0.1, 0.2)
MADE = {"commit": "a" * 40, "device": "CPU", "torch": "2", "date": "2026-11-25T00:00:00"}
SEEDS = (1, 2, 3, 4)
UP, DOWN, SAME = [0.02, 0.021, 0.019, 0.02], [-0.03, -0.031, -0.029, -0.03], [0.01, -0.01, 0.005, -0.004]
"""Differences that are surely better, surely worse, and neither."""
UNSURE = [0.004, 0.012, 0.01, 0.003]
"""Whose interval excludes zero, but not after a correction for several comparisons."""


def result(name, differences, metrics=METRICS, best=0.1, geometry=False, without_p=False, extra=None):
    """A result in the engine's own format: arm -> its test differences to InfoNCE by seed; weibit has no knob."""
    arms = {"infonce": Arm(loss="infonce", title="InfoNCE", tried={"temperature": TEMPERATURES})}
    for arm in differences:
        tried = {} if arm == "weibit" else {"temperature": TEMPERATURES}
        arms[arm] = Arm(loss=arm.removesuffix("-tuned"), title={"weince": "WEINCE"}.get(arm, ""), tried=tried)
    for arm, follows in (extra or {}).items():
        arms[arm] = Arm(loss=arm, follows=follows, tried={"temperature": (0.2,)})
    plan = Plan(arms=arms, reference="infonce", select_by=next(iter(metrics)), seeds=(7, 8), confirm_seeds=SEEDS)

    def record(arm, settings, seed, score, tested):
        scored = {"scores": dict.fromkeys(metrics, score), "diverged": False, "seconds": 1.0, "made": MADE}
        test = {"scores": dict.fromkeys(metrics, score)} if tested else None
        if tested and geometry:
            test["geometry"] = {"alignment": 0.1 * seed, "uniformity": -2.0, "effective_rank": 30.0,
                                "mean_positive": 0.8, "mean_hardest_negative": 0.5}  # fmt: skip
        point = Point(arm, json.dumps(settings, sort_keys=True), (seed,), "test" if tested else "")
        return Record(point, settings, seed, scored, test)

    records = []
    for arm, given in {"infonce": [0.0] * 4, **differences, **dict.fromkeys(extra or {}, SAME)}.items():
        grid = [{"temperature": t} for t in TEMPERATURES] if arms[arm].tried else [{}]
        if arms[arm].follows is None:
            records += [record(arm, one, seed, 0.5 - abs(one.get("temperature", best) - best), False)
                        for one in grid for seed in (7, 8)]  # fmt: skip
        chosen = {} if not arms[arm].tried else {"temperature": 0.2 if arms[arm].follows else best}
        records += [
            record(arm, chosen, seed, 0.5 + 0.01 * seed + d, True) for seed, d in zip(SEEDS, given, strict=True)
        ]
    found = concluded(plan, records, metrics)
    if without_p:
        for one in found["differences"]:
            del one["p"]
    return {
        "name": name,
        "task": "images",
        "facts": ["1,000 images"],
        "settings": {"name": name},
        "made": MADE,
        **found,
    }


@pytest.fixture(scope="module")
def results():
    return [
        result("first", {"weince": UP, "dcl-tuned": DOWN, "weibit": SAME}, geometry=True),
        result("second", {"weince": SAME, "weince-endpoint": UNSURE, "weibit": DOWN}, best=0.05),
        result("first-x3", {"weince": SAME, "dcl-tuned": DOWN}),
        result("first-x10", {"weince": DOWN, "dcl-tuned": SAME}),
    ]


@pytest.fixture
def files(results, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for one in results:
        (folder / f"{one['name']}.json").write_text(json.dumps(one))
    return folder


def test_holm_is_stepwise_monotone_and_never_above_one():
    # By hand: 5 * 0.003, 4 * 0.011, 3 * 0.02, then the larger of 2 * 0.025 and what came before, and 1 * 0.7.
    assert holm([0.02, 0.003, 0.7, 0.011, 0.025]) == pytest.approx([0.06, 0.015, 0.7, 0.044, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_equal_differences_have_no_p_value_whatever_their_last_digits():
    assert len({0.51 - 0.5, 0.21 - 0.2}) == 2
    assert p_value([0.51 - 0.5, 0.21 - 0.2]) is None
    assert p_value([0.01]) is None


def test_rows_are_losses_by_alias_and_rank(results):
    board = board_of(results)
    table = board.tables[0]
    assert [row.loss for row in table.rows] == ["endpoint", "weince", "infonce", "weibit", "dcl"]
    assert [round(row.rank, 2) for row in table.rows] == [1.0, 1.5, 3.0, 3.0, 4.0]
    assert list(board.studies) == ["first", "second"]
    cells = {row.loss: row.cells for row in table.rows}
    assert cells["dcl"]["second"] == "not run"
    assert cells["endpoint"]["first"] == "not run"
    assert cells["infonce"]["first"].difference is None
    assert cells["infonce"]["first"].score.mean == pytest.approx(0.525)
    assert cells["weibit"]["first"].tried == 1
    assert cells["weince"]["second"].at_end
    assert not cells["weince"]["first"].at_end
    assert {row.loss: row.title for row in table.rows}["dcl"] == "DCL"
    assert [t.title for t in board.tables] == ["the score that chose", "kNN accuracy"]


def test_a_loss_that_few_tasks_have_stands_below_those_that_most_have():
    three = [result(name, {"weince": SAME}) for name in "ab"] + [result("c", {"weince": SAME, "weibit": UP})]
    assert [row.loss for row in board_of(three).tables[0].rows][-1] == "weibit"


def test_the_correction_is_for_every_comparison_of_the_table(results):
    table = board_of(results).tables[0]
    assert table.comparisons == 6
    cells = {(row.loss, task): cell for row in table.rows for task, cell in row.found.items() if cell.difference}
    order = list(cells)
    assert [cells[one].adjusted for one in order] == pytest.approx(holm([cells[one].p for one in order]))
    assert (cells["endpoint", "second"].sign, cells["endpoint", "second"].survives) == (1, False)
    assert (cells["weince", "first"].sign, cells["weince", "first"].survives) == (1, True)
    assert (cells["weince", "second"].sign, cells["weince", "second"].survives) == (0, False)
    assert (cells["dcl", "first"].sign, cells["dcl", "first"].survives) == (-1, True)


def test_p_values_are_computed_where_a_result_has_none(results):
    old = board_of([result("first", {"weince": UP, "weibit": SAME}, without_p=True)]).tables[0]
    new = board_of([result("first", {"weince": UP, "weibit": SAME})]).tables[0]
    assert [cell.p for row in old.rows for cell in row.found.values()] == pytest.approx(
        [cell.p for row in new.rows for cell in row.found.values()]
    )
    given = result("first", {"weince": UP})
    for one in given["differences"]:
        one["p"] = None
    table = board_of([given]).tables[0]
    assert (table.comparisons, table.untested) == (0, 2 - 1)


def test_what_follows_another_arm_is_no_loss_that_was_tuned():
    board = board_of([result("a", {"weince": UP}, extra={"dcl": "infonce"}), result("b", {"dcl-tuned": SAME})])
    row = next(row for row in board.tables[0].rows if row.loss == "dcl")
    assert row.cells["a"] == "not tuned"


def test_the_lead_counts_before_and_after_the_correction(results):
    assert lead(board_of(results)) == [
        "WEINCE wins most: better than tuned InfoNCE on 1 of its 2 tasks, worse on none; better on 1 after the "
        "correction for 6 comparisons.",
        "WEINCE, of 2 tasks: better than tuned InfoNCE on 1, not told apart on 1, worse on 0. "
        "After the correction: 1, 1 and 0.",
        "WEINCE (endpoint), of 1 task: better than tuned InfoNCE on 1, not told apart on 0, worse on 0. "
        "After the correction: 0, 1 and 0.",
        "Weibit, of 2 tasks: better than tuned InfoNCE on 0, not told apart on 1, worse on 1. "
        "After the correction: 0, 1 and 1.",
    ]
    assert lead(board_of([result("a", {"weince": SAME})]))[0] == "No loss is better than tuned InfoNCE on any task."


def test_other_lengths_are_a_figure_of_their_own(results):
    board = board_of(results)
    assert {task: list(those) for task, those in board.lengths.items()} == {"first": [1.0, 3.0, 10.0]}
    assert board.lengths["first"][10.0]["weince"].mean == pytest.approx(-0.03)
    drawn = {one.title: one for one in figures_of_board(board)}
    assert list(drawn) == ["Score over temperature", "Gain over training"]
    assert "WEINCE +2.0 at 1, +0.0 at 3, -3.0 at 10" in drawn["Gain over training"].drawings[0][1]
    said = drawn["Score over temperature"].drawings[0][1]
    assert "WEINCE best at 0.1 with 50.0" in said
    assert "Weibit, without a temperature, 50.0" in said


def test_numbers_lie_in_json_and_csv_and_every_study_has_its_page(results, tmp_path):
    folder = tmp_path / "board"
    page = write_leaderboard(board_of(results), results, folder)
    held = json.loads((folder / "leaderboard.json").read_text())
    assert {path.name for path in folder.iterdir()} == {
        "leaderboard.html", "leaderboard.json", "leaderboard.csv", "first.html", "second.html", "first-x3.html",
        "first-x10.html",
    }  # fmt: skip
    assert held["tables"][0]["comparisons"] == 6
    assert held["over_training"]["first"]["10"]["weince"]["difference_points"] == pytest.approx(-3)
    rows = list(csv.DictReader((folder / "leaderboard.csv").read_text().splitlines()))
    weince = next(row for row in rows if (row["loss"], row["task"], row["steps"]) == ("weince", "first", "1.0"))
    assert (weince["score"], weince["difference_points"], weince["why"]) == ("recall_at_1", "2.0", "")
    text = page.read_text(encoding="utf-8")
    assert "survives the correction for 6 comparisons" in text
    assert "What explains it" in text
    assert "0.25" in text  # alignment, the mean of 0.1 to 0.4
    write_leaderboard(board_of(results[:1]), results[:1], folder)  # replaces its own
    assert not (folder / "second.html").exists()


def test_the_table_of_a_document_is_rewritten_between_its_markers(results, files, tmp_path, capsys):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    board = board_of(results)
    assert not up_to_date(readme, board)
    assert main(["leaderboard", str(files), "--markdown", str(readme), "--losses", "weince", "dcl"]) == 0
    assert readme.read_text(encoding="utf-8") == f"before\n{markdown(board, ['weince', 'dcl'])}\nafter\n"
    assert up_to_date(readme, board, ["weince", "dcl"])
    assert up_to_date(readme, board_of(read_results([files])), ["weince", "dcl"])
    lines = readme.read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| task", "| first", "| second", "| mean rank",
    ]  # fmt: skip
    assert "| task | score | WEINCE | InfoNCE | DCL |" in lines
    assert any("+2.0 [+1.9, +2.1] ●" in line for line in lines)
    assert main(["leaderboard", str(files), "--markdown", str(readme), "--losses", "sphereface"]) == 2
    held, other = readme.read_text(encoding="utf-8"), tmp_path / "other.md"
    other.write_text("no markers")
    assert main(["leaderboard", str(files), "--markdown", str(readme), str(other)]) == 2
    assert readme.read_text(encoding="utf-8") == held
    readme.write_text("no markers")
    assert main(["leaderboard", str(files), "--markdown", str(readme)]) == 2
    said = capsys.readouterr().err
    assert "has no sphereface" in said
    assert "should have one <!-- leaderboard: begin -->" in said
    assert readme.read_text() == "no markers"


def wrong(folder: Path, results):
    """What is given -> what is said of it."""
    (folder / "text.json").write_text("no JSON")
    (folder / "nan.json").write_text('{"name": NaN}')
    (folder / "other.json").write_text('{"name": "other"}')
    (folder / "list.json").write_text("[]")
    (folder / "one.json").write_text(json.dumps(results[0]))
    (folder / "same.json").write_text(json.dumps(results[0]))
    alone = {**results[0], "rows": [row for row in results[0]["rows"] if row["arm"] != "infonce"]}
    (folder / "alone.json").write_text(json.dumps(alone))
    (folder / "outside.json").write_text(json.dumps({**results[0], "name": "../outside"}))
    (folder / "taken.json").write_text(json.dumps({**results[0], "name": "leaderboard"}))
    (folder / "longer.json").write_text(json.dumps({**results[0], "name": "task-x3"}))
    (folder / "broken.json").write_text(json.dumps({**results[0], "rows": [{"arm": "infonce", "kind": "tuned"}]}))
    (folder / "empty").mkdir()
    yield from (
        (["text.json"], "text.json is no JSON."),
        (["nan.json"], "nan.json is no JSON."),
        (["other.json"], "other.json is no result of `weince compare`: task, facts"),
        (["list.json"], "list.json is no result of `weince compare`."),
        (["one.json", "same.json"], "are both results of first"),
        (["alone.json"], "first has no row of its reference infonce"),
        (["outside.json"], "no name of a comparison"),
        (["taken.json"], "as the leaderboard's own page is"),
        (["longer.json"], "No result is of a task's own length"),
        (["broken.json"], "as this version reads it"),
        (["missing.json"], "There is no "),
        (["empty"], "holds no results"),
        ([], "No result was given"),
    )


def test_wrong_files_are_one_sentence_each_and_nothing_is_written(results, tmp_path, capsys):
    for names, expected in wrong(tmp_path, results):
        output = tmp_path / "board"
        status = main(["leaderboard", *(str(tmp_path / name) for name in names), "--output", str(output)])
        said = capsys.readouterr().err
        assert (status, said.count("\n")) == (2, 1), said
        assert expected in said
        assert not output.exists()


def test_references_that_differ_are_refused(results):
    other = json.loads(json.dumps(results[1]).replace('"reference": "infonce"', '"reference": "weince"'))
    with pytest.raises(UserError, match="first with infonce, second with weince"):
        board_of([results[0], other])


@pytest.mark.parametrize("name", ["leaderboard.html", "leaderboard.json", "notes.txt"])
def test_files_of_others_are_never_replaced(name, files, tmp_path, capsys):
    output = tmp_path / "board"
    output.mkdir()
    (output / name).write_text("{}")
    assert main(["leaderboard", str(files), "--output", str(output)]) == 2
    assert "one with an earlier leaderboard and nothing else" in capsys.readouterr().err
    assert [path.read_text() for path in output.iterdir()] == ["{}"]


def test_a_page_owes_its_readers_nothing_is_sorted_and_leads_to_its_studies(results, tmp_path):
    page = write_leaderboard(board_of(results), results, tmp_path / "board")
    with browser() as running:
        owes(running, page)
        with opened(running, page) as shown:
            table = shown.locator("table.board").first
            assert table.locator("thead th").nth(3).get_attribute("aria-sort") == "ascending"
            table.locator("thead button").nth(1).click()  # the first task
            assert table.locator("tbody th").evaluate_all("all => all.map(one => one.firstChild.data)") == [
                "WEINCE", "Weibit", "InfoNCE", "DCL", "WEINCE (endpoint)",
            ]  # fmt: skip
            shown.select_option("#score", "kNN accuracy")
            assert [one.is_visible() for one in shown.locator("table.board").all()] == [False, True]
            shown.locator("table.board").nth(1).locator("tbody a").first.click()
            assert shown.inner_text("h1") in ("first: losses compared", "second: losses compared")
        with opened(running, page, 400) as phone:
            assert phone.evaluate("document.documentElement.scrollWidth") <= 400
            box = phone.locator(".scroll", has=phone.locator("table.board")).first
            before = phone.locator("table.board tbody th").first.bounding_box()
            box.evaluate("box => { box.scrollLeft = 100; }")
            assert box.evaluate("box => box.scrollLeft") == 100
            after = phone.locator("table.board tbody th").first.bounding_box()
            assert before["x"] == pytest.approx(after["x"], abs=1)


def test_of_losses_that_win_alike_the_one_that_loses_least_leads_and_many_are_counted():
    one, other = result("a", {"weince": UP, "dcl": UP}), result("b", {"weince": DOWN, "dcl": SAME})
    assert lead(board_of([one, other]))[0].startswith(
        "DCL wins most: better than tuned InfoNCE on 1 of its 2 tasks, worse"
    )
    many = ("weince", "dcl", "macl", "weibit")
    said = lead(board_of([result("a", dict.fromkeys(many, UP))]))[0]
    assert said.startswith("4 losses win most: better than tuned InfoNCE on 1 of their 1 task, worse on none")
