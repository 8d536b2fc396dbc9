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
    vision = CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, head_width=32, image_size=32)
    text = CLIPTextCfg(context_length=16, width=64, heads=2, layers=1)
    model = CLIP(32, vision, text)
    tokens = SimpleTokenizer(context_length=16)(list(CLASSES))
    criterion = WEINCELoss()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for images, labels, _ in batches(64, steps):
        pixels = torch.nn.functional.interpolate(view(images), 32).expand(-1, 3, -1, -1)
        found = model(pixels, tokens[labels])
        image_features, text_features, scale = found[:3] if isinstance(found, tuple) else found.values()
        # A caption comes several times in a batch: equal ids are never each other's negatives.
        loss = criterion(image_features, text_features, scale, output_dict=True, ids=labels)["contrastive_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    print([round(loss, 3) for loss in main(parser.parse_args().steps)][::10])
