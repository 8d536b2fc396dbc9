"""Random batches of two views, for every test that needs one."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from weince import Gate, LossOutput, Options, contest_output
from weince.contest import Contest
from weince.options import Reduction
from weince.setups import two_views
from weince.tiles.sweep import KEPT_ELEMENTS


def views(
    n: int, d: int, seed: int = 0, noise: float = 0.5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Gaussian rows of length about sqrt(d), and the same rows with `noise` times as much noise added."""
    generator = torch.Generator().manual_seed(seed)
    z_a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    z_b = z_a + noise * torch.randn(n, d, generator=generator, dtype=torch.float64)
    return z_a.to(dtype), z_b.to(dtype)


def clusters(
    n: int, d: int, seed: int = 0, spread: float = 0.3, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Two views of rows around n // 4 + 1 centres: hard negatives, so weights of every size."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n // 4 + 1, d, generator=generator, dtype=torch.float64)
    own = centres[torch.arange(n) % len(centres)] + spread * torch.randn(n, d, generator=generator, dtype=torch.float64)
    z_a, z_b = (own + spread * torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return z_a.to(dtype), z_b.to(dtype)


def devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def whole(
    z_a: Tensor,
    z_b: Tensor,
    temperature: Tensor | float = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    eps: float = 1e-6,
    **options: Any,
) -> LossOutput:
    """The whole output of two views."""
    return whole_of(two_views(z_a, z_b), temperature, gate, reduction, eps=eps, **options)


def whole_of(
    contest: Contest,
    temperature: Tensor | float = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    sample_weight: Tensor | None = None,
    implementation: str = "auto",
    **options: Any,
) -> LossOutput:
    """The whole output of a contest; "tiled, not kept" forms the similarities of a tile whenever they are needed."""
    if sample_weight is not None:
        contest = contest._replace(sample_weight=sample_weight)
    path: Any
    path, _, not_kept = implementation.partition(", ")
    kept = dict.fromkeys(KEPT_ELEMENTS, 0) if not_kept else {}
    with patch.dict(KEPT_ELEMENTS, kept):
        return contest_output(contest, temperature, Options(gate, reduction, implementation=path, **options))


def masks(contest: Contest) -> tuple[Tensor, Tensor]:
    """Who is a positive and who a negative, bool (A, M) each."""
    roles, ones = contest.roles(), torch.ones(len(contest.anchors), contest.columns)
    negative = roles.only_negatives(ones, 0.0).bool()
    return roles.place_positives_(0 * ones, roles.positives(ones, 0.0)).bool(), negative
