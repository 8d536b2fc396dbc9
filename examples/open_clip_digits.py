"""A tiny CLIP of open_clip, trained on digits and their names, with its learnable logit scale."""

from __future__ import annotations

import argparse

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer

from digits import CLASSES, batches, view

# from open_clip import ClipLoss
from weince.adapters.open_clip import WEINCELoss


def main(steps: int = 60) -> list[float]:
    """Train; returns the losses."""
    torch.manual_seed(0)
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=8, image_size=16)
    text = CLIPTextCfg(context_length=16, width=64, heads=2, layers=2)
    model = CLIP(32, vision, text)
    tokens = SimpleTokenizer(context_length=16)([f"a handwritten {name}" for name in CLASSES])
    criterion = WEINCELoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for images, labels in batches(512, steps):
        # One image of each digit: two of a kind would be false negatives of each other.
        first = torch.stack([(labels == digit).nonzero()[0, 0] for digit in range(10)])
        pixels = torch.nn.functional.interpolate(view(images[first]), 16).expand(-1, 3, -1, -1)
        found = model(pixels, tokens)
        image_features, text_features, scale = found[:3] if isinstance(found, tuple) else found.values()
        loss = criterion(image_features, text_features, scale, output_dict=True)["contrastive_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    print([round(loss, 3) for loss in main(parser.parse_args().steps)][::10])
