"""The colour jitter does what kornia's does."""

import kornia.augmentation as augment
import pytest
import torch
from kornia.enhance import adjust_hue

from weince.lab.colour import ColourJitter, shift_hue


def images(n=64, size=8):
    generator = torch.Generator().manual_seed(0)
    found = torch.rand(n, 3, size, size, generator=generator)
    found[: n // 4] = found[: n // 4].mul(4).round().div(4)  # ties between channels, greys, black and white
    return found


@pytest.mark.parametrize("turns", [0.0, 0.2, -0.2, 0.5, 1.0])
def test_hue_is_shifted_as_kornia_shifts_it(turns):
    x = images()
    expected = adjust_hue(x, torch.full((len(x),), 2 * torch.pi * turns))
    assert torch.allclose(shift_hue(x, torch.full((len(x),), turns)), expected, atol=2e-6)


def test_greys_have_no_hue():
    grey = torch.linspace(0, 1, 11)[:, None, None, None].expand(-1, 3, 2, 2)
    assert torch.equal(shift_hue(grey, torch.full((11,), 0.3)), grey)


@pytest.mark.parametrize("seed", range(6))
def test_jitter_is_kornias_with_the_same_choices(seed):
    x, seen = images(), []
    for kind in (augment.ColorJitter, ColourJitter):
        torch.manual_seed(seed)
        seen.append(kind(0.8, 0.8, 0.8, 0.2, p=0.8)(x))
    changed = (seen[0] != x).flatten(1).any(dim=1)
    assert 0.5 < changed.double().mean() < 1.0
    assert torch.allclose(*seen, atol=5e-6)
