"""The work: trials taken from the store and carried out, by this process, those of a launcher, or several workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weince.lab.engine.folder import trial
from weince.lab.engine.plan import Plan, slug, words
from weince.lab.engine.store import Claim, Store
from weince.lab.engine.task import Progress, Task
from weince.lab.launch import first_does

__all__ = ["work"]

Say = Callable[[str], None]


def work(
    store: Store | None, task: Task, folder: Path, progress: Progress, say: Say = lambda text: None,
    most: int | None = None,
) -> int:  # fmt: skip
    """Take trials and carry them out until the comparison has none left.

    Several processes (torchrun, srun) carry out each trial together; the first one alone has the store.

    Args:
        store: of the comparison; None on all processes but the first.
        task: what is trained and scored.
        folder: of checkpoints and weights; workers that share it go on where a dead one was.
        progress: told of every unit.
        say: told what else happens.
        most: trials to take; all when None.

    Returns:
        Trials finished here.

    Raises:
        UserError: no such comparison, a trial that cannot be carried out, or a database that stays away.
        KeyboardInterrupt: stopped; another worker goes on at once.
    """

    def of_store(ask: Callable[[Store], Any]) -> Any:
        return first_does(lambda: ask(store))  # pyright: ignore[reportArgumentType] - the first process has one

    plan: Plan = of_store(lambda store: store.held()[0])
    finished, waits = 0, False
    while most is None or finished < most:
        claim, left = of_store(lambda store, plan=plan: store.claim(plan))
        if claim is None:
            if not left:
                break
            if not waits:
                say(f"Nothing to take: {left} run elsewhere. Waiting, in case one dies.")
            waits = True
            time.sleep(1.0)
            plan = of_store(lambda store: store.held()[0])  # it may have been extended
            continue
        waits = False
        if _one(store, task, folder, plan, claim, left, progress):
            finished += 1
        else:
            say("This worker was silent for too long; the trial was given to another.")
    return finished


def _one(
    store: Store | None, task: Task, folder: Path, plan: Plan, claim: Claim, left: int, progress: Progress
) -> bool:
    amount = task.amount(claim.settings)
    whole, done = amount * len(claim.point.seeds), 0
    # Trials left are counted as long as this one: others may be longer or shorter, and more may be wanted later.
    what = f"{plan.title(claim.point.arm)} {words(claim.settings)}".strip()

    def share() -> float:
        return done / max(whole, 1)

    def carry_out() -> tuple[dict[str, Any], float]:
        nonlocal done
        runs = {}
        for number, seed in enumerate(claim.point.seeds):

            def on_unit(unit: int, number: int = number, seed: int = seed) -> None:
                nonlocal done
                done = number * amount + unit
                doing = "scoring on test data" if claim.point.tested and unit == amount else f"seed {seed}"
                progress(f"{what}, {doing}", done, whole * left)

            runs[str(seed)] = _run(task, plan, claim, seed, folder, on_unit)
        return runs, float(np.mean([run["validation"]["scores"][plan.select_by] for run in runs.values()]))

    if store is None:
        carry_out()
        return first_does(lambda: True)
    try:
        with store.beating(claim, share):
            runs, value = carry_out()
    except KeyboardInterrupt:
        store.give_back(claim)
        raise
    except Exception as error:
        store.give_up(claim, f"{type(error).__name__}: {error}")
        raise
    return first_does(lambda: store.tell(claim, runs, value))


def _run(
    task: Task, plan: Plan, claim: Claim, seed: int, folder: Path, on_unit: Callable[[int], None]
) -> dict[str, Mapping[str, Any] | None]:
    loss = plan.arms[claim.point.arm].loss
    with trial(folder, slug(claim.point.arm, claim.settings, seed)) as place:
        validation = task.train(loss, claim.settings, seed, place, on_unit)
        on_unit(task.amount(claim.settings))
        scored = claim.point.tested and not validation["diverged"]
        test = dict(task.test(loss, claim.settings, seed, place)) if scored else None
    return {"validation": dict(validation), "test": test}
