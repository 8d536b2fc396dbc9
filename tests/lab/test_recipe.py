import pytest

from weince.gate import Gate
from weince.lab.cli.compare import asked
from weince.lab.settings import read, write
from weince.lab.tasks.recipe.images import ImagesRecipe as Recipe
from weince.shell.errors import UserError


def settings(words):
    return asked(words).recipe


def test_toml_round_trip(tmp_path):
    recipe = Recipe(data="folder", data_dir="x", subset=40, seeds=(1, 2), gate=Gate(evidence=0.3, slope_max=8.0))
    path = tmp_path / "r.toml"
    path.write_text(write(recipe))
    assert Recipe(**read(path)) == recipe


def test_options_override_the_file_and_the_file_the_preset(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('data = "cifar10"\ndata_dir = "here"\nepochs = 7\nseeds = [1, 2]\n[gate]\nmargin = 6.0\n')
    recipe = settings([str(path), "--epochs", "9", "--gate.kappa-rho", "5"])
    assert (recipe.epochs, recipe.seeds, recipe.name) == (9, (1, 2), "r")
    assert recipe.gate == Gate(margin=6.0, kappa_rho=5.0)
    assert settings(["--data", "cifar10", "--data-dir", "x"]).epochs == 100
    assert settings([]).data == "digits"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochz": 3}, "`epochz` is unknown"),
        ({"epochs": 0}, "`epochs`"),
        ({"epochs": "many"}, "`epochs`"),
        ({"temperatures": [0.5, -1.0]}, "`temperatures.1`"),
        ({"temperatures": [float("nan")]}, "`temperatures.0`"),
        ({"temperatures": []}, "`temperatures`"),
        ({"temperatures": [0.1, 0.1]}, "`temperatures` names something twice"),
        ({"seeds": [3, 3]}, "`seeds` names something twice"),
        ({"losses": ["weince"]}, "`losses` must hold"),
        ({"losses": ["infonce", "triplet"]}, "`losses.1`"),
        ({"name": "../elsewhere"}, "`name`"),
        ({"data_dir": "x"}, "leave `data_dir` out"),
        ({"image_size": 64}, "`image_size` resizes"),
        ({"gate": {"quantile": 2.0}}, "`quantile` should be in (0, 1]"),
        ({"gate": {"sharpness": 2.0}}, "`gate.sharpness`"),
        ({"validation_fraction": 1.0}, "`validation_fraction`"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong, says):
    with pytest.raises(UserError) as error:
        Recipe(**wrong)
    assert says in str(error.value)


def test_every_wrong_setting_is_named_at_once():
    with pytest.raises(UserError) as error:
        Recipe(epochs=0, batch_size=1, colour="red")
    assert all(name in str(error.value) for name in ("`epochs`", "`batch_size`", "`colour`"))


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        settings([str(tmp_path / "none.toml")])
    (tmp_path / "bad.toml").write_text("epochs = ")
    with pytest.raises(UserError, match="not TOML"):
        settings([str(tmp_path / "bad.toml")])
    (tmp_path / "data.toml").write_text('data = "mnist"')
    with pytest.raises(UserError, match="`data`"):
        settings([str(tmp_path / "data.toml")])
