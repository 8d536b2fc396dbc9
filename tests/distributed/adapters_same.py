"""A part of same_as_one.py: at weight 0, an adapter's gradient is that of its library's gathered loss."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightly.loss import NTXentLoss
from open_clip.loss import ClipLoss
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from weince import INFONCE, Gate
from weince.adapters import lightly, open_clip, sentence_transformers

N, D = 10, 6


def compare(name: str, ours, theirs, leaves: list[Tensor], world: int) -> None:
    found = []
    for criterion in (ours, theirs):
        copies = [leaf.clone().requires_grad_() for leaf in leaves]
        loss = criterion(*copies)
        loss.backward()
        value = loss.detach().clone()
        dist.all_reduce(value)  # theirs is the mean over the own anchors: the mean of means is the whole's
        found.append([value / world, *(copy.grad for copy in copies)])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=5e-5, atol=5e-6, msg=lambda text: f"{name}: {text}")


def same(rank: int, world: int) -> None:
    """All three, and that the paper's gate takes the statistics of all."""
    whole = torch.randn(2, world * N, D, generator=torch.Generator().manual_seed(0))
    a, b = whole[:, rank * N : (rank + 1) * N]

    compare("lightly", lightly.WEINCELoss(0.2, gather_distributed=True, gate=INFONCE),
            NTXentLoss(0.2, gather_distributed=True), [a, b], world)  # fmt: skip

    places = {"local_loss": True, "gather_with_grad": True, "rank": rank, "world_size": world}
    unit = torch.nn.functional.normalize
    both = [
        lambda x, y, scale, f=f: f(unit(x, dim=1), unit(y, dim=1), scale)
        for f in (open_clip.WEINCELoss(**places, gate=INFONCE), ClipLoss(**places))
    ]
    compare("open_clip", *both, [a, b, torch.tensor(7.0)], world)

    model = torch.nn.Identity()
    both = [
        kind(model, 20.0, gather_across_devices=True, **more).compute_loss_from_embeddings
        for kind, more in ((sentence_transformers.WEINCELoss, {"gate": INFONCE}), (MultipleNegativesRankingLoss, {}))
    ]
    compare("sentence-transformers", *(lambda *z, f=f: f(list(z), None) for f in both), [a, b], world)

    one = lightly.WEINCELoss(0.2, gate=Gate(tail_min=5))(*whole)
    torch.testing.assert_close(lightly.WEINCELoss(0.2, gather_distributed=True, gate=Gate(tail_min=5))(a, b), one)
