"""SimCLR and MoCo with lightly: the loss is the one line that changes."""

from __future__ import annotations

import argparse

import torch
from lightly.models.modules.heads import SimCLRProjectionHead

from digits import batches, encoder, view

# from lightly.loss import NTXentLoss
from weince.adapters.lightly import WEINCELoss


def main(steps: int = 100, memory_bank_size: tuple[int, int] | int = 0) -> list[float]:
    """Train; returns the losses."""
    model = torch.nn.Sequential(encoder(64), SimCLRProjectionHead(64, 64, 32))
    criterion = WEINCELoss(temperature=0.1, memory_bank_size=memory_bank_size)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for images, *_ in batches(128, steps):
        loss = criterion(model(view(images)), model(view(images)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    print([round(loss, 3) for loss in main(parser.parse_args().steps)][::10])
