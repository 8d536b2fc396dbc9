"""What type checkers see: pyright and mypy read this file (`make lint`), and it runs."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import assert_type

from weince import (
    InfoNCELoss,
    LearnableTemperature,
    LossOutput,
    QueueLoss,
    RetrievalLoss,
    SupervisedLoss,
    TwoTowerLoss,
    WEINCELoss,
    contest_loss,
    contest_output,
    query_key_loss,
    weince_loss,
)
from weince.setups import two_views


def test_losses_are_tensors_and_outputs_whole() -> None:
    a, b, ids = torch.randn(6, 4), torch.randn(6, 4), torch.arange(6)
    criterion = WEINCELoss(LearnableTemperature(), label_smoothing=0.1)
    assert_type(criterion(a, b, ids=ids), Tensor)
    assert_type(criterion.output(a, b), LossOutput)
    assert_type(criterion.output(a, b).weight, Tensor)
    assert_type(InfoNCELoss()(a, b), Tensor)
    assert_type(TwoTowerLoss()(a, b, logit_scale=torch.tensor(10.0)), Tensor)
    assert_type(QueueLoss(8, 4)(a, b, ids=ids), Tensor)
    assert_type(SupervisedLoss()(a, ids), Tensor)
    assert_type(RetrievalLoss(in_batch=True)(a, b), Tensor)
    assert_type(weince_loss(a, b, 0.1, ids=ids, eps=1e-6), Tensor)
    assert_type(query_key_loss(a, b), Tensor)
    assert_type(contest_loss(two_views(a, b)), Tensor)
    assert_type(contest_output(two_views(a, b)), LossOutput)
    assert_type(criterion.inner(two_views(a, b)), LossOutput)


def wrong(criterion: WEINCELoss, a: Tensor) -> None:
    """Never run. Were one of these accepted, its comment would be an error of its own."""
    criterion(a)  # type: ignore[call-arg]
    criterion(a, a, nonsense=1)  # type: ignore[call-arg]
    WEINCELoss(epsilon=1e-6)  # type: ignore[call-arg]
    WEINCELoss(eps="small")  # type: ignore[arg-type]
    WEINCELoss(matmul_precision="tf32")  # type: ignore[arg-type]
    TwoTowerLoss()(a, a, temperature=0.1)  # type: ignore[call-arg]
    weince_loss(a, a, epsilon=1e-6)  # type: ignore[call-arg]
