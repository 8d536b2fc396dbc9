"""Random batches of two views, for every test that needs one."""

from __future__ import annotations

import torch
from torch import Tensor


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
