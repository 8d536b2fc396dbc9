"""What `weince diagnose` says of laws that are known: how often each verdict, over draws of each law.

    python experiments/verdicts.py [--draws 20] [--only sphere]

Laws of rows go through the whole diagnosis; laws of similarities, of independent pairs, from the fits on. Rows go to
verdicts.csv; `tests/extremes/test_verdicts.py` compares the table of docs/diagnose.md with them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from weince.diagnosis.embeddings import embeddings_of
from weince.diagnosis.examine import examine
from weince.diagnosis.labels import Known
from weince.diagnosis.question import Question
from weince.extremes.domain import stability
from weince.extremes.verdict import Kind, Verdict, judge

OUT = Path(__file__).with_name("verdicts.csv")

KINDS = get_args(Kind)

Generator = np.random.Generator
Array = NDArray[np.float64]


class Law(NamedTuple):
    """Of rows, whose function gives them and their ids or None; or of similarities, whose function is the quantile."""

    truth: str
    rows: Callable[[Generator], tuple[Array, NDArray[np.int64] | None]] | None = None
    quantile: Callable[[Array], Array] | None = None
    """Similarity that is exceeded with these chances."""
    top: int = 0
    of: float = 0.0


def largest(law: Law, generator: Generator) -> Array:
    """The top + 1 largest of `of` independent similarities, descending, without the others."""
    assert law.quantile is not None
    sums = np.cumsum(generator.exponential(size=law.top + 1))
    return law.quantile(sums / (sums[-1] + generator.gamma(law.of - law.top)))


def verdict_of(law: Law, seed: int) -> Verdict:
    """Of one draw."""
    generator = np.random.default_rng(seed)
    if law.rows is None:
        s = largest(law, generator)
        return judge(stability(s, None, law.top), s[0])
    rows, ids = law.rows(generator)
    known = None if ids is None else Known(ids, ids, ids, ids)
    found = embeddings_of(rows.astype(np.float32), "law")
    return examine(Question(Path("law"), seed=seed), found, found, None, known).verdict


def sphere(count: int, width: int) -> Law:
    """Uniform points."""
    return Law("ends at 1", rows=lambda g: (g.standard_normal((count, width)), None))


def cone(count: int, width: int, sharp: float) -> Law:
    """Normal rows around one direction, `sharp` standard deviations of all the others together away."""
    away = np.sqrt(width) * sharp * np.eye(1, width)
    return Law("ends at 1", rows=lambda g: (away + g.standard_normal((count, width)), None))


def inside(count: int, width: int, end: float) -> Law:
    """Points of a sphere, each with a direction of its own beside."""

    def rows(g: Generator) -> tuple[Array, None]:
        w = g.standard_normal((count, width))
        w /= np.linalg.norm(w, axis=1, keepdims=True)
        return np.hstack([np.sqrt(end) * w, np.sqrt(1 - end) * np.eye(count)]), None

    return Law(f"ends at {end:g}", rows=rows)


def copies(originals: int, each: int, width: int, named: bool) -> Law:
    """Near-copies of points of a sphere."""

    def rows(g: Generator) -> tuple[Array, NDArray[np.int64] | None]:
        ids = np.repeat(np.arange(originals), each)
        x = g.standard_normal((originals, width))[ids] + 0.05 * g.standard_normal((originals * each, width))
        return x, ids if named else None

    return Law("ends at 1", rows=rows)


def codes(count: int, width: int) -> Law:
    """Corners of a cube: similarities are multiples of 2 / width."""
    return Law("lattice", rows=lambda g: (g.choice([-1.0, 1.0], size=(count, width)), None))


def scores(truth: str, quantile: Callable[[Array], Array], top: int, of: float) -> Law:
    """The top + 1 largest of so many independent similarities."""
    return Law(truth, quantile=quantile, top=top, of=of)


def normal(mean: float, spread: float, top: int, of: float) -> Law:
    """Normal similarities."""
    return scores("no end", lambda p: mean + spread * norm.isf(p), top, of)


def power(end: float, slope: float, reach: float, top: int, of: float) -> Law:
    """P(s > end - d) = (d / reach)^slope."""
    return scores(f"ends at {end:g}", lambda p: end - reach * p ** (1 / slope), top, of)


def two_ends(p: Array) -> Array:
    """Half ends at 0.8 and half at 1, both with slope 3 and the same reach below 0.8: by bisection."""
    low, high = np.full_like(p, -1.0), np.ones_like(p)
    for _ in range(60):
        middle = (low + high) / 2
        chance = (np.clip(0.8 - middle, 0, 1.8) ** 3 / 1.8**3 + np.clip(1 - middle, 0, 2) ** 3 / 8) / 2
        low, high = np.where(chance > p, middle, low), np.where(chance > p, high, middle)
    return (low + high) / 2


LAWS: dict[str, Law] = {
    "sphere, D = 4, 1,500 rows": sphere(1500, 4),
    "sphere, D = 8, 1,500 rows": sphere(1500, 8),
    "sphere, D = 16, 3,000 rows": sphere(3000, 16),
    "sphere, D = 32, 2,000 rows": sphere(2000, 32),
    "sphere, D = 64, 2,000 rows": sphere(2000, 64),
    "sphere, D = 128, 2,000 rows": sphere(2000, 128),
    "cone, D = 64, 250 rows": cone(250, 64, 1.0),
    "cone, D = 64, 400 rows": cone(400, 64, 1.0),
    "cone, D = 64, 1,000 rows": cone(1000, 64, 1.0),
    "power law, slope 2, 2,000 of 200,000": power(1, 2, 2, 2000, 2e5),
    "power law, slope 5, 20,000 of 4,000,000": power(1, 5, 2, 20_000, 4e6),
    "power law, slope 20, 20,000 of 4,000,000": power(1, 20, 2, 20_000, 4e6),
    "power law that ends at 0.8, slope 2, 2,000 of 200,000": power(0.8, 2, 1.8, 2000, 2e5),
    "power law that ends at 0.9, slope 3, 2,000 of 200,000": power(0.9, 3, 1.9, 2000, 2e5),
    "power law that ends at 0.95, slope 5, 20,000 of 4,000,000": power(0.95, 5, 1.95, 20_000, 4e6),
    "sphere beside own directions, D = 12, 210 rows": inside(210, 12, 0.8),
    "sphere beside own directions, D = 6, 1,000 rows": inside(1000, 6, 0.5),
    "half ends at 0.8, half at 1, 20,000 of 2,000,000": scores("ends at 1", two_ends, 20_000, 2e6),
    "exponential, 2,000 of 200,000": scores("no end", lambda p: -0.05 * np.log(p), 2000, 2e5),
    "exponential, 20,000 of 4,000,000": scores("no end", lambda p: -0.05 * np.log(p), 20_000, 4e6),
    "normal, 0 ± 0.15, 2,000 of 2,000,000": normal(0, 0.15, 2000, 2e6),
    "normal, 0.7 ± 0.04, 20,000 of 40,000,000": normal(0.7, 0.04, 20_000, 4e7),
    "normal, 0.3 ± 0.1, 5,000 of 500,000": normal(0.3, 0.1, 5000, 5e5),
    "normal, 0.5 ± 0.07, 5,000 of 500,000": normal(0.5, 0.07, 5000, 5e5),
    "heavier, xi = 0.2, 2,000 of 200,000": scores("no end", lambda p: 0.02 * (p**-0.2 - 1) / 0.2, 2000, 2e5),
    "near-copies, D = 16, 300 x 10 rows": copies(300, 10, 16, False),
    "near-copies with ids, D = 16, 300 x 10 rows": copies(300, 10, 16, True),
    "codes of ±1, D = 64, 1,000 rows": codes(1000, 64),
}


def markdown(lines: list[list[str]]) -> str:
    """The table of docs/diagnose.md, in draws; nothing where there were none."""
    head, *laws = lines
    table = [[head[0], head[1], *(f"`{kind}`" for kind in head[3:])], ["---"] * (len(head) - 1)]
    table += [[law[0], law[1], *("" if count == "0" else count for count in law[3:])] for law in laws]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def main() -> None:
    """Judge every draw of every law."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--only", default="", help="laws whose name holds this; nothing is written")
    asked = parser.parse_args()
    lines: list[list[Any]] = [["law", "truth", "draws", *KINDS]]
    for name, law in LAWS.items():
        if asked.only in name:
            kinds = [verdict_of(law, seed).kind for seed in range(asked.draws)]
            lines.append([name, law.truth, asked.draws, *map(kinds.count, KINDS)])
            print(*lines[-1], flush=True)
    if not asked.only:
        with OUT.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)


if __name__ == "__main__":
    main()
