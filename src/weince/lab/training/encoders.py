"""The encoders: images to features h, and the projection of features to embeddings z where the loss is computed."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from weince.lab.training.settings import ImageSettings
from weince.shell.errors import UserError

__all__ = ["check_encoder", "make_encoder", "make_projection"]

SMALL_IMAGES = 64
"""Edge length in pixels up to which a ResNet gets a 3x3 stem and no max-pool."""


def make_encoder(recipe: ImageSettings, channels: int, size: int, seed: int) -> tuple[nn.Module, int]:
    """An encoder with initial weights drawn from `seed`, and the width of its features.

    Args:
        recipe: names the encoder.
        channels: of the images.
        size: edge length of the images in pixels.
        seed: of the initial weights.

    Raises:
        UserError: no such encoder, or one that cannot take images of that size.
    """
    if recipe.encoder == "vit-small" and size % 8:
        raise UserError(f'Setting `encoder`: "vit-small" takes images of a multiple of 8 pixels. Found {size}.')
    torch.manual_seed(seed)
    if recipe.encoder == "small":
        width = 16 if size <= 16 else 32
        return _small(channels, width, stride=1 if size <= 16 else 2), 4 * width
    net = _timm(recipe.encoder, channels, size)
    return net, int(getattr(net, "head_hidden_size", None) or net.num_features)  # pyright: ignore


def check_encoder(recipe: ImageSettings, channels: int, size: int) -> None:
    """Refuse an encoder that is not there, or that cannot take such images, before anything is written.

    Raises:
        UserError: it is not, or cannot.
    """
    net, width = make_encoder(recipe, channels, size, 0)
    try:
        with torch.no_grad():
            found = tuple(net.eval()(torch.zeros(2, channels, size, size)).shape)
    except Exception as error:  # each architecture has errors of its own
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"Setting `encoder`: {recipe.encoder!r} cannot take images of {size} pixels: {said}.") from None
    if found != (2, width):
        raise UserError(
            f"Setting `encoder`: {recipe.encoder!r} should give {width} features an image. Found shape {found}."
        )


def make_projection(features: int, width: int, seed: int) -> nn.Module:
    """Two linear layers without bias, ReLU between, hidden width that of the features.

    Source: arXiv:2606.00262, training protocol.
    """
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, features, bias=False), nn.ReLU(), nn.Linear(features, width, bias=False))


def _small(channels: int, width: int, stride: int) -> nn.Module:
    layers: list[nn.Module] = []
    plan = ((width, stride), (width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1))
    for out, step in plan:
        layers += [nn.Conv2d(channels, out, 3, step, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _timm(name: str, channels: int, size: int) -> nn.Module:
    import timm
    from timm.models.resnet import BasicBlock, ResNet

    if name == "vit-small":
        # 64 patches, whatever the size; the published patch is not known to us.
        return timm.create_model(
            "vit_small_patch16_224",
            pretrained=False,
            num_classes=0,
            in_chans=channels,
            img_size=size,
            patch_size=size // 8,
        )
    if name == "resnet-small":
        blocks: Any = BasicBlock
        net: nn.Module = ResNet(blocks, (1, 1, 1, 1), num_classes=0, in_chans=channels, channels=(16, 32, 64, 128))
    else:
        net = _by_name(name, channels, size)
    if size <= SMALL_IMAGES and isinstance(net, ResNet):
        width = len(net.get_parameter("bn1.weight"))
        # The usual 7x7 stride-2 stem and the pool behind it would leave an eighth of them.
        net.conv1 = nn.Conv2d(channels, width, kernel_size=3, stride=1, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net


def _by_name(name: str, channels: int, size: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), 3, 0.5)
        said = f" Near to it: {', '.join(near)}." if near else ""
        raise UserError(
            f"Setting `encoder`: should be small, resnet-small, vit-small or the name of an encoder of timm. "
            f"Found {name!r}.{said}"
        )
    options: dict[str, Any] = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        return timm.create_model(name, img_size=size, **options)  # transformers must know it
    except TypeError:
        return timm.create_model(name, **options)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UserError(f"Setting `encoder`: {name!r} cannot take images of {size} pixels: {error}.") from None
