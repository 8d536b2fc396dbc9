"""SimCLR: two views of each example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weince.checks import check_rows, check_same, check_weights
from weince.contest import Contest
from weince.gate import INFONCE, Gate
from weince.loss import loss_of
from weince.options import Keywords, Reduction
from weince.output import LossOutput
from weince.setups.contest_loss import SetupLoss, takes_what
from weince.setups.given import (
    Given,
    checked_ids,
    complete,
)
from weince.temperature import Temperature
from weince.units import unit_rows

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["InfoNCELoss", "WEINCELoss", "two_views", "weince_loss"]


def two_views(
    z_a: Tensor,
    z_b: Tensor,
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
) -> Contest:
    """SimCLR: every view is an anchor, every other view a candidate, the same example's the positive.

    Args:
        z_a: embeddings of the first view, (N, D), N >= 1.
        z_b: embeddings of the second view, (N, D); row i is the example of row i of z_a.
        sample_weight: of each example, (N,).
        ignored: bool (2N, 2N), all of view a, then all of view b.
        ids: of each example, (N,) or (N, C).

    Returns:
        Contest with A = M = 2N (all of view a, then all of view b) and K = 2N - 2.

    Source: arXiv:2002.05709 (SimCLR), section 2.1.
    """
    check_rows("z_a", z_a)
    check_same("z_b", z_b, "z_a", z_a)
    check_weights("sample_weight", sample_weight, z_a)
    views = unit_rows(torch.cat([z_a, z_b]))
    count = views.shape[0]
    itself = torch.arange(count, device=views.device)
    weights, both = (
        None if of_examples is None else torch.cat([of_examples, of_examples])
        for of_examples in (sample_weight, checked_ids("ids", ids, z_a))
    )
    contest = Contest(views, views, count - 2, positive=itself.roll(count // 2), itself=itself)
    return complete(contest, weights, ignored, both, both)


def weince_loss(
    z_a: Tensor,
    z_b: Tensor,
    temperature: Temperature = 0.1,
    gate: Gate = Gate(),
    reduction: Reduction = "mean",
    *,
    sample_weight: Tensor | None = None,
    ignored: Tensor | None = None,
    ids: Tensor | None = None,
    **options: Unpack[Keywords],
) -> Tensor:
    """WEINCE of two views, the SimCLR setup: `WEINCELoss` as a function.

        logit_ij = (1 - lambda_i) * s_ij / tau  +  lambda_i * (-beta_i * log(max(1 - s_ij, eps)))
        loss     = mean over anchors of  -log softmax_{j in C(i)} (logit_i.) [i+]

    s is the cosine similarity; lambda and beta are measured on the batch (`fit_tail`, `Gate`) and carry no gradient.
    lambda = 0 is InfoNCE, bit for bit.

    Computed in float32 or better, with autocast off: 1 - s cancels in half precision. Similarities are products in full
    float32 even where `torch.set_float32_matmul_precision` asks for TF32 or bfloat16, unless `matmul_precision="torch"`
    leaves them to it; the gradient's products follow it.

    The loss and its gradient are finite for every finite input. A negative at shortfall delta pulls along the sphere
    with about lambda * beta * sqrt(2 / delta), at most lambda * beta * sqrt(2 / eps): near-duplicates in a batch
    spike. `ids` of known duplicates leave them out; a larger `eps` or `Gate(slope_max=...)` bounds the rest.

    NaN or infinity in any row makes the loss NaN; with `check_finite` it is an error that names the rows.

    Args:
        z_a: embeddings of the first view, (N, D), N >= 1, any scale, any floating-point dtype.
        z_b: embeddings of the second view, (N, D); row i is the example of row i of z_a.
        temperature: tau, > 0. Tune it: the published 0.5 was not best in our runs.
        gate: as in `Options`.
        reduction: as in `Options`, over the 2N anchors.
        sample_weight: of each example, (N,).
        ignored: bool (2N, 2N), all of view a, then all of view b: pairs that take no part.
        ids: of each example, integers (N,) or (N, C): equal ids are never each other's negatives.
        **options: the others of `Options`.

    Returns:
        Scalar, or (2N,) with reduction "none": all of view a, then all of view b.

    Raises:
        TypeError: not tensors, not floating point, or an option of the wrong type.
        ValueError: wrong shape, device or range; the message names the parameter.

    Source: arXiv:2606.00262.

    Examples:
        >>> z_a, z_b = torch.eye(4), torch.eye(4)
        >>> weince_loss(z_a, z_b, temperature=1.0, gate=Gate(evidence=0.0, slope=1.0))
        tensor(1.1654)
    """

    def made() -> Contest:
        return two_views(z_a, z_b, sample_weight=sample_weight, ignored=ignored, ids=ids)

    return loss_of(made, temperature, gate, reduction, options, z_a=z_a, z_b=z_b)


class WEINCELoss(SetupLoss):
    """WEINCE of two views: `criterion(z_a, z_b)` -> scalar. See `weince_loss` for the equation and the errors.

    Args: as in `SetupLoss`; the reduction is over 2N anchors.

    Examples:
        >>> criterion = WEINCELoss(temperature=0.2)
        >>> z_a, z_b = torch.randn(16, 8), torch.randn(16, 8)
        >>> criterion(z_a, z_b).ndim, criterion.output(z_a, z_b).weight.shape
        (0, torch.Size([32]))
    """

    def output(self, z_a: Tensor, z_b: Tensor, **given: Unpack[Given]) -> LossOutput:
        """Of embeddings z_a and z_b, (N, D) each, and what else `weince.setups.two_views` takes."""
        return self.inner.of(lambda: [two_views(z_a, z_b, **given)], z_a=z_a, z_b=z_b)

    if TYPE_CHECKING:

        @takes_what(output)
        def __call__(self) -> Any: ...


class InfoNCELoss(WEINCELoss):
    """InfoNCE of two views (NT-Xent): WEINCE with weight 0, by the same code.

        loss = mean over anchors of  -log softmax_{j in C(i)} (s_i. / tau) [i+]

    Args: as in `SetupLoss`, without a gate.

    Source: arXiv:1807.03748 (InfoNCE), arXiv:2002.05709 (two views).

    Examples:
        >>> InfoNCELoss(temperature=1.0)(torch.eye(4), torch.eye(4))
        tensor(1.1654)
    """

    def __init__(
        self, temperature: Temperature = 0.1, reduction: Reduction = "mean", **options: Unpack[Keywords]
    ) -> None:
        super().__init__(temperature, INFONCE, reduction, **options)
