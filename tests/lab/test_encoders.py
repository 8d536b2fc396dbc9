import pytest
import torch

from weince.lab.training.encoders import check_encoder, make_encoder, make_projection
from weince.lab.training.settings import ImageSettings
from weince.shell.errors import UserError


@pytest.mark.parametrize(
    ("encoder", "size"),
    [("small", 8), ("small", 32), ("small", 64), ("resnet-small", 32), ("resnet18", 32), ("resnet50", 32),
     ("resnet-small", 96), ("vit-small", 64)],
)  # fmt: skip
def test_features_have_the_width_that_is_promised(encoder, size):
    net, width = make_encoder(ImageSettings(encoder=encoder), channels=3, size=size, seed=0)
    assert net(torch.rand(2, 3, size, size)).shape == (2, width)


@pytest.mark.parametrize(("size", "kept"), [(32, 32), (64, 64), (96, 24)])
def test_a_resnet_keeps_the_resolution_of_small_images(size, kept):
    net, _ = make_encoder(ImageSettings(encoder="resnet-small"), channels=3, size=size, seed=0)
    assert net.maxpool(net.act1(net.bn1(net.conv1(torch.rand(1, 3, size, size))))).shape[-2:] == (kept, kept)


@pytest.mark.parametrize(
    ("encoder", "parameters"), [("resnet18", 11.17e6), ("resnet50", 23.5e6), ("vit-small", 21.4e6)]
)
def test_encoders_are_those_of_the_field(encoder, parameters):
    net, _ = make_encoder(ImageSettings(encoder=encoder), channels=3, size=32, seed=0)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(parameters, rel=0.01)


def test_a_size_that_the_patches_do_not_divide_is_refused():
    with pytest.raises(UserError, match="multiple of 8"):
        make_encoder(ImageSettings(encoder="vit-small"), channels=3, size=30, seed=0)


def test_initial_weights_follow_the_seed_alone():
    def weights(seed):
        encoder, width = make_encoder(ImageSettings(), channels=1, size=8, seed=seed)
        return torch.cat(
            [p.flatten() for half in (encoder, make_projection(width, 64, seed)) for p in half.parameters()]
        )

    first = weights(3)
    torch.rand(7)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))


def test_projection_has_no_bias():
    assert [name for name, _ in make_projection(16, 8, seed=0).named_parameters()] == ["0.weight", "2.weight"]


@pytest.mark.parametrize(
    ("encoder", "size"),
    [("mobilenetv3_small_050", 32), ("tf_efficientnet_lite0", 32), ("convnext_atto", 64), ("vit_tiny_patch16_224", 32),
     ("resnet10t", 32)],
)  # fmt: skip
def test_any_encoder_of_timm_by_its_name(encoder, size):
    settings = ImageSettings(encoder=encoder)
    check_encoder(settings, 3, size)
    net, width = make_encoder(settings, 3, size, seed=1)
    assert net(torch.rand(2, 3, size, size)).shape == (2, width)


@pytest.mark.parametrize(
    ("encoder", "size", "says"),
    [("resnet1", 32, "resnet1"), ("no-such-thing", 32, "name of an encoder of timm"),
     ("vit_tiny_patch16_224", 8, "8 pixels"), ("convnext_atto", 8, "8 pixels")],
)  # fmt: skip
def test_an_encoder_that_cannot_be_had_is_refused(encoder, size, says):
    with pytest.raises(UserError, match="`encoder`") as refused:
        check_encoder(ImageSettings(encoder=encoder), 3, size)
    assert says in str(refused.value)
