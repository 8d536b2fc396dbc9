"""Longer runs of a table: whose settings they take, how their curves are read, and that a leaderboard takes them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from over_training import (
    arms_of,
    as_kept,
    between_looks,
    ends_of,
    recipe_of,
    steps_to,
    table_of,
    write_steps,
)

from weince.lab.engine.choice import Record
from weince.lab.engine.conclusion import concluded
from weince.lab.engine.plan import Arm, Plan, Point
from weince.lab.intervals import paired
from weince.lab.pages.board import board_of
from weince.lab.pages.results import read_results
from weince.lab.settings import write
from weince.lab.tasks.recipe.texts import TextsRecipe
from weince.shell.files import write_json

MADE = {"commit": "a" * 40, "device": "CPU", "torch": "2", "date": "2026-11-25T00:00:00"}
SEEDS = (1, 2, 3)
ARMS = {
    "infonce": {"temperature": (0.05, 0.1)},
    "weince": {"temperature": (0.05, 0.1)},
    "endpoint": {"temperature": (0.05, 0.1)},
    "weibit": {},
    "one-slope": {"gate.slope": (4.0, 8.0)},
    "dcl": {"temperature": (0.05, 0.1)},
}
BEST = {"infonce": 0.60, "weince": 0.62, "endpoint": 0.61, "weibit": 0.5, "one-slope": 0.58, "dcl": 0.59}
"""Validation score of each arm's last setting; the first one is worse."""


def result(name="task", arms=ARMS, curves=None, length=4):
    """Of the engine; `curves` are looks at the validation data, arm -> seed -> scores."""
    plan = Plan(
        arms={name: Arm(loss=name, tried=tried) for name, tried in arms.items()}, reference="infonce",
        select_by="recall_at_1", seeds=SEEDS if curves else (7, 8), confirm_seeds=() if curves else SEEDS,
    )  # fmt: skip
    records = []
    for arm, one in plan.arms.items():
        for number, settings in enumerate(reversed(one.grid)):
            key = json.dumps(settings, sort_keys=True)
            for seed in (*plan.seeds, *(SEEDS if number == 0 else ())):
                score = curves[arm][seed][-1] if curves else BEST[arm] - 0.1 * number + 0.01 * seed
                scored = {"scores": {"recall_at_1": score}, "diverged": False, "seconds": 1.0, "made": MADE}
                tested = seed in SEEDS and number == 0
                test = {"scores": {"recall_at_1": score - 0.01 * (arm == "dcl")}} if tested else None
                if test and curves:
                    test["curves"] = {"loss": [1.0] * length, "validation": curves[arm][seed]}
                records.append(Record(Point(arm, key, (seed,), "test" if tested else ""), settings, seed, scored, test))
    settings = TextsRecipe(
        name=name, epochs=length, validate_every=2 if curves else None, output="/here", data_dir="/there", shots=5
    ).model_dump(mode="json")
    return {"name": name, "task": "texts", "facts": ["20 training, 4 test texts"], "settings": settings, "made": MADE,
            **concluded(plan, records, {"recall_at_1": "recall@1"})}  # fmt: skip


CURVES = {
    "infonce": {1: [0.3, 0.5], 2: [0.5, 0.4], 3: [0.2, 0.6]},
    "weince": {1: [0.5, 0.5], 2: [0.6, 0.4], 3: [0.5, 0.6]},
    "weibit": {1: [0.5, 0.6], 2: [0.1, 0.2], 3: [0.7, 0.7]},
}
LONG = {arm: {"temperature": (0.1,)} if arm != "weibit" else {} for arm in CURVES}


def test_arms_have_the_chosen_settings_and_the_other_loss_is_the_best_on_validation_data():
    assert arms_of(result()) == {
        "infonce": {"loss": "infonce", "temperature": 0.1},
        "weince": {"loss": "weince", "temperature": 0.1},
        "endpoint": {"loss": "endpoint", "temperature": 0.1},
        "weibit": {"loss": "weibit"},
        "dcl": {"loss": "dcl", "temperature": 0.1},
    }


def test_a_longer_recipe_is_the_same_but_for_epochs_arms_and_seeds():
    held = result()
    longer = recipe_of(held, 3, SEEDS, arms_of(held), "task-x3")
    assert isinstance(longer, TextsRecipe)
    assert longer.name == "task-x3"
    assert (longer.epochs, longer.validate_every, longer.shots) == (12, 1, 5)
    assert (longer.seeds, longer.confirm_seeds, longer.data_dir) == (SEEDS, (), None)
    plan = longer.plan()
    assert write(longer).count("[arms.") == 5
    assert plan.arms["dcl"].grid == [{"temperature": 0.1}]
    assert {plan.count(arm) for arm in plan.arms} == {1}
    assert {point.seeds for point in plan.points()} == {(seed,) for seed in SEEDS}
    before, after = TextsRecipe(**held["settings"]).model_dump(), longer.model_dump()
    changed = {key for key in before if before[key] != after[key]} - {"name", "output", "data_dir"}
    assert changed == {"epochs", "validate_every", "arms", "seeds", "confirm_seeds", "widen"}


