"""The choice: settings by validation scores, from complete seeds alone, and what is still to be run for it.

Everything here follows from a plan and the records of its finished trials, at any time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from weince.lab.engine.plan import Plan, Point

__all__ = ["Record", "chosen", "complete", "usual_is_shown", "wanted"]


class Record(NamedTuple):
    """A finished run: one seed of a trial."""

    point: Point
    settings: dict[str, Any]
    seed: int
    validation: Mapping[str, Any]
    test: Mapping[str, Any] | None

    @property
    def key(self) -> str:
        """Its settings, as JSON."""
        return json.dumps(self.settings, sort_keys=True)


def chosen(plan: Plan, records: Sequence[Record]) -> dict[str, str]:
    """The settings of each arm, as JSON, with the best validation score, mean over the plan's seeds.

    Settings without all of these seeds, or that diverged from one, are left out; so is an arm that has no other. Of
    equal ones the first is taken. An arm that follows another has what was chosen there, its own settings over it.
    """
    best = {}
    for name, arm in plan.arms.items():
        if arm.follows is None:
            means = {
                settings: _mean(plan, by_seed) for settings, by_seed in complete(records, name, plan.seeds).items()
            }
            if means:
                # In the order of the grid, so that the order in which trials end decides nothing.
                order = [json.dumps(one, sort_keys=True) for one in arm.grid] if not arm.drawn else []
                order += sorted(set(means) - set(order))
                best[name] = max((one for one in order if one in means), key=lambda one: means[one])
    for name, arm in plan.arms.items():
        if arm.follows in best:
            best[name] = json.dumps({**json.loads(best[arm.follows]), **arm.example}, sort_keys=True)
    return {name: best[name] for name in plan.arms if name in best}


def wanted(plan: Plan, records: Sequence[Record]) -> list[Point]:
    """All points of a comparison, in the order they are taken: those that choose, and those by which grids are widened;
    then, scored on test data, the chosen ones and the usual one, and the arms that follow those."""
    points, finished = plan.points(), {record.point for record in records}
    if not finished >= set(points):
        return points
    points += [point for arm in plan.arms for point in _widened(plan, arm, records)]
    if not finished >= set(points):
        return points
    best = chosen(plan, records)
    leaders = [(arm, settings) for arm, settings in best.items() if plan.arms[arm].follows is None]
    if usual_is_shown(plan, best, records):
        assert plan.usual is not None
        leaders.append((plan.reference, json.dumps(plan.usual.settings, sort_keys=True)))
    followers = [(arm, settings) for arm, settings in best.items() if plan.arms[arm].follows is not None]
    return points + [Point(*one, (seed,), plan.tested) for those in (leaders, followers) for seed in plan.reported
                     for one in those]  # fmt: skip


def _widened(plan: Plan, name: str, records: Sequence[Record]) -> list[Point]:
    """Points beyond the grid of an arm, one setting after the other while the best so far lies at an end."""
    arm, found = plan.arms[name], []
    if arm.drawn or not arm.tried or arm.follows is not None:
        return found
    grid = [json.dumps(one, sort_keys=True) for one in arm.grid]
    whole, finished = complete(records, name, plan.seeds), {record.point for record in records}
    for _ in range(plan.widen):
        known = [*grid, *dict.fromkeys(point.settings for point in found)]
        means = {one: _mean(plan, whole[one]) for one in known if one in whole}
        if not finished >= set(found) or not means:
            break
        best = json.loads(max(means, key=lambda one: means[one]))
        further = arm.beyond(best, [json.loads(one) for one in known])
        if further is None:
            break
        found += [Point(name, json.dumps(further, sort_keys=True), (seed,)) for seed in plan.seeds]
    return found


def usual_is_shown(plan: Plan, best: Mapping[str, str], records: Sequence[Record]) -> bool:
    """Whether the usual setting of the reference was tried from all seeds, and is not the chosen one."""
    if plan.usual is None or plan.reference not in best:
        return False
    key = json.dumps(plan.usual.settings, sort_keys=True)
    return key != best[plan.reference] and key in complete(records, plan.reference, plan.seeds)


def complete(records: Sequence[Record], arm: str, seeds: Sequence[int]) -> dict[str, dict[int, Record]]:
    """Settings of an arm, as JSON -> seed -> run, of those that have all seeds and diverged from none."""
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        if record.point.arm == arm and record.seed in seeds and not record.validation["diverged"]:
            found.setdefault(record.key, {})[record.seed] = record
    return {settings: by_seed for settings, by_seed in found.items() if len(by_seed) == len(seeds)}


def _mean(plan: Plan, by_seed: Mapping[int, Record]) -> float:
    return float(np.mean([run.validation["scores"][plan.select_by] for run in by_seed.values()]))
