"""The store: which trials there are, who works on which, what came out.

Optuna keeps the trials, draws settings, and by the database's own clock finds silent workers and enqueues their trials
again. One lock of our own is around every decision: Optuna's claim reads first and writes then, which on SQLite gives
one trial to two. Under it a worker adds what the plan wants and no trial has, and takes one: so a plan is enqueued
once, a longer plan adds to it, and no two workers have the same.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from weince.lab.engine.choice import Record, wanted
from weince.lab.engine.database import Database, Patience, experimental, shown_url
from weince.lab.engine.plan import Plan, Point, Range
from weince.shell.errors import UserError

__all__ = ["Claim", "Store"]

ATTEMPTS = 5
"""After as many errors, a trial is given up."""
with experimental():
    try_again = RetryHeartbeatStaleTrialCallback(ATTEMPTS - 1)
UNFINISHED = (TrialState.WAITING, TrialState.RUNNING)
SAMPLERS = {
    "tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler, "qmc": optuna.samplers.QMCSampler,
}  # fmt: skip


class Claim(NamedTuple):
    """A trial that is this worker's alone."""

    point: Point
    settings: dict[str, Any]
    trial_id: int


class Store:
    """The trials of one comparison, an Optuna study for each arm; see `Database` for its arguments and errors."""

    def __init__(
        self, url: str, name: str, patience: Patience = Patience(), say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.name, self.patience = name, patience
        self.database = Database(url, name, patience, say)
        self.storage = self.database.storage

    def close(self) -> None:
        """End the connections to the database."""
        self.database.close()

    def publish(
        self,
        plan: Plan,
        origin: Callable[[Any], Mapping[str, Any]],
        differences: Callable[[Mapping[str, Any]], list[str]],
    ) -> None:
        """Make the comparison, or extend it: plan and origin are in the database for every worker.

        Args:
            plan: what to do.
            origin: makes what its trials depend on, as JSON, from what was there (None at first).
            differences: from an origin that is there, as a message names them.

        Raises:
            UserError: one of that name has another origin, arms with other losses, or is of another version.
        """

        def work() -> None:
            board = self._study("plan", plan)
            held = board.user_attrs
            if "plan" in held:
                arms = _plan(held["plan"], self.name).arms
                other = differences(held["origin"]) + [
                    f"arm {name}: another loss" for name, arm in plan.arms.items()
                    if name in arms and arms[name].loss != arm.loss
                ]  # fmt: skip
                if other:
                    raise UserError(
                        f"{self.name} was made with other settings ({'; '.join(other)}). "
                        "Give another --name, or remove its folder."
                    )
            board.set_user_attr("origin", dict(origin(held.get("origin"))))
            board.set_user_attr("plan", plan.model_dump_json())

        self.database.decide(work)

    def held(self) -> tuple[Plan, dict[str, Any]]:
        """The plan, and the origin that it was published with.

        Raises:
            UserError: there is no such comparison.
        """
        held = self.database.patiently(lambda: self._study("plan").user_attrs)
        return _plan(held["plan"], self.name), held["origin"]

    def _study(self, arm: str, plan: Plan | None = None) -> optuna.Study:
        name, sampler = f"{self.name}/{arm}", SAMPLERS[plan.sampler if plan else "tpe"]()
        try:
            if plan is None:
                return optuna.load_study(storage=self.storage, study_name=name, sampler=sampler)
        except KeyError:
            shown = shown_url(self.database.url)
            raise UserError(f"{shown} holds no comparison {self.name!r}: make it with `weince compare`.") from None
        return optuna.create_study(
            storage=self.storage, study_name=name, direction="maximize", load_if_exists=True, sampler=sampler
        )

    def claim(self, plan: Plan) -> tuple[Claim | None, int]:
        """Take a trial.

        Returns:
            The claim, None where nothing waits, and how many trials are not finished.
        """

        def work() -> tuple[Claim | None, int]:
            studies = self._studies(plan)
            with experimental():
                for study in studies.values():
                    fail_stale_trials(study)
            self._bury(studies)
            trials = _trials(studies)
            points = wanted(plan, _records(trials))
            held: dict[Point, list[FrozenTrial]] = {point: [] for point in points}
            for point, trial in trials:
                held.setdefault(point, []).append(trial)
            for point in points:
                held[point] = held[point] or [self._add(studies[point.arm], point)]
            # One that was given up is in no such state.
            left = [p for p in points if {t.state for t in held[p]} <= {*UNFINISHED, TrialState.FAIL}]
            open_ones = [(p, t) for p in left for t in held[p] if t.state in UNFINISHED]
            point, trial = next(((p, t) for p, t in open_ones if t.state == TrialState.WAITING), (None, None))
            if point is None or trial is None:
                return None, len(open_ones)
            self.database.beats.record_heartbeat(trial._trial_id)  # one that runs without is never found silent
            self.storage.set_trial_user_attr(trial._trial_id, "worker", [_machine(), os.getpid()])
            assert self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
            settings = _settings(plan, studies[point.arm], point, trial._trial_id)
            return Claim(point, settings, trial._trial_id), len(left)

        return self.database.decide(work)

    def _bury(self, studies: Mapping[str, optuna.Study]) -> None:
        """Have trials tried again at once whose process, of this machine, is gone: silence need not prove it."""
        again = self.database.beats.get_heartbeat_stale_trial_callback()
        assert again is not None
        for study in studies.values():
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                machine, process = trial.user_attrs.get("worker", (None, 0))
                if machine == _machine() is not None and not _lives(process):
                    self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                    again(study, self.storage.get_trial(trial._trial_id))

    def _add(self, study: optuna.Study, point: Point) -> FrozenTrial:
        # What samplers learn from, and what people see: what was tried, not what is reported of it.
        settings = {} if point.tested or point.settings.startswith("draw") else json.loads(point.settings)
        numbers = {k: float(v) for k, v in settings.items() if isinstance(v, (int, float))}
        template = create_trial(
            state=TrialState.WAITING,
            params=numbers,
            distributions={key: FloatDistribution(value, value) for key, value in numbers.items()},
            user_attrs={"point": point},
        )
        return self.storage.get_trial(self.storage.create_new_trial(study._study_id, template))

    @contextmanager
    def beating(self, claim: Claim, done: Callable[[], float]) -> Iterator[None]:
        """Shows the others that this worker lives, and what share of the trial it has done.

        Optuna's own thread ends at the first outage of the database; this one goes on.
        """
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(self.patience.beat):
                with suppress(Exception):  # away, or the trial was given to another: `tell` finds out
                    self.database.beats.record_heartbeat(claim.trial_id)
                    self.database.beats.set_trial_user_attr(claim.trial_id, "done", done())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def tell(self, claim: Claim, runs: Mapping[str, Any], value: float) -> bool:
        """Commit the results of a trial; False where it was taken from this worker, which was silent for too long."""

        def work() -> None:
            self.storage.set_trial_user_attr(claim.trial_id, "settings", claim.settings)
            self.storage.set_trial_user_attr(claim.trial_id, "runs", dict(runs))
            self.storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, [value])

        return self._if_ours(claim, work)

    def give_back(self, claim: Claim) -> None:
        """Put a trial back, as it was, for any worker."""
        self._if_ours(claim, lambda: self.storage.set_trial_state_values(claim.trial_id, TrialState.WAITING))

    def give_up(self, claim: Claim, why: str) -> None:
        """Fail a trial; it is tried again, by this worker or another, a few times."""

        def work() -> None:
            self.storage.set_trial_user_attr(claim.trial_id, "error", why)
            self.storage.set_trial_state_values(claim.trial_id, TrialState.FAIL)
            try_again(self._study(claim.point.arm), self.storage.get_trial(claim.trial_id))

        self._if_ours(claim, work)

    def _if_ours(self, claim: Claim, change: Callable[[], object]) -> bool:
        def work() -> bool:
            ours = self.storage.get_trial(claim.trial_id).state == TrialState.RUNNING
            if ours:
                change()
            return ours

        return self.database.decide(work)

    def records(self, plan: Plan) -> list[Record]:
        """Every finished run."""
        return self.database.patiently(lambda: _records(_trials(self._studies(plan))))

    def done(self, plan: Plan) -> tuple[float, int]:
        """Trials done, those that run by their shares; and all that are known to be wanted."""
        trials = self.database.patiently(lambda: _trials(self._studies(plan)))
        shares: dict[Point, float] = dict.fromkeys(wanted(plan, _records(trials)), 0.0)
        for point, trial in trials:
            if point in shares and trial.state in (TrialState.COMPLETE, TrialState.RUNNING):
                share = 1.0 if trial.state == TrialState.COMPLETE else trial.user_attrs.get("done", 0.0)
                shares[point] = max(share, shares[point])
        return sum(shares.values()), len(shares)

    def _studies(self, plan: Plan) -> dict[str, optuna.Study]:
        return {arm: self._study(arm, plan) for arm in plan.arms}


