"""The study: workers that carry out its trials, the settings each arm is given, and what the database says of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from weince.lab.data.sets import load
from weince.lab.engine.plan import Plan, Point, applied
from weince.lab.engine.result import METRICS
from weince.lab.engine.trials import STOPPED, Claim, Trials
from weince.lab.intervals import Interval, paired, sentence
from weince.lab.tasks.runs import finish, tested
from weince.lab.training.contrastive import device_of
from weince.shell.errors import UserError
from weince.shell.provenance import provenance

__all__ = ["chosen", "concluded", "wanted", "work"]

Record = Mapping[str, Any]
Say = Callable[[str], None]


def wanted(plan: Plan, records: list[dict[str, Any]]) -> list[Point]:
    """All points of a study, in the order they are taken: those that choose, the chosen ones from `confirm_seeds`, then
    the arms that follow those."""
    points = plan.points()
    if not {r["point"] for r in records} >= set(points):
        return points
    best = chosen(plan, records)
    followers = [arm for arm in best if plan.arms[arm].follows is not None]
    leaders = [arm for arm in best if arm not in followers]
    points += [Point(arm, best[arm], (seed,)) for seed in plan.confirm_seeds for arm in leaders]
    return points + [Point(arm, best[arm], (seed,)) for arm in followers for seed in _reported(plan)]


def chosen(plan: Plan, records: list[dict[str, Any]]) -> dict[str, str]:
    """The settings of each arm, as JSON, with the best validation score, mean over the plan's seeds.

    Settings without all of these seeds, or that diverged from one, are left out; so is an arm that has no other. An arm
    that follows another has what was chosen there, with its own settings over it.
    """
    best = {}
    for arm in plan.arms:
        scores = {
            settings: float(np.mean([run["validation"]["scores"][plan.recipe.select_by] for run in by_seed.values()]))
            for settings, by_seed in _complete(plan, records, arm, plan.recipe.seeds).items()
        }
        if scores and plan.arms[arm].follows is None:
            best[arm] = max(scores, key=lambda settings: scores[settings])
    for arm, own in plan.arms.items():
        if own.follows in best:
            best[arm] = json.dumps({**json.loads(best[own.follows]), **own.grid[0]}, sort_keys=True)
    return {arm: best[arm] for arm in plan.arms if arm in best}


def _reported(plan: Plan) -> tuple[int, ...]:
    """Seeds from which the chosen settings are reported."""
    return plan.confirm_seeds or plan.recipe.seeds


def work(
    trials: Trials,
    folder: Path,
    changes: Mapping[str, Any],
    say: Say,
    most: int | None = None,
) -> int:
    """Take trials and carry them out until the study has none left.

    Args:
        trials: of the study.
        folder: of checkpoints and weights; workers that share it go on where a dead one was.
        changes: settings of this machine: `data_dir`, `device`.
        say: told of every trial.
        most: trials to take; all when None.

    Returns:
        Trials finished here.

    Raises:
        UserError: no such study, other images than the study's, a trial that cannot be carried out, or a database
            that stays away.
        KeyboardInterrupt: stopped; another worker goes on at once.
    """
    plan, fingerprint = trials.plan()
    recipe = plan.recipe.model_copy(update=dict(changes))
    splits = load(recipe)
    if splits.fingerprint != fingerprint:
        raise UserError(f"The images in {recipe.data_dir} are not those of study {trials.name}.")
    done, waits = 0, False
    while most is None or done < most:
        claim, left = trials.claim(plan, wanted)
        if claim is None:
            if not left:
                break
            if not waits:
                say(f"Nothing to take: {left} trials run elsewhere. Waiting, in case one dies.")
            waits = True
            time.sleep(min(2.0, trials.patience.beat))
            plan, _ = trials.plan()  # it may have been extended
            continue
        waits = False
        say(f"{claim.point.arm} {_words(claim.settings)}, seed {', '.join(map(str, claim.point.seeds))}; {left} left.")
        try:
            with trials.beating(claim):
                runs = {str(seed): _run(plan, claim, seed, recipe, splits, folder) for seed in claim.point.seeds}
        except KeyboardInterrupt:
            trials.give_up(claim, STOPPED)
            raise
        except (UserError, OSError, RuntimeError) as error:
            trials.give_up(claim, str(error))
            raise
        score = np.mean([run["validation"]["scores"][plan.recipe.select_by] for run in runs.values()])
        if not trials.tell(claim, runs, float(score)):
            say("This worker was silent for too long; the trial was given to another.")
        done += 1
    return done


def _run(plan: Plan, claim: Claim, seed: int, recipe: Any, splits: Any, folder: Path) -> dict[str, Any]:
    arm = claim.point.arm
    own, run = applied(recipe, plan.arms[arm].loss, claim.settings, seed)
    digest = hashlib.sha256(json.dumps(claim.settings, sort_keys=True).encode()).hexdigest()[:8]
    place = folder / "runs" / f"{arm}-{digest}-s{seed}"
    place.mkdir(parents=True, exist_ok=True)
    try:
        # A worker that was given up for dead, and is not, still holds its folder.
        with FileLock(place / ".lock", timeout=10):
            validation = finish(own, run, splits, place, lambda epoch: None)
            test = None if validation["diverged"] else tested(own, run, splits, place)
    except Timeout:
        raise UserError(f"{place} is held by another process, which this study counts as dead. Stop it.") from None
    return {"validation": validation, "test": test}


def concluded(plan: Plan, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What a study says, from its database alone: settings chosen on validation, reported on test.

    Args:
        plan: of the study.
        records: its finished runs.

    Returns:
        Rows (one an arm) with mean and standard deviation over seeds, differences to the reference paired by seed with
        t-intervals, sentences, warnings, every tried setting, and how much of the plan is done.

    Raises:
        UserError: no arm has a setting from all seeds yet.
    """
    best = chosen(plan, records)
    seeds = _reported(plan)
    runs = {
        arm: found[settings]
        for arm, settings in best.items()
        if settings in (found := _complete(plan, records, arm, seeds))
    }
    if plan.reference not in runs:
        raise UserError("The study has no complete setting of its reference yet: let `weince study work` go on.")
    rows, differences = [], []
    for arm, by_seed in runs.items():
        values = {m: [by_seed[seed]["test"]["scores"][m] for seed in seeds] for m in METRICS}
        rows.append(
            {
                "arm": arm,
                "settings": json.loads(best[arm]),
                "tuned": plan.count(arm) > 1,
                "tried": plan.count(arm),
                "follows": plan.arms[arm].follows,
                "label": f"{arm} ({_words(json.loads(best[arm]))})",
                "mean": {m: float(np.mean(v)) for m, v in values.items()},
                "sd": {m: float(np.std(v, ddof=1)) if len(v) > 1 else None for m, v in values.items()},
                "by_seed": values,
            }
        )
        for other in {plan.reference: 0, plan.arms[arm].follows: 0}:
            if other is None or other == arm or other not in runs:
                continue
            for metric in METRICS:
                pairs = [
                    run["test"]["scores"][metric] - runs[other][seed]["test"]["scores"][metric]
                    for seed, run in sorted(by_seed.items())
                ]
                differences.append(
                    {"arm": arm, "minus": other, "metric": metric, "by_seed": pairs, **paired(pairs)._asdict()}
                )
    points = wanted(plan, records)
    finished = {r["point"] for r in records}
    select_by = plan.recipe.select_by
    return {
        "plan": {**plan.model_dump(mode="json", exclude_none=True), "recipe": plan.recipe.told()},
        "made": provenance(device_of(plan.recipe)),
        "reference": plan.reference,
        "seeds": list(seeds),
        "rows": rows,
        "differences": differences,
        "sentences": [
            sentence(_subject(plan, d["arm"]), d["minus"], METRICS[select_by],
                     Interval(d["mean"], d["low"], d["high"]), len(seeds))
            for d in differences
            if d["metric"] == select_by and d["minus"] == (plan.arms[d["arm"]].follows or plan.reference)
        ],
        "warnings": _warnings(plan, best, records),
        "trials": {"wanted": len(points), "finished": len(finished & set(points))},
        "tried": [
            {"arm": r["arm"], "settings": r["settings"], "seed": r["seed"],
             "validation": r["validation"]["scores"], "seconds": r["validation"]["train_seconds"],
             "diverged": r["validation"]["diverged"], "made": r["validation"]["made"]}
            for r in records
        ],
    }  # fmt: skip


