"""How hard near-duplicate negatives pull, and what bounds it.

Along the sphere |d s_ij / d u_i| = sqrt(1 - s_ij^2) <= sqrt(2 delta), and d logit_ij / d s_ij is (1 - lambda_i) / tau
plus lambda_i beta_i / delta above the floor, nothing of it below. So the gradient of one logit is at most

    pull_ij = (1 - lambda_i) / tau + lambda_i beta_i sqrt(2 / max(delta_ij, eps))

The loss of anchor i weighs its logits by softmax minus one-hot: absolute weights that sum to 2 at most, each 1 at most.
Row i is an anchor once and a candidate of every other anchor k, so the sum of all losses pulls it by at most

    2 max_j pull_ij + sum_{k != i} pull_ki
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from batches import views, whole
from weince import Gate, InfoNCELoss, LossOutput
from weince.setups import two_views
from weince.units import unit_rows

EPS = 1e-6
TEMPERATURE = 0.5
N = 64
# The gate of findings 6. It sets lambda near 1 exactly where negatives are near. Row 0 fits as without the pair, since
# the nearest point is burned.
NEARNESS = Gate(evidence="nearness")
SWEEP = [1e-2, 1e-3, 1e-4, 1e-5, 2e-6, 1e-7]


def pair_at(delta: float) -> tuple[Tensor, Tensor]:
    """Unit rows; rows 0 and 1 of view a, two negatives of each other, at shortfall delta."""
    z_a, z_b = (unit_rows(z) for z in views(N, 16))
    across = unit_rows((z_a[1] - (z_a[1] @ z_a[0]) * z_a[0]).unsqueeze(0))[0]
    z_a[1] = (1 - delta) * z_a[0] + math.sqrt(delta * (2 - delta)) * across
    return z_a.requires_grad_(), z_b.requires_grad_()


def pulls(delta: float, gate: Gate = NEARNESS, eps: float = EPS) -> tuple[Tensor, LossOutput, Tensor]:
    """Gradient norm of every row, (2N,), under the sum of the losses; the output; the similarities."""
    batch = pair_at(delta)
    output = whole(*batch, TEMPERATURE, gate, "sum", eps)
    gradient = torch.cat(torch.autograd.grad(output.loss, batch))
    return gradient.norm(dim=1), output, two_views(*batch).similarity().detach()


def bound(output: LossOutput, shortfall: Tensor, gate: Gate = NEARNESS) -> Tensor:
    slope = output.tail.slope.clamp_max(gate.slope_max or math.inf)
    own = (1 - output.weight) / TEMPERATURE
    pull = own.unsqueeze(1) + (output.weight * slope).unsqueeze(1) * (2 / shortfall).sqrt()
    pull = pull.masked_fill(torch.eye(2 * N, dtype=torch.bool), 0)
    return 2 * pull.amax(dim=1) + pull.sum(dim=0)


@pytest.mark.parametrize("delta", SWEEP)
@pytest.mark.parametrize("gate", [NEARNESS, Gate(), Gate(evidence="nearness", slope_max=1.0)], ids=str)
def test_the_gradient_of_a_row_is_bounded(gate: Gate, delta: float):
    norms, output, similarity = pulls(delta, gate)
    assert (norms <= bound(output, (1 - similarity).clamp_min(EPS), gate)).all()
    assert (norms <= bound(output, torch.full_like(similarity, EPS), gate)).all()


def test_the_bound_is_not_idle():
    # Near enough, the two rows of the pair push each other with a softmax share near 1.
    for delta in (1e-4, 1e-5, 2e-6):
        norms, output, similarity = pulls(delta)
        assert output.weight[:2].min() > 0.99
        assert norms[0] > bound(output, (1 - similarity).clamp_min(EPS))[0] / 4


def test_the_pull_grows_like_the_inverse_root_of_the_shortfall_down_to_the_floor():
    norm = {delta: pulls(delta)[0][0].item() for delta in SWEEP}
    for delta in (1e-3, 1e-4):
        assert norm[delta / 10] / norm[delta] == pytest.approx(math.sqrt(10), rel=0.05)
    # The finding: 1.07 at 1e-2, 11 at 1e-4, 79 at 2e-6, which is 1 : 10 : 74.
    assert norm[1e-4] / norm[1e-2] == pytest.approx(10, rel=0.15)
    assert norm[2e-6] / norm[1e-2] == pytest.approx(74, rel=0.15)
    # Below the floor nothing of it is left.
    assert norm[1e-7] < norm[1e-2]
    z_a, z_b = pair_at(1e-4)
    (plain,) = torch.autograd.grad(InfoNCELoss(TEMPERATURE, "sum")(z_a, z_b), z_a)
    assert norm[1e-4] > 100 * plain.norm(dim=1).max()


def test_a_larger_floor_and_a_bounded_slope_reduce_the_pull():
    def worst(gate: Gate = NEARNESS, eps: float = EPS) -> float:
        return max(pulls(delta, gate, eps)[0][0].item() for delta in SWEEP)

    free = worst()
    slope = pulls(2e-6)[1].tail.slope[0].item()
    # The sweep reaches 2e-6 with the one floor and 1e-2 with the other; the pull is lambda beta sqrt(2 / delta).
    assert worst(eps=5e-3) < 1.5 * math.sqrt(2e-6 / 1e-2) * free
    assert worst(Gate(evidence="nearness", slope_max=slope / 10)) < free / 10
