"""Plans of recipes: what is tried, in which order, and what is refused before anything trains."""

import pytest

from weince.__main__ import main
from weince.lab.settings import write
from weince.lab.tasks import named, recipe_class, recipes
from weince.lab.tasks.recipe.images import ImagesRecipe
from weince.shell.errors import UserError

HEAD = 'task = "images"\ndata = "digits"\nseeds = [1, 2]\n'
GRID = "[arms.infonce]\nloss = 'infonce'\ntemperature = [0.1, 0.2]\n"


def recipe_of(text, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return ImagesRecipe(**named(str(path)))


def test_every_recipe_of_the_package_is_one_and_is_written_as_it_was_read(tmp_path):
    assert len(recipes()) == 23
    for name in recipes():
        settings = named(name)
        kind = recipe_class(settings["task"])
        recipe = kind(**settings)
        assert recipe.name == name
        (tmp_path / "again.toml").write_text(write(recipe))
        assert kind(**named(str(tmp_path / "again.toml"))) == recipe


def test_the_papers_grid_tries_as_many_settings_of_both_losses():
    plan = ImagesRecipe(**named("paper-grid")).plan()
    assert [plan.count(arm) for arm in plan.arms] == [27, 27]
    assert len(plan.points()) == len(set(plan.points())) == 2 * 27 * 4
    assert {point.seeds for point in plan.points()[:54]} == {(7,)}  # whole pairs first


def test_the_short_form_is_an_arm_a_loss():
    plan = ImagesRecipe(losses=("infonce", "dcl"), temperatures=(0.1, 0.5)).plan()
    assert {name: arm.grid for name, arm in plan.arms.items()} == {
        name: [{"temperature": 0.1}, {"temperature": 0.5}] for name in ("infonce", "dcl")
    }
    assert plan.title("dcl") == "DCL"
    assert plan.reference == "infonce"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + "[arms.weince]\nloss = 'weince'\n", "none of the arms"),
        (HEAD + GRID + "[arms.weince]\nloss = 'weince'\ntemperature = [0.1, 0.2, 0.3]\n", "equally many"),
        (HEAD + GRID + "[arms.weince]\nloss = 'weince'\n'gate.kappa' = [1.0, 2.0]\n", "`gate.kappa` is unknown"),
        (HEAD + GRID + "[arms.weince]\nloss = 'weince'\n'gate.quantile' = [0.5, 2.0]\n", "`quantile` should be in"),
        (HEAD + GRID + "[arms.weince]\nloss = 'weince'\nsubset = [100, 200]\n", "an arm varies temperature"),
        (HEAD + GRID + "[arms.weince]\nloss = 'triplet'\n", "triplet is no loss"),
        (HEAD + "confirm_seeds = [2]\n" + GRID, "`confirm_seeds` must be others"),
        (HEAD + "confirm_seeds = [3, 3]\n" + GRID, "`confirm_seeds` names a seed twice"),
        (HEAD + GRID.replace("0.2", "-0.2"), "greater than 0"),
        (HEAD + GRID.replace("0.2", "0.1"), "names something twice"),
        (HEAD + GRID + "[arms.dcl]\nloss = 'dcl'\nfollows = 'other'\n", "should follow an arm"),
        (HEAD + GRID + "[arms.dcl]\nloss = 'dcl'\nfollows = 'infonce'\ntemperature = [0.1, 0.3]\n", "one value"),
        (HEAD + GRID + "[arms.dcl]\nloss = 'dcl'\n'rivals.class_prior' = 2.0\n", "`class_prior` should be in"),
        (HEAD + "temperatures = [0.3]\n" + GRID, "leave `temperatures` out"),
        (HEAD + "[arms]\ninfonce = 3\n", "should be a table [arms.infonce]"),
        (HEAD + "[arms.infonce]\nloss = 'infonce'\ntemperature = {low = 0.1}\n", "`arms"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_in_one_sentence(text, says, tmp_path):
    with pytest.raises(UserError) as refused:
        recipe_of(text, tmp_path)
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["compare", "none.toml"], "none.toml"),
        (["compare", "cifar11"], "`weince recipes`"),
        (["compare", "--temperatures", "0"], "`temperatures.0`"),
        (["compare", "--workers", "-1"], "`--workers`"),
        (["compare", "--storage", "mysql://x"], "`--storage`"),
        (["compare", "work", "runs/none"], "no trials.db"),
        (["compare", "report", "runs/none", "--storage", "mysql://x"], "`--storage`"),
        (["compare", "report", ".", "--storage", "sqlite:///t.db", "--name", "other"], "no comparison 'other'"),
        (["recipes", "none"], "none of: "),
        (["train", "simcse-small"], 'task "images"'),
        (["train", "--temperature", "-1"], "`temperature`"),
    ],
)
def test_a_command_refuses_in_one_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1


def test_recipes_are_listed_and_printed(capsys):
    assert main(["recipes"]) == 0
    assert "cifar10-small" in capsys.readouterr().out
    assert main(["recipes", "cifar10-small"]) == 0
    assert capsys.readouterr().out == recipes()["cifar10-small"].read_text()
