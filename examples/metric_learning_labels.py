"""Labelled embeddings with pytorch-metric-learning: a miner, and a memory of earlier batches."""

from __future__ import annotations

import argparse

import torch
from pytorch_metric_learning.miners import MultiSimilarityMiner

from digits import batches, encoder, view

# from pytorch_metric_learning.losses import CrossBatchMemory, NTXentLoss
from weince.adapters.metric_learning import CrossBatchMemory, WEINCELoss


def main(steps: int = 100) -> list[float]:
    """Train; returns the losses."""
    model = encoder()
    criterion = CrossBatchMemory(WEINCELoss(temperature=0.1), 32, memory_size=512, miner=MultiSimilarityMiner())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for images, labels, _ in batches(128, steps):
        loss = criterion(model(view(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    print([round(loss, 3) for loss in main(parser.parse_args().steps)][::10])
