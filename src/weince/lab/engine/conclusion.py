"""The conclusion: the chosen settings compared on test data, seed by seed, and what that allows one to say.

It follows from a plan and the records of its finished trials, at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from weince.lab.engine.choice import Record, chosen, complete, usual_is_shown, wanted
from weince.lab.engine.outcomes import outcomes_of
from weince.lab.engine.plan import Plan, words
from weince.lab.intervals import Interval, p_value, paired, sampling_error, sentence
from weince.shell.errors import UserError
from weince.shell.words import count

__all__ = ["concluded"]


def concluded(
    plan: Plan, records: Sequence[Record], metrics: Mapping[str, str], untrained: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a comparison says.

    Args:
        plan: of the comparison.
        records: its finished runs.
        metrics: score -> as a reader sees it.
        untrained: scores before training, {"name", "validation", "test"}.

    Returns:
        rows (one an arm, the reference first) with mean, standard deviation and 95 % t-interval over seeds;
        differences, paired by seed, to the reference, to its usual setting, to the arm that is followed and to the
        untrained; sentences, warnings, and every run.

    Raises:
        UserError: the reference has no setting from all seeds.
    """
    shown = list(_rows(plan, records))
    if not any(row["arm"] == plan.reference and row["kind"] != "usual" for row in shown):
        raise UserError(_nothing(plan, records))
    for row in shown:
        row |= _summary(row["by_seed"])
    tuned = next(row for row in shown if row["arm"] == plan.reference and row["kind"] != "usual")
    usual = next((row for row in shown if row["kind"] == "usual"), None)
    arms = {row["arm"]: row for row in shown if row["kind"] != "usual"}
    differences = []
    for row in shown:
        followed = arms.get(plan.arms[row["arm"]].follows or "")
        others = [("reference", tuned), followed and ("followed", followed), usual and ("usual", usual)]
        seen = [row["label"]]
        for to, other in filter(None, others):
            if other["label"] not in seen and not (to == "reference" and row is usual):
                seen.append(other["label"])
                differences += _differences(row, other, to, metrics)
        if untrained:
            same = {metric: [value] * len(plan.reported) for metric, value in untrained["test"].items()}
            before = {"label": untrained["name"], "by_seed": same, "outcomes": {}}
            differences += _differences(row, before, "untrained", metrics)
    points, finished = wanted(plan, records), {record.point for record in records}
    # One that is reported was finished twice: to choose, and on test data.
    once = {(r.point.arm, r.key, r.seed): r for r in sorted(records, key=lambda r: _place(plan, r))}
    runs = list(once.values())
    return {
        "plan": plan.model_dump(mode="json", exclude_none=True),
        "metrics": dict(metrics),
        "select_by": plan.select_by,
        "seeds": list(plan.reported),
        "rows": [{key: value for key, value in row.items() if key != "outcomes"} for row in shown],
        "differences": differences,
        "untrained": dict(untrained) if untrained else None,
        "sentences": [
            _said(plan, row, d, metrics)
            for others in (("reference", "followed"), ("untrained",))
            for row in shown
            for d in differences
            if d["to"] in others and _leads(plan, row, d)
        ],
        "warnings": _warnings(plan, runs, arms, len(set(points) - finished), len(points), untrained),
        "trials": {"wanted": len(points), "finished": len(finished & set(points))},
        "runs": [_run(plan, record) for record in runs],
    }


