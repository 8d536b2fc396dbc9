import pytest
import torch
from torch import nn

from weince.lab.evaluation.features import extract, freeze

PIXELS = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())


def test_frozen_features_do_not_depend_on_the_batch():
    net = freeze(encoder())
    assert torch.allclose(torch.from_numpy(extract(net, PIXELS, 3)), torch.from_numpy(extract(net, PIXELS)), atol=1e-6)


def test_an_encoder_that_still_trains_is_refused():
    with pytest.raises(AssertionError, match="freeze"):
        extract(encoder(), PIXELS)
    with pytest.raises(AssertionError, match="freeze"):
        extract(encoder().eval(), PIXELS)


def test_a_running_statistic_that_moves_is_noticed():
    net = freeze(encoder())
    net[1].training = True  # what a careless encoder does inside forward
    net.training = False
    with pytest.raises(AssertionError, match=r"`1\.running_mean` changed"):
        extract(net, PIXELS)