def _machine() -> str | None:
    """This boot of this machine, and the space its process numbers are of; None where neither can be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _plan(text: str, name: str) -> Plan:
    try:
        return Plan.model_validate_json(text)
    except ValueError as error:
        raise UserError(f"{name} was made by another version: {str(error).splitlines()[0]}") from None


def _trials(studies: Mapping[str, optuna.Study]) -> list[tuple[Point, FrozenTrial]]:
    found = [(arm, trial) for arm, study in studies.items() for trial in study.get_trials(deepcopy=False)]
    return [(_point(arm, *trial.user_attrs["point"][1:]), trial) for arm, trial in found]


def _point(arm: str, settings: str, seeds: list[int], tested: str) -> Point:
    return Point(arm, settings, tuple(seeds), tested)


def _settings(plan: Plan, study: optuna.Study, point: Point, trial_id: int) -> dict[str, Any]:
    if not point.settings.startswith("draw"):
        return json.loads(point.settings)
    trial = optuna.trial.Trial(study, trial_id)
    return {
        name: trial.suggest_float(name, values.low, values.high, log=values.log)
        if isinstance(values, Range)
        else values[0]
        for name, values in plan.arms[point.arm].tried.items()
    }


def _records(trials: list[tuple[Point, FrozenTrial]]) -> list[Record]:
    return [
        Record(point, trial.user_attrs["settings"], int(seed), run["validation"], run["test"])
        for point, trial in trials
        if trial.state == TrialState.COMPLETE
        for seed, run in trial.user_attrs["runs"].items()
    ]