def _rows(plan: Plan, records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    best = chosen(plan, records)
    kept = [(arm, settings, _kind(plan, arm)) for arm, settings in best.items()]
    kept.sort(key=lambda one: one[0] != plan.reference)
    if usual_is_shown(plan, best, records):
        assert plan.usual is not None
        kept.insert(0, (plan.reference, json.dumps(plan.usual.settings, sort_keys=True), "usual"))
    for arm, settings, kind in kept:
        tested = {
            record.seed: record
            for record in records
            if record.point.tested and record.point.arm == arm and record.key == settings and record.test is not None
        }
        if not set(tested) >= set(plan.reported):
            continue
        runs = [tested[seed] for seed in plan.reported]
        if any(run.validation["diverged"] for run in runs):
            continue
        own, followed = json.loads(settings), plan.arms[arm].follows
        said = {"tuned": "tuned", "usual": plan.usual.whose if plan.usual else "",
                "follows": followed and f"follows {plan.title(followed)}", "one": ""}[kind]  # fmt: skip
        label = " ".join(filter(None, [plan.title(arm), words(own), f"({said})" if said else ""]))
        choosing = complete(records, arm, plan.seeds).get(settings, {})
        yield {
            "arm": arm, "loss": plan.arms[arm].loss, "title": plan.title(arm), "settings": own, "kind": kind,
            "tried": max(plan.count(arm), len(_known(plan, arm, records))), "label": label,
            "validation": _means([run.validation["scores"] for run in choosing.values()]) if choosing else None,
            "by_seed": {m: [run.test["scores"][m] for run in runs] for m in runs[0].test["scores"]},  # pyright: ignore
            "others": [dict(run.test.get("others", {})) for run in runs],  # pyright: ignore
            "outcomes": _outcomes([run.test.get("outcomes", {}) for run in runs]),  # pyright: ignore
        }  # fmt: skip


def _outcomes(kept: Sequence[Mapping[str, str]]) -> dict[str, list[np.ndarray]]:
    """Metric -> outcomes of every test example, an array a seed; of those metrics that all seeds have."""
    return {metric: [outcomes_of(one[metric]) for one in kept] for metric in kept[0]
            if all(metric in one for one in kept)}  # fmt: skip


def _known(plan: Plan, arm: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The settings of an arm that were tried."""
    return list({r.key: r.settings for r in records if r.point.arm == arm}.values())


def _kind(plan: Plan, arm: str) -> str:
    if plan.arms[arm].follows is not None:
        return "follows"
    return "tuned" if plan.count(arm) > 1 else "one"


def _means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {metric: float(np.mean([one[metric] for one in scores])) for metric in scores[0]}


def _summary(by_seed: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return {
        "mean": {metric: float(np.mean(values)) for metric, values in by_seed.items()},
        "sd": {m: float(np.std(v, ddof=1)) if len(v) > 1 else None for m, v in by_seed.items()},
        "interval": {metric: list(paired(values)[1:]) for metric, values in by_seed.items()},
    }


def _differences(
    row: Mapping[str, Any], other: Mapping[str, Any], to: str, metrics: Mapping[str, str]
) -> list[dict[str, Any]]:
    found = []
    for metric in metrics:
        by_seed = np.subtract(row["by_seed"][metric], other["by_seed"][metric]).tolist()
        ours, theirs = (one["outcomes"].get(metric) for one in (row, other))
        error = sampling_error(ours, theirs) if ours and theirs else 0.0
        found.append({"of": row["label"], "minus": other["label"], "to": to, "arm": row["arm"], "metric": metric,
                      "by_seed": by_seed, **paired(by_seed, error)._asdict(), "p": p_value(by_seed, error),
                      "sampling_error": error or None})  # fmt: skip
    return found


def _leads(plan: Plan, row: Mapping[str, Any], difference: Mapping[str, Any]) -> bool:
    """Whether a sentence is made of a difference: to the arm that is followed, to the reference, to the untrained."""
    if difference["of"] != row["label"] or difference["metric"] != plan.select_by or row["kind"] == "usual":
        return False
    followed = plan.arms[row["arm"]].follows
    if followed not in (None, plan.reference):
        return difference["to"] == "followed"
    return difference["to"] in ("reference", "untrained")


def _said(plan: Plan, row: Mapping[str, Any], difference: Mapping[str, Any], metrics: Mapping[str, str]) -> str:
    interval = Interval(difference["mean"], difference["low"], difference["high"])
    text = sentence(row["label"], difference["minus"], metrics[plan.select_by], interval, len(plan.reported))
    return "The" + text[3:] if text.startswith("the ") else text


def _nothing(plan: Plan, records: Sequence[Record]) -> str:
    title = plan.title(plan.reference)
    those = [record for record in records if record.point.arm == plan.reference]
    if {r.point for r in records} >= set(plan.points()) and any(r.validation["diverged"] for r in those):
        return f"{title} diverged at every setting that was tried: lower `learning_rate`."
    return f"{title}, which the others are compared with, has no complete setting yet: let the comparison go on."


def _warnings(
    plan: Plan, records: Sequence[Record], arms: Mapping[str, Any], missing: int, points: int, untrained: Any
) -> list[str]:
    found = []
    for arm, row in arms.items():
        if row["kind"] == "one" and all(plan.count(other) == 1 for other in plan.arms):
            continue
        if row["kind"] == "one" and plan.arms[arm].tried:
            found.append(f"{row['title']} tried one setting: it is not tuned.")
        for name, given in plan.arms[arm].tried.items() if row["kind"] == "tuned" else ():
            if not isinstance(given, tuple) or len(given) < 2 or isinstance(given[0], str | bool):
                continue
            values = {*given, *(one[name] for one in _known(plan, arm, records))}
            if row["settings"][name] in (min(values), max(values)):
                found.append(
                    f"{row['title']} was best at {name} {row['settings'][name]:g}, an end of its grid: a wider one may "
                    "serve it better."
                )
    if all(plan.count(arm) == 1 for arm in plan.arms):
        found.append("One setting of each loss was tried: none is tuned.")
    elif not plan.confirm_seeds:
        found.append("The seeds that chose the settings report them too; `confirm_seeds` would be others.")
    lost = sorted({f"{plan.title(r.point.arm)} {words(r.settings)}" for r in records if r.validation["diverged"]})
    if lost:
        runs = count(sum(r.validation["diverged"] for r in records), "run")
        found.append(f"{runs} diverged, and these settings are out: {'; '.join(lost)}.")
    gone = [plan.title(arm) for arm in plan.arms if arm not in arms]
    if gone and not missing:
        found.append(f"Without a setting that all seeds finished: {', '.join(gone)}.")
    if missing:
        found.append(f"{missing:,} of {points:,} trials are not finished: this is not the last word.")
    select_by = plan.select_by
    if (
        untrained
        and arms
        and all(
            row["validation"] and row["validation"][select_by] < untrained["validation"][select_by]
            for row in arms.values()
        )
    ):
        found.append(
            f"On the validation data nothing is above {untrained['name']}: this compares how much each takes away."
        )
    stopped = sum(not r.validation.get("converged", True) for r in records)
    if stopped:
        found.append(f"{stopped} of {count(len(records), 'linear probe')} stopped before they had converged.")
    origins = {tuple(r.validation["made"].get(key) for key in ("commit", "device", "torch")) for r in records}
    if len(origins) > 1:
        told = "; ".join(" on ".join(map(str, origin[:2])) for origin in sorted(origins, key=str))
        found.append(f"The runs were not all made alike: {told}.")
    return found


def _place(plan: Plan, record: Record) -> tuple[Any, ...]:
    arms = list(plan.arms)
    return record.point.tested, arms.index(record.point.arm), record.key, record.seed


def _run(plan: Plan, record: Record) -> dict[str, Any]:
    validation = record.validation
    return {
        "arm": record.point.arm, "loss": plan.arms[record.point.arm].loss, "settings": record.settings,
        "seed": record.seed, "reported": bool(record.point.tested), "diverged": validation["diverged"],
        "validation": dict(validation["scores"]), "seconds": validation["seconds"], "made": dict(validation["made"]),
        "test": dict(record.test["scores"]) if record.test else None,
        **{key: (record.test or {}).get(key) or validation.get(key) for key in ("geometry", "curves", "histograms")
           if key in (record.test or {}) or key in validation},
    }  # fmt: skip
