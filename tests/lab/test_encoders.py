import pytest
import torch

from weince.lab.encoders import make_encoder, make_projection
from weince.lab.recipe import Recipe


@pytest.mark.parametrize(("encoder", "size"), [("small", 8), ("small", 32), ("small", 64), ("resnet18", 32)])
def test_features_have_the_width_that_is_promised(encoder, size):
    net, width = make_encoder(Recipe(encoder=encoder), channels=3, size=size, seed=0)
    assert net(torch.rand(2, 3, size, size)).shape == (2, width)


def test_resnet18_keeps_the_resolution_of_small_images():
    net, _ = make_encoder(Recipe(encoder="resnet18"), channels=3, size=32, seed=0)
    assert net.maxpool(net.act1(net.bn1(net.conv1(torch.rand(1, 3, 32, 32))))).shape[-2:] == (32, 32)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(11.17e6, rel=0.01)


def test_initial_weights_follow_the_seed_alone():
    def weights(seed):
        encoder, width = make_encoder(Recipe(), channels=1, size=8, seed=seed)
        return torch.cat(
            [p.flatten() for half in (encoder, make_projection(width, 64, seed)) for p in half.parameters()]
        )

    first = weights(3)
    torch.rand(7)
    assert torch.equal(first, weights(3))
    assert not torch.equal(first, weights(4))


def test_projection_has_no_bias():
    assert [name for name, _ in make_projection(16, 8, seed=0).named_parameters()] == ["0.weight", "2.weight"]
