"""How exact the library is: the worst error of every key, case by case, against the golden values and the oracle.

`python tests/exactness.py` prints the tables; test_golden.py bounds the numbers in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import reference
from batches import clusters, views
from weince import Gate, InfoNCELoss, ReleasedTopMLoss, WEINCELoss
from weince.gate import nearness_reference
from weince.options import Implementation
from weince.released import pooled_slope
from weince.setups import two_views

INPUTS = {"z_i", "z_j", "temperature", "kappa_rho", "kappa_aic", "aic_margin", "quantile"}
LEFT_OUT = {"n_tail_used"}  # n = K_tail - b of the released code: an integer that the specification fixes
STATISTICS = ("beta", "r2", "delta_aic", "rho", "lam", "rho0", "batch_beta_hat", "batch_r2")
GRADIENTS = tuple(f"grad_{view}_{loss}" for loss in ("pl", "paper", "tlambda_select") for view in "ij")
TOPS = (8, 50)
WEIBIT_SLOPE = 4.0
EPS = 1e-6

Values = Mapping[str, np.ndarray]
"""Key of the golden files -> value in float64."""


class Case(NamedTuple):
    """One batch with its settings; `gate` is the paper's form."""

    name: str
    z_a: np.ndarray
    z_b: np.ndarray
    temperature: float
    gate: Gate

    @property
    def released(self) -> Gate:
        return replace(self.gate, slope="unit")


def read_golden(path: Path) -> tuple[Case, Values]:
    """The case, and the golden value of every key that is neither an input nor left out."""
    with np.load(path) as archive:
        values = {key: np.asarray(archive[key], dtype=np.float64) for key in archive.files}
    gate = Gate(*(float(values[key]) for key in ("kappa_rho", "kappa_aic", "aic_margin", "quantile")))
    case = Case("_".join(path.stem.split("_")[:2]), values["z_i"], values["z_j"], float(values["temperature"]), gate)
    return case, {key: value for key, value in values.items() if key not in INPUTS | LEFT_OUT}


def _case(name: str, batch: tuple[Tensor, Tensor], temperature: float, gate: Gate) -> Case:
    # Rounded to float32, so that both precisions see one input.
    z_a, z_b = (z.float().double().numpy() for z in batch)
    return Case(name, z_a, z_b, temperature, gate)


GOLDEN = [read_golden(path) for path in sorted((Path(__file__).parent / "golden").glob("*.npz"))]
# What no golden case has: the smallest batches, other tails, a burn of two and more, a bounded slope.
BEYOND = [
    _case("n2_d3", views(2, 3), 0.5, Gate()),
    _case("n3_d2", views(3, 2), 0.2, Gate(kappa_aic=0.0)),
    _case("n5_d4", views(5, 4), 0.1, Gate(quantile=1.0)),
    _case("n6_d4_tail10", clusters(6, 4), 0.1, Gate(tail_min=1, margin=-3.0)),
    _case("n30_d8_half", clusters(30, 8), 0.2, Gate(tail_fraction=0.5, tail_min=1, quantile=0.5)),
    _case("n48_d8_all", clusters(48, 8, spread=0.1), 0.07, Gate(tail_fraction=1.0, slope_max=3.0)),
    _case("n20_d40_max", views(20, 40), 0.5, Gate(slope_max=2.5, kappa_rho=3.0)),
]


