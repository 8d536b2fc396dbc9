"""One small batch of every setting: the contest as weince makes it, and as plain loops do.

`python tests/contests.py` writes the golden values of all of them, computed by the oracle alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import reference
from batches import clusters
from reference import Contest as Plain
from weince import Gate, setups
from weince.contest import Contest

GOLDEN = Path(__file__).parent / "golden" / "setups.json"
N, D = 14, 5
TEMPERATURE = 0.2
GATES = {
    "paper": Gate(tail_min=6),
    "released": Gate(slope="unit", tail_min=6),
    "infonce": Gate(evidence=0.0, slope=1.0),
    "endpoint": Gate(evidence="endpoint", tail_min=9, kappa_end=1.0),
    "cautious": Gate(evidence="beaten*endpoint", tail_min=9, kappa_end=1.0),
}
SMOOTHING = (0.0, 0.1)


class Case(NamedTuple):
    """Leaves (embeddings), from them to contests in two ways, and how many batches of equal size they make."""

    leaves: tuple[Tensor, ...]
    make: Callable[..., Contest]
    plain: Callable[..., list[Plain]]
    batches: int = 1


def mask(rows: int, columns: int) -> Tensor:
    """One pair in five is ignored, two in five of the first anchor's, all of the last's."""
    generator = torch.Generator().manual_seed(7)
    ignored = torch.rand(rows, columns, generator=generator) < 0.2
    ignored[-1] = True
    return ignored


def kept(ignored: Tensor | None, i: int, columns: list[int]) -> list[int]:
    return [j for j in columns if ignored is None or not bool(ignored[i, j])]


def two_views_case(ignored: Tensor | None) -> Case:
    def plain(z_a: list, z_b: list) -> list[Plain]:
        z = z_a + z_b
        contests = []
        for i in range(len(z)):
            own = (i + len(z_a)) % len(z)
            others = [j for j in range(len(z)) if j not in (i, own)]
            contests.append(Plain(z[i], z, [own], kept(ignored, i, others)))
        return contests

    return Case(clusters(N, D), lambda a, b: setups.two_views(a, b, ignored=ignored), plain)


def two_towers_case(ignored: Tensor | None) -> Case:
    def plain(a: list, b: list) -> list[Plain]:
        return [Plain(a[i], b, [i], kept(ignored, i, [j for j in range(len(b)) if j != i])) for i in range(len(a))]

    return Case(clusters(N, D), lambda a, b: setups.two_towers(a, b, ignored=ignored), plain)


def both_ways_case(ignored: Tensor | None) -> Case:
    there, back = two_towers_case(ignored), two_towers_case(None if ignored is None else ignored.T)

    def make(a: Tensor, b: Tensor) -> Contest:
        (contest,) = setups.both_ways(there.make(a, b))
        return contest

    return Case(there.leaves, make, lambda a, b: there.plain(a, b) + back.plain(b, a), batches=2)


def queue_case(rows: int, ignored: Tensor | None = None) -> Case:
    def plain(query: list, key: list, queue: list) -> list[Plain]:
        return [
            Plain(query[i], [key[i], *queue], [0], [1 + j for j in kept(ignored, i, list(range(len(queue))))])
            for i in range(len(query))
        ]

    queue = torch.cat(clusters(N, D, seed=1))[:rows]
    return Case((*clusters(N, D), queue), lambda q, k, bank: setups.queued(q, k, bank, ignored=ignored), plain)


LABELS = torch.tensor([0, 0, 1, 2, 1, 1, 3, 4, 4, 0, 5, 1, 6, 6])  # 2, 3 and 5 have no other
OTHER_LABELS = torch.tensor([0, 9, 1, 1, 4, 4, 4, 6, 9, 9, 0, 2, 5])


def labelled_case(ignored: Tensor | None) -> Case:
    labels = LABELS.tolist()

    def plain(z: list) -> list[Plain]:
        contests = []
        for i in range(len(z)):
            others = kept(ignored, i, [j for j in range(len(z)) if j != i])
            same = [j for j in others if labels[j] == labels[i]]
            contests.append(Plain(z[i], z, same, [j for j in others if j not in same]))
        return contests

    return Case(clusters(N, D)[:1], lambda z: setups.labelled(z, LABELS, ignored=ignored), plain)


def labelled_against_others_case() -> Case:
    labels, other_labels = LABELS.tolist(), OTHER_LABELS.tolist()

    def plain(z: list, others: list) -> list[Plain]:
        contests = []
        for i in range(len(z)):
            same = [j for j in range(len(others)) if other_labels[j] == labels[i]]
            contests.append(Plain(z[i], others, same, [j for j in range(len(others)) if j not in same]))
        return contests

    z, others = clusters(N, D)
    return Case((z, others[:13]), lambda a, b: setups.labelled(a, LABELS, b, OTHER_LABELS), plain)


def one_class_case() -> Case:
    """No anchor has a negative."""
    labels = torch.zeros(N, dtype=torch.long)

    def plain(z: list) -> list[Plain]:
        return [Plain(z[i], z, [j for j in range(len(z)) if j != i], []) for i in range(len(z))]

    return Case(clusters(N, D)[:1], lambda z: setups.labelled(z, labels), plain)


def documents(negatives: list) -> list:
    """(N, H, D) as columns: the first negative of each query, then the second."""
    return [negatives[i][h] for h in range(len(negatives[0])) for i in range(len(negatives))]


def explicit_case(shape: str, in_batch: bool, ignored: Tensor | None = None) -> Case:
    query, positive = clusters(N, D)
    own = torch.stack(clusters(N, D, seed=3), dim=1)
    negatives = {"none": (), "own": (own,), "shared": (own[:4, 0],)}[shape]

    def plain(query: list, positive: list, *rest: list) -> list[Plain]:
        contests = []
        for i in range(len(query)):
            if in_batch:
                extra = [] if not rest else rest[0] if shape == "shared" else documents(rest[0])
                columns, won = positive + extra, i
            else:
                columns = [positive[i], *([] if not rest else rest[0] if shape == "shared" else rest[0][i])]
                won = 0
            others = [j for j in range(len(columns)) if j != won]
            contests.append(Plain(query[i], columns, [won], kept(ignored, i, others)))
        return contests

    def make(query: Tensor, positive: Tensor, *rest: Tensor) -> Contest:
        return setups.explicit_negatives(query, positive, *(rest or (None,)), in_batch=in_batch, ignored=ignored)

    return Case((query, positive, *negatives), make, plain)


CASES = {
    "two views": two_views_case(None),
    "two views, ignored": two_views_case(mask(2 * N, 2 * N)),
    "two towers": two_towers_case(None),
    "two towers, ignored": two_towers_case(mask(N, N)),
    "two towers, both ways": both_ways_case(None),
    "two towers, both ways, ignored": both_ways_case(mask(N, N)),
    "queue": queue_case(20),
    "queue, ignored": queue_case(20, mask(N, 20)),
    "queue of one": queue_case(1),
    "empty queue": queue_case(0),
    "labels": labelled_case(None),
    "labels, ignored": labelled_case(mask(N, N)),
    "labels against others": labelled_against_others_case(),
    "one class": one_class_case(),
    "in-batch": explicit_case("none", True),
    "in-batch, own negatives": explicit_case("own", True),
    "in-batch, shared negatives": explicit_case("shared", True),
    "in-batch, own negatives, ignored": explicit_case("own", True, mask(N, 3 * N)),
    "own negatives alone": explicit_case("own", False),
    "shared negatives alone": explicit_case("shared", False),
    "no negatives": explicit_case("none", False),
}


def oracle(case: Case, gate: Gate, smoothing: float, decoupled: bool = False) -> reference.Weince:
    contests = case.plain(*(leaf.tolist() for leaf in case.leaves))
    size = len(contests) // case.batches
    found = [
        reference.weince_of(contests[start : start + size], TEMPERATURE, gate, smoothing=smoothing, decoupled=decoupled)
        for start in range(0, len(contests), size)
    ]
    return reference.Weince(*([*chain(*parts)] for parts in zip(*found, strict=True)))


def values(found: reference.Weince) -> dict[str, list[float]]:
    """What is kept of them."""
    return {"per_anchor": found.per_anchor, "weight": found.weight, "slope": [fit.slope for fit in found.fits]}


def key(name: str, gate: str, smoothing: float) -> str:
    return f"{name}; {gate}; smoothing {smoothing:g}"


def main() -> None:
    golden = {}
    for name, case in CASES.items():
        for gate, rule in GATES.items():
            for smoothing in SMOOTHING:
                golden[key(name, gate, smoothing)] = values(oracle(case, rule, smoothing))
    GOLDEN.write_text(json.dumps(golden, indent=0) + "\n")


if __name__ == "__main__":
    main()
