import csv

import pytest
import torch
from safetensors.torch import load_file

import weince.lab.training.contrastive
from weince.lab.data.sets import load
from weince.lab.rivals import Rivals
from weince.lab.training.contrastive import Contrastive
from weince.lab.training.fit import checkpoints, train
from weince.lab.training.settings import ImageSettings, Run

RECIPE = ImageSettings(epochs=3, device="cpu")


@pytest.fixture(scope="module")
def images():
    return load(RECIPE).training


def history(folder):
    with (folder / "history.csv").open(newline="") as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in csv.DictReader(file)
        ]


def weights(folder):
    return {part: load_file(folder / f"{part}.safetensors") for part in ("encoder", "projection")}


def same(a, b):
    return all(torch.equal(a[part][name], b[part][name]) for part in a for name in a[part])


def stop_at(epoch):
    def on_epoch(done):
        if done == epoch:
            raise KeyboardInterrupt

    return on_epoch


@pytest.mark.parametrize(
    ("loss", "queue"),
    [("infonce", None), ("weince", None), ("weince-released", None), ("infonce-learnt", None), ("weince", 600)],
)
def test_a_stopped_run_ends_like_an_undisturbed_one(loss, queue, images, tmp_path):
    run, recipe = Run(loss, 0.2, 5), RECIPE.model_copy(update={"queue": queue})
    train(recipe, run, images, tmp_path / "whole", lambda epoch: None)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, images, tmp_path / "stopped", stop_at(2))
    assert len(checkpoints(tmp_path / "stopped")) == 1
    train(recipe, run, images, tmp_path / "stopped", lambda epoch: None)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "stopped"))
    assert history(tmp_path / "whole") == history(tmp_path / "stopped")
    assert len(history(tmp_path / "whole")) == 3


def test_a_learnt_temperature_has_a_learning_rate_of_its_own(images):
    recipe = RECIPE.model_copy(update={"rivals": Rivals(learning_rate_multiple=7.0), "schedule": "constant"})
    model = weince.lab.training.contrastive.Contrastive(recipe, Run("infonce-learnt", 0.2, 5), images)
    encoder, of_loss = model.configure_optimizers().param_groups
    assert encoder["lr"] == recipe.learning_rate
    assert of_loss["lr"] == pytest.approx(7 * recipe.learning_rate)
    assert [id(p) for p in of_loss["params"]] == [id(p) for p in model.criterion.parameters()]
    assert len(encoder["params"]) + 1 == len(list(model.parameters()))


def test_a_compiled_encoder_learns_the_same_and_keeps_its_names(images, tmp_path):
    recipe = RECIPE.model_copy(update={"epochs": 1, "precision": "64-true"})  # training amplifies rounding
    for name, changed in (("plain", {}), ("compiled", {"compile": True}), ("contiguous", {"channels_last": False})):
        train(recipe.model_copy(update=changed), Run("weince", 0.2, 5), images, tmp_path / name, lambda epoch: None)
    plain, *others = (weights(tmp_path / name) for name in ("plain", "compiled", "contiguous"))
    for other in others:
        assert list(other["encoder"]) == list(plain["encoder"])
        for name, value in plain["encoder"].items():
            assert torch.allclose(other["encoder"][name], value, rtol=1e-6, atol=1e-9)


def test_another_seed_ends_elsewhere(images, tmp_path):
    for seed in (1, 2):
        train(
            ImageSettings(epochs=1, device="cpu"),
            Run("weince", 0.2, seed),
            images,
            tmp_path / str(seed),
            lambda epoch: None,
        )
    assert not same(weights(tmp_path / "1"), weights(tmp_path / "2"))