def _complete(plan: Plan, records: list[dict[str, Any]], arm: str, seeds: tuple[int, ...]) -> dict[str, dict[int, Any]]:
    """Settings of an arm, as JSON -> seed -> run, of those that have all seeds and diverged from none."""
    found: dict[str, dict[int, Any]] = {}
    for record in records:
        if record["arm"] == arm and record["seed"] in seeds and not record["validation"]["diverged"]:
            found.setdefault(json.dumps(record["settings"], sort_keys=True), {})[record["seed"]] = record
    return {settings: by_seed for settings, by_seed in found.items() if len(by_seed) == len(seeds)}


def _warnings(plan: Plan, best: Mapping[str, str], records: list[dict[str, Any]]) -> list[str]:
    found = []
    for arm, settings in best.items():
        for name, values in plan.arms[arm].tried.items():
            if not isinstance(values, tuple) or len(values) < 3 or isinstance(values[0], str):
                continue
            if json.loads(settings)[name] in (min(values), max(values)):
                found.append(f"{arm} was best at {name} {json.loads(settings)[name]:g}, an end of its grid.")
        if plan.count(arm) == 1 and plan.arms[arm].follows is None:
            found.append(f"{arm} tried one setting: it is not tuned.")
    if not plan.confirm_seeds:
        found.append("The seeds that chose the settings report them too; `confirm_seeds` would be others.")
    finished, points = {r["point"] for r in records}, wanted(plan, records)
    missing = len(set(points) - finished)
    if missing:
        found.append(f"{missing} of {len(points)} trials are not finished: this is not the last word.")
    lost = sum(r["validation"]["diverged"] for r in records)
    if lost:
        found.append(f"{lost} runs diverged; their settings were not eligible.")
    return found


def _subject(plan: Plan, arm: str) -> str:
    return f"{arm} at its best" if plan.arms[arm].follows is None else arm


def _words(settings: Mapping[str, Any]) -> str:
    short = {key.partition(".")[2] or key: value for key, value in settings.items()}
    said = (f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in short.items())
    return ", ".join(said) or "as it is"
