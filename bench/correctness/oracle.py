"""Every setup and setting of the tests on this device, against plain loops in float64 and the golden values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from correctness.bounds import EXACT, FACTOR, LEAST, Check, Work, orders, worst
from weince import Options, contest_output
from weince.contest import Contest

TESTS = Path(__file__).parents[2] / "tests"
PATHS = ("tiled", "dense")


def checks(device: str, quick: bool) -> Iterator[Work]:
    """All of them.

    Raises:
        ImportError: the tests, or NumPy, which they take, are not there.
    """
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    import contests
    import exactness

    golden = exactness.GOLDEN[:2] if quick else exactness.GOLDEN
    for path in PATHS:
        yield Work(f"golden values, {path}", partial(_golden, golden, path, device))
    for gate in ("paper", "cautious") if quick else contests.GATES:
        for path in PATHS:
            yield Work(f"oracle, {gate}, {path}", partial(_oracle, gate, path, device, quick))


def _oracle(gate: str, path: str, device: str, quick: bool) -> list[Check]:
    import contests

    found = []
    settings = [(0.0, False)] if quick else [(e, decoupled) for e in contests.SMOOTHING for decoupled in (False, True)]
    for case in contests.CASES:
        for smoothing, decoupled in settings:
            expected, bound = _expected(case, gate, smoothing, decoupled)
            size = float(expected.abs().max()) or 1.0
            for dtype, allowed in ((torch.float64, EXACT), (torch.float32, bound)):
                error = _losses(case, gate, smoothing, decoupled, path, device, dtype) - expected
                name = f"oracle, {gate}, {path}, {str(dtype).removeprefix('torch.')}"
                where = f"{case}, smoothing {smoothing:g}{', decoupled' if decoupled else ''}"
                found.append(Check(name, float(error.abs().max()) / size, allowed, where))
    return worst(found)


@cache
def _expected(case: str, gate: str, smoothing: float, decoupled: bool) -> tuple[Tensor, float]:
    """Losses by plain loops, and how far float32 may be off, relative to the largest."""
    import contests

    rule = contests.GATES[gate]
    rounded = contests.CASES[case]._replace(leaves=_leaves(case))
    expected = torch.tensor(contests.oracle(rounded, rule, smoothing, decoupled).per_anchor, dtype=torch.float64)
    bound = LEAST
    for order in orders(contests.D):
        found = _losses(case, gate, smoothing, decoupled, "dense", "cpu", torch.float32, order)
        bound = max(bound, FACTOR * float((found - expected).abs().max()) / (float(expected.abs().max()) or 1.0))
    return expected, bound


def _leaves(case: str) -> tuple[Tensor, ...]:
    """Such as float32 holds."""
    import contests

    return tuple(leaf.float().double() for leaf in contests.CASES[case].leaves)


def _losses(
    case: str,
    gate: str,
    smoothing: float,
    decoupled: bool,
    path: Any,
    device: str,
    dtype: torch.dtype,
    order: Tensor | None = None,
) -> Tensor:
    """Of each anchor; `order` permutes the columns of embeddings."""
    import contests

    leaves = [leaf if order is None else leaf[..., order] for leaf in _leaves(case)]
    contest = _moved(contests.CASES[case].make(*(leaf.to(dtype) for leaf in leaves)), device)
    options = Options(contests.GATES[gate], label_smoothing=smoothing, decoupled=decoupled, implementation=path)
    return contest_output(contest, contests.TEMPERATURE, options).per_anchor.double().cpu()


def _moved(contest: Contest, device: str) -> Contest:
    """To another device; the masks of the tests are made on the CPU."""
    parts = {name: value.to(device) for name, value in contest._asdict().items() if isinstance(value, Tensor)}
    if contest.shared:
        parts["candidates"] = parts["anchors"]
    return contest._replace(**parts)


def _golden(cases: list[tuple[Any, Any]], path: Any, device: str) -> list[Check]:
    import exactness

    found = []
    for case, expected in cases:
        bounds = dict.fromkeys(expected, LEAST)
        for order in orders(case.z_a.shape[1]):
            mixed = case._replace(z_a=case.z_a[:, order.numpy()], z_b=case.z_b[:, order.numpy()])
            near = dict(exactness.by_library(mixed, torch.float32, "cpu", "dense"))
            for key in exactness.GRADIENTS:
                near[key] = near[key][:, order.argsort().numpy()]
            for key, error in exactness.errors(near, expected).items():
                bounds[key] = max(bounds[key], FACTOR * error)
        for dtype in (torch.float64, torch.float32):
            off = exactness.errors(exactness.by_library(case, dtype, device, path), expected)
            name = f"golden values, {path}, {str(dtype).removeprefix('torch.')}"
            for key, error in off.items():
                bound = EXACT if dtype == torch.float64 else bounds[key]
                found.append(Check(name, error, bound, f"{case.name}, {key}"))
    return worst(found)