def test_a_checkpoint_cut_short_is_passed_over(images, tmp_path):
    run = Run("weince", 0.2, 5)
    train(RECIPE, run, images, tmp_path / "whole", lambda epoch: None)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, run, images, tmp_path / "cut", stop_at(2))
    (first,) = checkpoints(tmp_path / "cut")
    (tmp_path / "cut" / "00001.ckpt").write_bytes(first.read_bytes()[:5000])
    train(RECIPE, run, images, tmp_path / "cut", lambda epoch: None)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_both_losses_see_the_same_images_views_and_initial_weights(images, tmp_path, monkeypatch):
    seen = {}
    make = weince.lab.training.contrastive.make_criterion

    def recording(loss, *settings, **queue):
        criterion = make(loss, *settings, **queue)
        criterion.register_forward_pre_hook(
            lambda _, z: seen.setdefault(loss, []).append(torch.cat(z).detach().clone())
        )
        return criterion

    monkeypatch.setattr(weince.lab.training.contrastive, "make_criterion", recording)
    for loss in ("infonce", "weince", "weince-released"):
        train(ImageSettings(epochs=1, device="cpu"), Run(loss, 0.2, 5), images, tmp_path / loss, lambda epoch: None)
    assert torch.equal(seen["infonce"][0], seen["weince"][0])
    assert torch.equal(seen["infonce"][0], seen["weince-released"][0])
    assert not torch.equal(seen["infonce"][-1], seen["weince"][-1])  # they learn different things from there


def test_history_holds_what_a_reader_of_curves_needs(images, tmp_path):
    for loss in ("infonce", "weince"):
        train(RECIPE, Run(loss, 0.2, 5), images, tmp_path / loss, lambda epoch: None)
        rows = history(tmp_path / loss)
        assert list(rows[0]) == ["epoch", "weight", "slope", "rho_0", "loss", "gradient_norm"]
        assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert {float(row["weight"]) for row in history(tmp_path / "infonce")} == {0.0}
    assert all(0 < float(row["weight"]) < 1 for row in history(tmp_path / "weince"))
    # InfoNCE's tail is measured too, on the same first batch of embeddings' epoch, by the same fit.
    assert all(float(row["slope"]) > 0 for row in history(tmp_path / "infonce"))
    assert list((tmp_path / "weince").glob("events.out.tfevents.*"))


def test_the_loss_goes_down(images, tmp_path):
    train(ImageSettings(epochs=6, device="cpu"), Run("weince", 0.2, 5), images, tmp_path, lambda epoch: None)
    losses = [float(row["loss"]) for row in history(tmp_path)]
    assert losses[-1] < losses[0] - 0.3


def test_with_a_queue_a_momentum_encoder_makes_the_keys_which_stay_as_negatives(images):
    recipe = RECIPE.model_copy(update={"queue": 300, "momentum": 0.75})
    model = Contrastive(recipe, Run("infonce", 0.1, 5), images)
    model.log = lambda *args, **more: None
    optimizer = model.configure_optimizers()["optimizer"]
    assert len(optimizer.param_groups[0]["params"]) == len(
        [*model.encoder.parameters(), *model.projection.parameters()]
    )
    halves = [*model.encoder.parameters(), *model.projection.parameters()]
    for held, own in zip(model.keys.parameters(), halves, strict=True):
        assert torch.equal(held, own)
        assert not held.requires_grad
    torch.manual_seed(0)
    loss = model.training_step(torch.arange(256))
    assert loss.item() == 0  # nothing in the queue yet
    held = [value.clone() for value in model.keys.parameters()]
    with torch.no_grad():
        for value in [*model.encoder.parameters(), *model.projection.parameters()]:
            value.add_(1.0)
    loss = model.training_step(torch.arange(256))
    loss.backward()
    assert loss.item() > 1
    assert int(model.criterion.queue.seen) == 512
    for before, now, own in zip(
        held, model.keys.parameters(), [*model.encoder.parameters(), *model.projection.parameters()], strict=True
    ):
        assert torch.allclose(now, 0.75 * before + 0.25 * own, atol=1e-6)
        assert now.grad is None
        assert own.grad is not None
