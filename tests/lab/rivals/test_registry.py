"""The table of losses: names, colours, grids, settings, and what a training loop is given."""

from __future__ import annotations

import itertools
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import weince.lab.rivals as rivals
from batches import views
from weince import PAPER, ContestLoss
from weince.lab.rivals import (
    COLOURS,
    ENTRIES,
    NAMES,
    Loss,
    Rivals,
    Setup,
    SigLIP,
    defined_for,
    grid_of,
    in_setup,
    make_criterion,
    parameter_groups,
    reserve_of,
)
from weince.lab.rivals.setups import setups_of

SIX = (0.03, 0.05, 0.07, 0.1, 0.2, 0.5)
UNTUNED = {"weibit", "weibit-line", "infonce-measured", "atanh"}
SETUPS: tuple[Setup, ...] = get_args(Setup)


def varied(settings: dict[str, float]) -> dict[str, Any]:
    """What an arm with these settings gives to `make`."""
    gate, own = (
        {name.partition(".")[2]: value for name, value in settings.items() if name.startswith(table)}
        for table in ("gate.", "rivals.")
    )
    return {
        "temperature": settings.get("temperature", 0.1),
        "gate": replace(PAPER, **gate),
        "rivals": replace(Rivals(), **own),
    }


def test_every_loss_has_a_name_and_a_colour_of_its_own():
    assert set(ENTRIES) == set(NAMES) == set(COLOURS) == set(get_args(Loss))
    assert len(set(COLOURS.values())) == len(set(NAMES.values())) == len(NAMES) == 21


@pytest.mark.parametrize("loss", ENTRIES)
def test_every_loss_tries_six_settings_or_one_and_each_makes_another_loss(loss: str):
    grid, reserve = grid_of(loss, SIX), reserve_of(loss)
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    assert len(settings) == (1 if loss in UNTUNED else 6)
    assert set(reserve) == set(grid)
    for name, values in grid.items():
        assert list(values) == sorted(values)
        below = [value for value in reserve[name] if value < values[0]]
        above = [value for value in reserve[name] if value > values[-1]]
        assert len(below) >= 2
        assert len(above) >= 2
        assert len(below) + len(above) == len(reserve[name])
        settings += [{**settings[0], name: value} for value in reserve[name]]
    setup = "two-views" if "two-views" in ENTRIES[loss].setups else "two-towers"
    a, b = views(16, 5)
    found = set()
    for one in settings:
        criterion = make_criterion(loss, setup=setup, **varied(one)).double()
        rates = [group["lr"] for group in parameter_groups(criterion, 0.1)]
        found.add((float(criterion(a, b).detach()), *rates))
    assert len(found) == len(settings)


def test_grids_of_the_recipe_and_of_the_table():
    assert grid_of("weince", SIX) == {"temperature": SIX}
    assert grid_of("hardness", SIX)["temperature"] == (0.05, 0.1, 0.2)
    assert reserve_of("one-slope") == {"gate.slope": (0.25, 0.5, 64.0, 128.0)}
    for of in (lambda: grid_of("none", SIX), lambda: reserve_of("none")):
        with pytest.raises(ValueError, match="`loss`"):
            of()


@pytest.mark.parametrize("setup", SETUPS)
def test_a_setup_has_the_losses_that_are_defined_for_it(setup: Setup):
    names = defined_for(setup)
    assert {"infonce", "weince", "dcl", "ldreg"} <= set(names)
    for name, entry in ENTRIES.items():
        made = entry.make(0.1, PAPER, Rivals())
        assert setups_of(made) == entry.setups
        assert (name in names) == (setup in entry.setups)
        if name in names:
            criterion = make_criterion(name, 0.1, PAPER, setup=setup, queue=(8, 5))
            inner = [module for module in criterion.modules() if isinstance(module, ContestLoss)]
            assert len(inner) == 1  # which a hook looks at
        else:
            with pytest.raises(ValueError, match=f"defined for {setup}"):
                make_criterion(name, 0.1, PAPER, setup=setup)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concentration", -1.0),
        ("class_prior", 1.0),
        ("least_temperature", 0.0),
        ("offset", -0.1),
        ("learning_rate_multiple", -1.0),
        ("macl_alpha", 1.1),
        ("macl_threshold", -0.1),
        ("hardness", float("inf")),
        ("dimension_weight", -1.0),
        ("neighbours", 1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name: str, value: float):
    assert name in {one.name for one in fields(Rivals)}
    with pytest.raises(ValueError, match=f"`{name}`"):
        replace(Rivals(), **{name: value})


def test_every_setting_of_the_table_is_checked_and_used():
    used = {name.partition(".")[2] for entry in ENTRIES.values() for name in entry.grid if name.startswith("rivals.")}
    fixed = {"class_prior", "least_temperature", "macl_threshold", "neighbours"}
    assert used | fixed == {one.name for one in fields(Rivals)}
    a, b = views(24, 5)
    changed = {
        "hard-negatives": Rivals(class_prior=0.4),
        "matched-temperature": Rivals(least_temperature=0.2),
        "macl": Rivals(macl_threshold=0.5),
        "ldreg": Rivals(neighbours=5),
    }
    for loss, own in changed.items():
        one, other = (make_criterion(loss, 0.1, PAPER, settings)(a, b) for settings in (Rivals(), own))
        assert not torch.allclose(one, other)


def test_parameters_of_a_loss_learn_at_their_own_rate():
    for loss, names in {"infonce-learnt": 1, "siglip": 2}.items():
        criterion = make_criterion(loss, 0.1, PAPER, Rivals(learning_rate_multiple=3.0), "two-towers")
        (group,) = parameter_groups(criterion, 0.01)
        assert len(group["params"]) == names == len(list(criterion.parameters()))
        assert group["lr"] == pytest.approx(0.03)
        assert group["weight_decay"] == 0.0
    for loss in set(defined_for("two-views")) - {"infonce-learnt"}:
        assert parameter_groups(make_criterion(loss, 0.1, PAPER), 0.01) == []


def test_siglip_learns_scale_and_bias():
    a, b = views(16, 5, dtype=torch.float32)
    criterion = in_setup(SigLIP(learning_rate_multiple=100.0), "two-towers")
    optimizer = torch.optim.Adam(parameter_groups(criterion, 1e-3))
    first = float(criterion(a, b).detach())
    for _ in range(30):
        optimizer.zero_grad()
        criterion(a, b).backward()
        optimizer.step()
    assert float(criterion(a, b).detach()) < 0.8 * first


def test_classes_are_there_by_name():
    assert all(hasattr(rivals, name) for name in rivals.__all__)


def test_the_page_tells_every_loss():
    page = (Path(__file__).parents[3] / "docs" / "rivals.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == {f"`{name}`" for name in ENTRIES}
    for name, entry in ENTRIES.items():
        cells = [cell.strip() for cell in rows[f"`{name}`"].split("|")[1:-1]]
        assert cells[1] == entry.title
        knobs = {knob.rpartition(".")[2] for knob in entry.grid}
        assert all(f"`{knob}`" in cells[3] for knob in knobs), name
        told = "all" if len(entry.setups) == len(SETUPS) else ", ".join(s for s in SETUPS if s in entry.setups)
        assert cells[4] == told