def by_library(case: Case, dtype: torch.dtype, device: str = "cpu", implementation: Implementation = "auto") -> Values:
    """Every key by weince."""
    way = {"implementation": implementation}

    def loss(criterion: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        z_a, z_b = (torch.tensor(z, dtype=dtype, device=device, requires_grad=True) for z in (case.z_a, case.z_b))
        value = criterion.to(device)(z_a, z_b)
        return value.detach(), *torch.autograd.grad(value, (z_a, z_b))

    found: dict[str, Tensor] = {}
    for name, criterion in {
        "pl": InfoNCELoss(case.temperature, **way),
        "paper": WEINCELoss(case.temperature, case.gate, **way),
        "tlambda_select": WEINCELoss(case.temperature, case.released, **way),
    }.items():
        found[f"loss_{name}"], found[f"grad_i_{name}"], found[f"grad_j_{name}"] = loss(criterion)
    for key, evidence in (("rho", "nearness"), ("aic", "aic")):
        gate = replace(case.released, evidence=evidence)
        found[f"loss_tlambda_select_{key}"], *_ = loss(WEINCELoss(case.temperature, gate, **way))
    found["loss_weibit_beta4"], *_ = loss(WEINCELoss(case.temperature, Gate(evidence=1.0, slope=WEIBIT_SLOPE), **way))
    for top in TOPS:
        for name, weibit, softmax in ((f"weibit_top{top}_beta4", 1.0, 0.0), (f"softmax_top{top}", 0.0, 1.0)):
            extra = ReleasedTopMLoss(case.temperature, top, weibit, softmax, initial_slope=WEIBIT_SLOPE)
            found[name], *_ = loss(extra.eval())

    z_a, z_b = (torch.tensor(z, dtype=dtype, device=device) for z in (case.z_a, case.z_b))
    output = WEINCELoss(case.temperature, case.gate, **way).output(z_a, z_b)
    found["beta"], found["r2"], found["delta_aic"], found["rho"], *_ = output.tail
    found["lam"] = output.weight
    found["rho0"] = nearness_reference(output.tail.nearness, case.gate.quantile)
    found["batch_beta_hat"], found["batch_r2"] = pooled_slope(two_views(z_a, z_b), EPS)
    return {key: value.cpu().double().numpy() for key, value in found.items()}


def by_oracle(case: Case) -> Values:
    """Every key by the plain loops of reference.py."""
    z_a, z_b, n = case.z_a.tolist(), case.z_b.tolist(), len(case.z_a)
    s = reference.similarities(z_a, z_b)
    found: dict[str, object] = {}
    for name, gate in {
        "pl": Gate(evidence=0.0, slope=1.0),
        "paper": case.gate,
        "tlambda_select": case.released,
        "tlambda_select_rho": replace(case.released, evidence="nearness"),
        "tlambda_select_aic": replace(case.released, evidence="aic"),
        "weibit_beta4": Gate(evidence=1.0, slope=WEIBIT_SLOPE),
    }.items():
        result = reference.weince(s, case.temperature, gate, EPS)
        found[f"loss_{name}"] = sum(result.per_anchor) / (2 * n)
        if f"grad_i_{name}" in GRADIENTS:
            rows = reference.gradient(z_a, z_b, result.weight, result.slope, case.temperature, EPS)
            found[f"grad_i_{name}"], found[f"grad_j_{name}"] = rows[:n], rows[n:]
        if name == "paper":
            found["beta"], found["r2"], found["delta_aic"], found["rho"], *_ = zip(*result.fits, strict=True)
            found["lam"] = result.weight
            found["rho0"] = reference.nearness_reference(list(found["rho"]), gate.quantile)
    for top in TOPS:
        found[f"weibit_top{top}_beta4"] = reference.top_m_loss(s, top, 1.0, WEIBIT_SLOPE, case.temperature, EPS)
        found[f"softmax_top{top}"] = reference.top_m_loss(s, top, 0.0, WEIBIT_SLOPE, case.temperature, EPS)
    pooled = reference.pooled_fit(s, EPS)
    found["batch_beta_hat"], found["batch_r2"] = (pooled.slope, pooled.r2) if pooled else (0.0, 0.0)
    return {key: np.asarray(value, dtype=np.float64) for key, value in found.items()}


def errors(found: Values, expected: Values) -> dict[str, float]:
    """Largest relative error of every key: entry by entry, of a gradient relative to its largest entry."""
    assert set(found) == set(expected), set(found) ^ set(expected)
    return {key: _error(found[key], expected[key], whole=key in GRADIENTS) for key in expected}


def _error(found: np.ndarray, expected: np.ndarray, whole: bool) -> float:
    assert found.shape == expected.shape
    size = np.abs(expected).max() if whole else np.abs(expected)
    return float((np.abs(found - expected) / np.where(size == 0, 1, size)).max())


def table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Keys down, cases across."""
    width = max(map(len, rows)) + 2
    lines = [title, " " * 25 + "".join(f"{name:>{width}}" for name in rows)]
    for key in next(iter(rows.values())):
        lines.append(f"  {key:<23}" + "".join(f"{row[key]:>{width}.1e}" for row in rows.values()))
    return "\n".join(lines)


def main() -> None:
    print("Largest relative errors; of a gradient, relative to its largest entry.")
    oracle = {case.name: by_oracle(case) for case in [case for case, _ in GOLDEN] + BEYOND}
    print("\n" + table("golden: oracle", {case.name: errors(oracle[case.name], values) for case, values in GOLDEN}))
    for dtype in (torch.float64, torch.float32):
        rows = {case.name: errors(by_library(case, dtype), values) for case, values in GOLDEN}
        print("\n" + table(f"golden: weince, {dtype}", rows))
        rows = {case.name: errors(by_library(case, dtype), oracle[case.name]) for case in BEYOND}
        print("\n" + table(f"oracle: weince, {dtype}", rows))


if __name__ == "__main__":
    main()
