"""Can the gain be known beforehand? Measures of models trained with tuned InfoNCE, against the gain of each form.

    python experiments/predict_gain.py SHARED_DATA [NAME ...] [--output runs] [--seed 1] [--embeddings FOLDER]

Of each table (OUTPUT/NAME/result.json or results/NAME.json) one run is measured: tuned InfoNCE from one reported seed,
its held-out embeddings as OUTPUT/NAME/runs keeps them.

    the diagnosis (`weince diagnose`)   whether the verdict is "cap", xi, endpoint, and how xi moves at a fourth of the
                                        exceedances
    batches of the recipe's size        R and z of `weince.evidence`, mean weights of the "endpoint" gate and the
                                        paper's, share of positives that a negative beats; contests as the task's
                                        setup makes them, means over 20 batches
    geometry of the run                 as the result has it
    training examples

predict_gain.csv: a row a table, with the gains and their 95 % intervals. predict_gain_ranks.csv: a row a measure and
form, Spearman's rank correlation over tables with its permutation p-value, Holm's correction for all of them, and how
often a threshold on the measure tells the sign of the gain: chosen on all tables, and of each table on the others.

Tables of one data set are not independent, so p-values are too small. A task of images keeps no embeddings: it is left
out unless FOLDER/NAME.npz holds an array "views", rows 2 i and 2 i + 1 two views of image i (a queue is taken as a
batch of two views).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gain_ranks import ranks_of, told
from leaderboard import TABLES
from over_training import REFERENCE, rows_of, table

from weince import CAUTIOUS, ENDPOINT, PAPER, ContestLoss, setups
from weince.contest import Contest
from weince.diagnosis.embeddings import embeddings_of
from weince.diagnosis.examine import examine
from weince.diagnosis.labels import Known
from weince.diagnosis.question import Question
from weince.evidence import end_of
from weince.lab.data.aligned import load_aligned
from weince.lab.data.labelled import load_labelled
from weince.lab.engine.plan import slug
from weince.lab.evaluation.geometry import GEOMETRY
from weince.lab.pages.board import board_of
from weince.lab.tasks import recipe_class
from weince.shell.files import write_csv

OUT = Path(__file__).with_name("predict_gain.csv")
RANKS = Path(__file__).with_name("predict_gain_ranks.csv")
FORMS = ("weince", "endpoint", "cautious", "weibit", "weibit-line", "one-slope")
MEASURES = ("cap", "xi", "endpoint", "drift", "place", "statistic", "weight_endpoint", "weight_paper",
            "beaten", *GEOMETRY,
            "training_examples")  # fmt: skip
BATCHES = 20
Arrays = Mapping[str, np.ndarray]


class HeldOut(NamedTuple):
    """Held-out embeddings, as the diagnosis takes them and as a batch of the task.

    Attributes:
        queries, corpus: rows; one array twice where there is one tower.
        alike: numbers a row, equal where a query and a row of the corpus are no negatives; the same on both sides.
        examples: how many.
        contests: examples of a batch -> its contests.
    """

    queries: np.ndarray
    corpus: np.ndarray
    alike: list[np.ndarray]
    examples: int
    contests: Callable[[np.ndarray], list[Contest]]


def held_out(arrays: Arrays, recipe: Any) -> HeldOut:
    """What a trial kept: left and right of pairs, views of images, or labelled queries."""
    if "left" in arrays:
        left, right = arrays["left"], arrays["right"]
        ids = load_aligned(recipe).test.ids()

        def pairs(rows: np.ndarray) -> list[Contest]:
            same = {} if ids is None else {"ids": torch.from_numpy(ids[rows])}
            contest = setups.two_towers(torch.from_numpy(left[rows]), torch.from_numpy(right[rows]), **same)
            return [contest, setups.swapped(contest)]

        return HeldOut(left, right, [] if ids is None else list(ids.T), len(left), pairs)
    if "views" in arrays:
        views = arrays["views"]
        image = np.arange(len(views)) // 2
        one, other = torch.from_numpy(views[0::2]), torch.from_numpy(views[1::2])
        return HeldOut(views, views, [image], len(one), lambda rows: [setups.two_views(one[rows], other[rows])])
    query, labels = arrays["query"], load_labelled(recipe).test.labels
    texts, codes = torch.from_numpy(query), torch.from_numpy(labels)
    return HeldOut(query, query, [labels], len(query), lambda rows: [setups.labelled(texts[rows], codes[rows])])


def diagnosed(held: HeldOut, name: str) -> dict[str, Any]:
    """Verdict, xi, endpoint and drift."""
    two = held.corpus is not held.queries
    queries = embeddings_of(held.queries, name)
    corpus = embeddings_of(held.corpus, f"{name}-corpus") if two else queries
    question = Question(Path(name), corpus=Path(f"{name}-corpus") if two else None, paired=two)
    labels, ids = [*(Known(one, one, one, one) for one in held.alike), None, None][:2]
    found = examine(question, queries, corpus, labels, ids)
    lowest = found.tails[0]
    deeper = next((tail for tail in found.tails if tail.n <= lowest.n / 4), lowest)
    best = lowest.best
    return {
        "verdict": found.verdict.kind, "cap": int(found.verdict.kind == "cap"),
        "xi": best.shape, "xi_low": best.shape_interval.low, "xi_high": best.shape_interval.high,
        "endpoint": best.endpoint, "endpoint_low": best.endpoint_interval.low,
        "endpoint_high": best.endpoint_interval.high, "drift": deeper.best.shape - best.shape,
    }  # fmt: skip


@torch.no_grad()
def gated(held: HeldOut, batch: int, batches: int = BATCHES) -> dict[str, float]:
    """R, z, the mean weights of both gates and the share of beaten positives: means over batches and directions."""
    rng, found = np.random.default_rng(0), []
    batch = min(batch, held.examples)
    for _ in range(batches):
        for contest in held.contests(rng.choice(held.examples, batch, replace=False)):
            endpoint, paper, cautious = (ContestLoss(0.1, gate)(contest) for gate in (ENDPOINT, PAPER, CAUTIOUS))
            assert endpoint.tail is not None
            assert cautious.tail is not None
            end = end_of(endpoint.tail)
            weights = [float(one.weight[one.counted].mean()) for one in (endpoint, paper)]
            beaten = float(cautious.tail.beaten.nanmean())
            found.append((float(end.place), float(end.statistic), *weights, beaten))
    names = ("place", "statistic", "weight_endpoint", "weight_paper", "beaten")
    return {"batch": batch, **dict(zip(names, map(float, np.mean(found, axis=0)), strict=True))}


def gains(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The gain of each form over tuned InfoNCE and its interval, in points of the score that chose."""
    cells = {row.loss: cell for row in board_of([result]).tables[0].rows for cell in row.found.values()}
    found: dict[str, float | None] = {}
    for form in FORMS:
        difference = cells[form].difference if form in cells else None
        bounds = (None, None, None) if difference is None else difference
        found |= {f"gain_{form}{end}": None if bound is None else 100 * bound
                  for end, bound in zip(("", "_low", "_high"), bounds, strict=True)}  # fmt: skip
    return found


