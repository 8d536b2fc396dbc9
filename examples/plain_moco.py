"""MoCo in plain PyTorch: a momentum encoder, a queue that is saved with the loss, and your own loop."""

from __future__ import annotations

import argparse
import copy

import torch

from digits import batches, encoder, view
from weince import QueueLoss


def main(steps: int = 100) -> list[float]:
    """Train; returns the losses."""
    query_net = encoder()
    key_net = copy.deepcopy(query_net).requires_grad_(False)
    criterion = QueueLoss(size=1024, width=32, temperature=0.1)
    optimizer = torch.optim.Adam(query_net.parameters(), 1e-3)
    losses = []
    for images, _, index in batches(128, steps):
        with torch.no_grad():
            for slow, fast in zip(key_net.parameters(), query_net.parameters(), strict=True):
                slow.lerp_(fast, 0.05)
            key = key_net(view(images))
        loss = criterion(query_net(view(images)), key, ids=index)  # own keys of earlier epochs are no negatives
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    print([round(loss, 3) for loss in main(parser.parse_args().steps)][::10])
