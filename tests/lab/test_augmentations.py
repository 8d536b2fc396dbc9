"""The crop and the colour jitter do what kornia's do."""

import kornia.augmentation as augment
import pytest
import torch
from kornia.enhance import adjust_hue

from weince.lab.training.augmentations import ColourJitter, Crop, shift_hue


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [8, 17, 32])
def test_crop_is_kornias_with_the_same_boxes(size, dtype):
    x, seen = images(256, size).to(dtype), []
    for crop in (augment.RandomResizedCrop((size, size), scale=(0.08, 1.0), cropping_mode="resample"),
                 Crop(size, scale=(0.08, 1.0))):  # fmt: skip
        torch.manual_seed(size)
        seen.append(crop(x))
    assert torch.allclose(*seen, atol=2e-5)
    assert (seen[0] - x).abs().flatten(1).amax(dim=1).gt(0.1).double().mean() > 0.9


def test_a_crop_keeps_what_lies_inside_its_box():
    """A ramp is linear, so the crop of it is the ramp between the first and the last pixel of the box."""
    ramp = torch.arange(16.0).expand(4, 3, 16, 16)
    crop = Crop(16, scale=(0.2, 0.5))
    torch.manual_seed(0)
    seen = crop(ramp)
    first, last = crop._params["src"][:, 0, 0], crop._params["src"][:, 2, 0]
    expected = first[:, None] + (last - first)[:, None] * torch.linspace(0, 1, 16)
    assert torch.allclose(seen, expected[:, None, None, :].expand_as(seen), atol=1e-5)
