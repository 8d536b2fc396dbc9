import pytest
import torch

from weince.lab.training.views import as_float, make_views

SHAPES = {"digits": (64, 1, 8, 8), "cifar10": (64, 3, 32, 32)}


@pytest.mark.parametrize("data", SHAPES)
def test_views_keep_the_shape_differ_and_follow_the_seed(data):
    shape = SHAPES[data]
    images = as_float(torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))
    views = make_views(data, shape[-1])
    torch.manual_seed(1)
    first, second = views(images), views(images)
    torch.manual_seed(1)
    again = views(images)
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.isfinite(first).all()


def test_colour_views_of_one_image_differ_from_each_other():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).expand(128, -1, -1, -1)
    torch.manual_seed(0)
    seen = make_views("cifar10", 32)(image)
    grey = ((seen[:, 0] - seen[:, 1]).abs().amax(dim=(1, 2)) < 1e-6).double().mean()
    assert 0.05 < grey < 0.4  # p = 0.2, 128 draws: four standard deviations are 0.14
    assert len({round(float(v), 5) for v in seen.mean(dim=(1, 2, 3))}) > 100


def test_digits_are_not_flipped():
    """A bright left half: a mirrored one would have its weight on the right."""
    image = torch.zeros(256, 1, 8, 8)
    image[..., 1:7, 1:4] = 1.0
    torch.manual_seed(0)
    seen = make_views("digits", 8)(image)
    left, right = seen[..., :4].sum(dim=(1, 2, 3)), seen[..., 4:].sum(dim=(1, 2, 3))
    assert (left > right).double().mean() > 0.8
