"""Every rival against its formula in plain loops, in every setup, with weights, masks and ids."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from batches import masks
from weince import Gate, LearnableTemperature
from weince.contest import Contest
from weince.lab.rivals import (
    DCL,
    DHEL,
    MACL,
    Atanh,
    HardNegatives,
    HardnessWeighted,
    LDReg,
    LearntTemperature,
    MeasuredTemperature,
    OneSlope,
    SigLIP,
    StudentT,
)
from weince.setups import explicit_negatives, labelled, queued, two_towers, two_views

N, D, TAU = 14, 5, 0.2
Similarities = Sequence[float]
Formula = Callable[[Similarities, Similarities], float]


def mean(values: Similarities) -> float:
    return sum(values) / len(values)


def lse(logits: Similarities) -> float:
    return math.log(sum(map(math.exp, logits)))


def softmax(of: Callable[[float], float], of_negatives: Callable[[float], float] | None = None) -> Formula:
    """The mean over positives of -log softmax."""

    def loss(p: Similarities, n: Similarities) -> float:
        everyone = [of(s) for s in p] + [(of_negatives or of)(s) for s in n]
        return lse(everyone) - mean([of(s) for s in p])

    return loss


def dcl(p: Similarities, n: Similarities) -> float:
    return lse([s / TAU for s in n]) - mean(p) / TAU if n else 0.0


def hard(b: float, c: float) -> Formula:
    def loss(p: Similarities, n: Similarities) -> float:
        positive = [math.exp(s / TAU) for s in p]
        rest = 0.0
        if n:
            weights = [math.exp(b * s / TAU) for s in n]
            total = sum(w / mean(weights) * math.exp(s / TAU) for w, s in zip(weights, n, strict=True))
            rest = max((total - c * len(n) * mean(positive)) / (1 - c), len(n) * math.exp(-1 / TAU))
        return mean([-math.log(one / (sum(positive) + rest)) for one in positive])

    return loss


def measured(p: Similarities, n: Similarities) -> float:
    tail = sorted(n, reverse=True)[: min(len(n), max(10, round(0.1 * len(n))))]
    tau = max(mean([s - tail[-1] for s in tail[:-1]]), 0.01) if len(tail) > 1 else TAU
    return softmax(lambda s: s / tau)(p, n)


def ldreg(p: Similarities, n: Similarities) -> float:
    near = sorted(math.sqrt(2 * max(1 - s, 1e-6)) for s in n)[:6]
    lid = mean(near[:-1]) / (near[-1] - mean(near[:-1])) if len(near) > 1 else 1.0
    return softmax(lambda s: s / TAU)(p, n) - 0.3 * math.log(lid)


def siglip(p: Similarities, n: Similarities) -> float:
    return sum(math.log1p(math.exp(-(10 * s - 3))) for s in p) + sum(math.log1p(math.exp(10 * s - 3)) for s in n)


def macl(rows: list[tuple[Similarities, Similarities]]) -> Formula:
    alignment = mean([mean(p) for p, _ in rows])
    tau = TAU * (1 + 0.7 * (alignment - 0.1))

    def loss(p: Similarities, n: Similarities) -> float:
        everyone = lse([s / tau for s in [*p, *n]])
        log_p = [s / tau - everyone for s in p]
        return mean([-one / max(-math.expm1(one), 1e-8) for one in log_p])

    return loss


FORMULAS: dict[str, tuple[Callable[[], torch.nn.Module], Formula | None]] = {
    "atanh": (Atanh, softmax(lambda s: math.log(1 + s) - math.log(1 - s))),
    "one slope": (lambda: OneSlope(3.0), softmax(lambda s: -3 * math.log(1 - s))),
    "student-t": (lambda: StudentT(0.4, 3.0), softmax(lambda s: -3 * math.log(1.4 - s))),
    "learnt": (lambda: LearntTemperature(TAU), softmax(lambda s: s / TAU)),
    "measured": (lambda: MeasuredTemperature(TAU, Gate(tail_min=1)), measured),
    "dcl": (lambda: DCL(TAU), dcl),
    "hard": (lambda: HardNegatives(TAU, 0.5, 0.0), hard(0.5, 0.0)),
    "hard, debiased": (lambda: HardNegatives(TAU, 1.0, 0.1), hard(1.0, 0.1)),
    "macl": (lambda: MACL(TAU, 0.7, 0.1), None),
    "siglip": (lambda: SigLIP(10.0, -3.0), siglip),
    "hardness": (lambda: HardnessWeighted(TAU, 4.0), softmax(lambda s: s / TAU, lambda s: s / TAU + 4 * s)),
    "ldreg": (lambda: LDReg(TAU, 0.3, 6), ldreg),
}


def contests(extras: bool) -> dict[str, Contest]:
    """One of each setup; with extras, anchors differ in their number of negatives, and one has none."""
    g = torch.Generator().manual_seed(3)
    a = torch.randn(N, D, generator=g, dtype=torch.float64)
    b, queue = a + 0.7 * torch.randn(N, D, generator=g, dtype=torch.float64), torch.randn(20, D, generator=g).double()
    own = torch.randn(N, 3, D, generator=g, dtype=torch.float64)
    label = torch.arange(N) % 6
    label[5] = 77  # nobody else's
    given: dict = {"sample_weight": torch.rand(N, generator=g, dtype=torch.float64)} if extras else {}
    ids = {"ids": torch.arange(N) % 9} if extras else {}

    def mask(rows: int, columns: int) -> dict:
        if not extras:
            return {}
        ignored = torch.rand(rows, columns, generator=g) < 0.2
        ignored[4] = True
        return {"ignored": ignored}

    wide = {"sample_weight": torch.cat([given["sample_weight"]] * 2)} if extras else {}
    return {
        "two views": two_views(a, b, **given, **ids, **mask(2 * N, 2 * N)),
        "two towers": two_towers(a, b, **given, **ids, **mask(N, N)),
        "labels": labelled(a, label, **given, **mask(N, N)),
        "labels of views": labelled(torch.stack([a, b], 1), label, **given),
        "labels against others": labelled(a, label, b, label, **given, **mask(N, N)),
        "queue": queued(a, b, queue, **given, **mask(N, 20)),
        "empty queue": queued(a, b, queue[:0], **given),
        "retrieval": explicit_negatives(a, b, own, **given, **ids, **mask(N, 4 * N)),
        "own negatives alone": explicit_negatives(a, b, own, in_batch=False, **given),
    } | ({"weights of anchors": labelled(torch.cat([a, b]), label.repeat(2), **wide)} if extras else {})


def lists(contest: Contest) -> list[tuple[list[float], list[float]]]:
    similarity, (positive, negative) = contest.similarity(), masks(contest)
    return [
        (s[p].tolist(), s[n].tolist()) for s, p, n in zip(similarity, positive.bool(), negative.bool(), strict=True)
    ]


def weighted(each: list[float], counted: list[bool], weight: Tensor | None) -> float:
    weights = [1.0] * len(each) if weight is None else weight.tolist()
    kept = [(w, one) for w, one, there in zip(weights, each, counted, strict=True) if there]
    return sum(w * one for w, one in kept) / sum(w for w, _ in kept)


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_loss_is_its_formula_in_every_setup(name: str, extras: bool):
    make, formula = FORMULAS[name]
    for setup, contest in contests(extras).items():
        rows = lists(contest)
        of = formula or macl([row for row in rows if row[0]])
        each = [of(p, n) if p else 0.0 for p, n in rows]
        output = make().double()(contest)
        assert output.per_anchor.tolist() == pytest.approx(each, rel=1e-6, abs=1e-8), setup
        expected = weighted(each, [bool(p) for p, _ in rows], contest.sample_weight)
        assert output.loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-8), setup
        assert output.counted.tolist() == [bool(p) for p, _ in rows]


@pytest.mark.parametrize("extras", [False, True])
def test_dhel_has_the_negatives_of_its_own_view(extras: bool):
    every = contests(extras)
    for setup in ("two views", "two towers"):
        contest = every[setup]
        within = contest.anchors @ contest.anchors.T
        place = torch.arange(len(within))
        out = place[:, None] == place
        if setup == "two views":
            out |= (place[:, None] < N) != (place < N)
        if contest.ignored is not None and contest.anchor_ids is not None:
            out |= contest.ignored | (contest.anchor_ids == contest.anchor_ids.T)
        each = [dcl(p, s[~hidden].tolist()) for (p, _), s, hidden in zip(lists(contest), within, out, strict=True)]
        output = DHEL(TAU)(contest)
        assert output.per_anchor.tolist() == pytest.approx(each, rel=1e-9, abs=1e-9), setup
        assert float(output.loss) == pytest.approx(weighted(each, [True] * len(each), contest.sample_weight), rel=1e-9)


def test_dhel_compares_ids_of_one_tower():
    a, b = (torch.randn(6, D, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    query_ids, key_ids = torch.tensor([0, 0, 1, 2, 3, 4]), torch.tensor([9, 9, 9, 8, 7, 6])
    contest = two_towers(a, b, query_ids=query_ids, key_ids=key_ids)
    assert contest.ignored is None
    within, place = contest.anchors @ contest.anchors.T, torch.arange(6)
    out = (place[:, None] == place) | (query_ids[:, None] == query_ids)
    each = [
        dcl([float(p)], s[~o].tolist()) for p, s, o in zip(contest.similarity().diagonal(), within, out, strict=True)
    ]
    assert DHEL(TAU)(contest).per_anchor.tolist() == pytest.approx(each, rel=1e-9)


def test_a_temperature_learns_in_any_rival_and_gives_way_to_one_that_is_given():
    contest = contests(False)["two towers"]
    learnt = LearnableTemperature(0.1)
    HardnessWeighted(learnt)(contest).loss.backward()
    assert learnt.logit_scale.grad is not None
    assert float(learnt.logit_scale.grad) != 0
    assert torch.equal(DCL(0.5)(contest, 0.1).loss, DCL(0.1)(contest).loss)
    with pytest.raises(ValueError, match="`temperature`"):
        DCL(-1.0)