def test_looks_are_about_thirty_and_end_with_the_training():
    for epochs in range(1, 400):
        step = between_looks(epochs)
        assert epochs % step == 0
    assert [epochs // between_looks(epochs) for epochs in (30, 90, 300, 60, 8)] == [30, 30, 30, 30, 8]


def test_steps_are_the_first_look_that_has_the_score():
    found = steps_to(result(arms=LONG, curves=CURVES), 0.5)
    assert found["infonce"] == {1: 1.0, 2: 0.5, 3: 1.0}
    assert found["weince"] == {1: 0.5, 2: 0.5, 3: 0.5}
    assert found["weibit"] == {1: 0.5, 2: None, 3: 0.5}


def test_each_seed_has_the_score_with_which_its_infonce_ends():
    short = result(arms=LONG, curves=CURVES)
    ends = ends_of(short)
    assert ends == {1: 0.5, 2: 0.4, 3: 0.6}
    found = steps_to(short, ends)
    assert found["infonce"] == {1: 1.0, 2: 0.5, 3: 1.0}
    assert found["weince"] == {1: 0.5, 2: 0.5, 3: 1.0}
    assert ends_of(result()) == {seed: 0.6 + 0.01 * seed for seed in SEEDS}


def test_the_table_has_means_of_the_seeds_that_arrive_and_ratios_paired_by_seed():
    steps = {"infonce": {1: 1.0, 2: 0.5, 3: 1.0}, "weince": {1: 0.5, 2: 0.5, 3: 0.5}, "weibit": {1: 0.5, 2: None}}
    own, weince, weibit = table_of(steps, 60)
    assert own == {"loss": "infonce", "seeds": 3, "reached": 3, "share": pytest.approx(5 / 6), "epochs": 50.0}
    expected = np.exp(paired([np.log(0.5), 0.0, np.log(0.5)]))
    assert [weince[key] for key in ("ratio", "low", "high")] == pytest.approx(expected)
    assert weince["pairs"] == 3
    assert (weibit["seeds"], weibit["reached"], weibit["epochs"], weibit["pairs"]) == (2, 1, 30.0, 1)
    assert (weibit["ratio"], weibit["low"]) == (0.5, None)
    _, fewer, never = table_of({"infonce": {1: None, 2: 0.5}, "weince": {1: 0.5, 2: 1.0}, "weibit": {1: None}}, 60)
    assert (fewer["reached"], fewer["pairs"], fewer["ratio"]) == (2, 1, 2.0)
    assert never == {"loss": "weibit", "seeds": 1, "reached": 0, "pairs": 0}


def test_rows_of_one_table_and_length_are_replaced(tmp_path):
    out = tmp_path / "steps.csv"
    write_steps([{"table": "a", "times": 1, "loss": "infonce", "share": 0.5}], out)
    write_steps([{"table": "a", "times": 3, "loss": "infonce", "share": 1 / 3}], out)
    rows = table_of({"infonce": {1: 0.75, 2: 0.75}}, 10)
    write_steps([{"table": "a", "times": 1, "commit": "f" * 40, **row} for row in rows], out)
    with out.open(newline="") as file:
        assert [(row["times"], row["share"]) for row in csv.DictReader(file)] == [("3", "0.3333"), ("1", "0.75")]
    write_steps([{"table": "a", "times": 3, **row} for row in table_of({"infonce": {1: 0.5}, "dcl": {1: 0.5}}, 9)], out)
    assert "a,3,dcl,1,1,0.5,4.5,1,1,,,\n" in out.read_text()


def test_a_leaderboard_draws_what_is_kept(tmp_path):
    longer = as_kept(result("task-x3", LONG, CURVES), "task", 3)
    assert longer["facts"][-1].startswith("settings as chosen in task, ")
    assert "/here" not in json.dumps(longer)
    assert "/there" not in json.dumps(longer)
    write_json(tmp_path / "task-x3.json", longer)
    board = board_of([result(), *read_results([tmp_path])])
    assert list(board.studies) == ["task"]
    assert set(board.lengths["task"]) == {1.0, 3.0}
    assert board.lengths["task"][3.0]["weince"].difference is not None
    assert board.title == "tuned InfoNCE"