def measured_run(result: Mapping[str, Any], seed: int | None = None) -> Mapping[str, Any]:
    """The reported run of tuned InfoNCE, from a seed; the first one when not given."""
    chosen = rows_of(result)[REFERENCE]
    seed = result["seeds"][0] if seed is None else seed
    return next(run for run in result["runs"] if run["reported"] and run["seed"] == seed
                and (run["arm"], run["settings"]) == (chosen["arm"], chosen["settings"]))  # fmt: skip


def row_of(result: Mapping[str, Any], arrays: Arrays, data: Path | None, seed: int | None = None) -> dict[str, Any]:
    """The row of a table.

    Args:
        result: of it.
        arrays: held-out embeddings of its `measured_run`.
        data: place of its data, where they say which rows are alike.
        seed: as there.
    """
    run = measured_run(result, seed)
    recipe = recipe_class(result["task"])(**{**result["settings"], "data_dir": data})
    held = held_out(arrays, recipe)
    examples = re.search(r"([\d,]+) training,", result["facts"][0])
    return {
        "table": result["name"], "task": result["task"], "seed": run["seed"],
        "temperature": run["settings"].get("temperature"),
        "training_examples": int(examples[1].replace(",", "")) if examples else None,
        **diagnosed(held, result["name"]),
        **gated(held, result["settings"]["batch_size"]),
        **{name: (run.get("geometry") or {}).get(name) for name in GEOMETRY},
        **gains(result),
    }  # fmt: skip


def rows_for(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each table that has embeddings; what is left out is said."""
    for name in asked.names or TABLES:
        try:
            result = table(name, asked.output)
        except FileNotFoundError:
            print(f"{name}: not finished, left out")
            continue
        run = measured_run(result, asked.seed)
        places = [asked.output / name / "runs" / slug(run["arm"], run["settings"], run["seed"]) / "embeddings.npz"]
        if asked.embeddings is not None:
            places.insert(0, asked.embeddings / f"{name}.npz")
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            print(f"{name}: no embeddings were kept, left out")
            continue
        data = asked.data / TABLES[name].data if name in TABLES else None
        with np.load(place, allow_pickle=False) as arrays:
            yield row_of(result, dict(arrays), data, asked.seed)


def written(rows: Sequence[Mapping[str, Any]]) -> None:
    """Both files, and the sentence."""
    ranks = ranks_of(rows, MEASURES, {form: f"gain_{form}" for form in FORMS})
    for path, those in ((OUT, rows), (RANKS, ranks)):
        if those:
            write_csv(path, [{key: f"{v:.5g}" if isinstance(v, float) else v for key, v in one.items()}
                             for one in those])  # fmt: skip
    sets = {TABLES[row["table"]].data if row["table"] in TABLES else row["table"] for row in rows}
    print(told(ranks, len(rows), len(sets)))


def main() -> None:
    """Measure every table, and look for what predicts the gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help="all of leaderboard.py when not given")
    parser.add_argument("--output", type=Path, default=Path("runs"))
    parser.add_argument("--seed", type=int, help="a reported one; the first when not given")
    parser.add_argument("--embeddings", type=Path, help="folder of NAME.npz, for tables that kept none")
    written(list(rows_for(parser.parse_args())))


if __name__ == "__main__":
    main()
