"""The store: which trials there are, who works on which, what came out; an Optuna database, SQLite or PostgreSQL.

Optuna keeps the trials, draws settings, and tells by the database's own clock which workers are silent. One lock of our
own is around every decision: Optuna's claim reads first and writes then, which on SQLite gives one trial to two. Under
the lock a worker has the trials of silent workers put back, adds what the plan wants and no trial has, and takes one.
So a plan is enqueued once, a longer plan adds to it, a lost trial comes back, and no two workers have the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import optuna
import sqlalchemy
import sqlalchemy.exc as sqlalchemy_errors
from filelock import FileLock
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from weince.lab.engine.choice import Record, wanted
from weince.lab.engine.plan import Plan, Point, Range
from weince.shell.errors import UserError

__all__ = ["Claim", "Patience", "Store", "shown_url"]

ATTEMPTS = 5
"""After as many errors, a point is given up."""
DEATHS = 20
"""Or silent workers: machines may be taken away often, but a trial that kills its worker must not go on for ever."""
GONE = (sqlalchemy_errors.OperationalError, sqlalchemy_errors.InterfaceError, optuna.exceptions.StorageInternalError)
SAMPLERS = {
    "tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler, "qmc": optuna.samplers.QMCSampler,
}  # fmt: skip
Answer = TypeVar("Answer")


class Patience(NamedTuple):
    """Seconds: between signs of life, until a silent worker counts as dead, and for a database that is away."""

    beat: float = 5.0
    dead: float = 60.0
    away: float = 600.0


class Claim(NamedTuple):
    """A trial that is this worker's alone."""

    point: Point
    settings: dict[str, Any]
    trial_id: int


def shown_url(url: str) -> str:
    """The address of a database, without a password."""
    return url if url.startswith("sqlite") else sqlalchemy.make_url(url).render_as_string(hide_password=True)


class Store:
    """The trials of one comparison.

    Args:
        url: sqlite:///FILE, whatever characters the path has, or postgresql://...
        name: of the comparison.
        patience: of this process.
        say: told when the database is away and when it is back.

    Raises:
        UserError: another kind of database, or one that cannot be reached.
    """

    def __init__(
        self, url: str, name: str, patience: Patience = Patience(), say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.url, self.name, self.patience, self.say = url, name, patience, say
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._file: Path | None = None
        if url.startswith("sqlite:///") and url != "sqlite:///":
            self._file = Path(url.removeprefix("sqlite:///"))
            self._file.parent.mkdir(parents=True, exist_ok=True)
        elif not url.startswith("postgresql://"):
            raise UserError(
                f"Option `--storage`: should be sqlite:///FILE or postgresql://USER@HOST/NAME. Found {url!r}."
            )
        else:
            try:
                self._server = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
            except sqlalchemy_errors.ArgumentError as error:
                raise UserError(f"Option `--storage`: {url!r} is no address of a database: {error}.") from None
        self.database: RDBStorage | None = None
        self.storage = self._patiently(self._open)

    def _open(self) -> BaseStorage:
        if self._file is not None:
            file = self._file
            # Opened by path: an address could not hold every name of a folder.
            options: dict[str, Any] = {
                "creator": lambda: sqlite3.connect(file, timeout=60, check_same_thread=False),
                "poolclass": sqlalchemy.pool.NullPool,
            }
            address = "sqlite:///trials"
        else:
            options = {"pool_pre_ping": True}
            address = self._server.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        with self._alone():  # two processes that make the tables at once disturb each other
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    self.database = RDBStorage(
                        address, options, heartbeat_interval=max(1, math.ceil(self.patience.beat)),
                        grace_period=max(1, math.ceil(self.patience.dead)),
                    )  # fmt: skip
                return optuna.storages.get_storage(self.database)  # with the cache that every study shares
            except sqlalchemy_errors.DatabaseError as error:
                if isinstance(error, GONE):
                    raise
                raise UserError(f"{shown_url(self.url)} is not a database of trials: {error.orig}.") from None

    def close(self) -> None:
        """End the connections to the database."""
        if self.database is not None:
            self.database.remove_session()
            self.database.engine.dispose()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The store's lock. It ends with the process that holds it."""
        if self._file is not None:
            with FileLock(self._file.with_name(f".{self._file.name}.lock")):
                yield
            return
        key = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:7], "big")
        engine = sqlalchemy.create_engine(self._server, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            yield

    def _decided(self, work: Callable[[], Answer]) -> Answer:
        """Carry out a decision under the lock, when the database is there."""

        def locked() -> Answer:
            with self._alone():
                return work()

        return self._patiently(locked)

    def _patiently(self, work: Callable[[], Answer]) -> Answer:
        until, told = time.monotonic() + self.patience.away, False
        while True:
            try:
                answer = work()
            except GONE as error:
                if time.monotonic() > until:
                    reason = str(error.__cause__ or error).splitlines()[0]
                    raise UserError(
                        f"The database {shown_url(self.url)} could not be reached for {self.patience.away:g} s "
                        f"({reason}). What was finished is in it or in the folder; the same command goes on."
                    ) from None
                if not told:
                    self.say("The database cannot be reached: waiting for it.")
                    told = True
                time.sleep(min(1.0, self.patience.away / 10))
            else:
                if told:
                    self.say("The database is back.")
                return answer

    # ------------------------------------------------------------------------------------------------ the plan

    def publish(
        self, plan: Plan, origin: Callable[[], Mapping[str, Any]], differences: Callable[[Mapping[str, Any]], list[str]]
    ) -> None:
        """Make the comparison, or extend it: plan and origin are in the database for every worker.

        Args:
            plan: what to do.
            origin: makes what its trials depend on, as JSON; asked once.
            differences: from an origin that is there, as a message names them.

        Raises:
            UserError: one of that name has another origin, arms with other losses, or is of another version.
        """

        def work() -> None:
            board = self._study("plan", make=True)
            held = board.user_attrs
            if "plan" in held:
                before = _plan(held["plan"], self.name)
                other = differences(held["origin"])
                other += [
                    f"arm {arm}: another loss"
                    for arm in plan.arms
                    if arm in before.arms and before.arms[arm].loss != plan.arms[arm].loss
                ]
                if other:
                    raise UserError(
                        f"{self.name} was made with other settings ({'; '.join(other)}). "
                        "Give another --name, or remove its folder."
                    )
            else:
                board.set_user_attr("origin", dict(origin()))
            board.set_user_attr("plan", plan.model_dump_json())

        self._decided(work)

    def held(self) -> tuple[Plan, dict[str, Any]]:
        """The plan, and the origin that it was published with.

        Raises:
            UserError: there is no such comparison.
        """
        held = self._patiently(lambda: self._study("plan").user_attrs)
        if "plan" not in held:
            raise UserError(self._none())
        return _plan(held["plan"], self.name), held["origin"]

    def _none(self) -> str:
        return f"{shown_url(self.url)} holds no comparison {self.name!r}: make it with `weince compare`."

    def _study(self, arm: str, plan: Plan | None = None, *, make: bool = False) -> optuna.Study:
        name, sampler = f"{self.name}/{arm}", SAMPLERS[plan.sampler if plan else "tpe"]()
        if make or plan is not None:
            return optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize", load_if_exists=True, sampler=sampler
            )
        try:
            return optuna.load_study(storage=self.storage, study_name=name, sampler=sampler)
        except KeyError:
            raise UserError(self._none()) from None

    # ---------------------------------------------------------------------------------------------- the trials

    def claim(self, plan: Plan) -> tuple[Claim | None, int]:
        """Take a trial.

        Returns:
            The claim, None where nothing waits, and how many trials are not finished.
        """
        return self._decided(lambda: self._claim(plan))

    def _claim(self, plan: Plan) -> tuple[Claim | None, int]:
        studies = {arm: self._study(arm, plan) for arm in plan.arms}
        for study in studies.values():
            self._take_back(study)
        trials = {arm: study.get_trials(deepcopy=False) for arm, study in studies.items()}
        points = wanted(plan, _records(trials))
        place = {point: number for number, point in enumerate(points)}
        held: dict[Point, list[FrozenTrial]] = {point: [] for point in points}
        for arm, found in trials.items():
            for trial in found:
                held.setdefault(_point(arm, trial), []).append(trial)
        for point in points:
            if not held[point]:
                held[point].append(self._add(studies[point.arm], point))
        left = [point for point in points if not any(t.state.is_finished() and t.state != TrialState.FAIL
                                                     for t in held[point])]  # fmt: skip
        waiting = [(place[p], t._trial_id) for p in left for t in held[p] if t.state == TrialState.WAITING]
        if not waiting:
            return None, sum(any(t.state == TrialState.RUNNING for t in held[point]) for point in left)
        number, trial_id = min(waiting)
        point = points[number]
        self._storage.record_heartbeat(trial_id)  # before it runs: one without is never found silent
        assert self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        return Claim(point, self._settings(plan, studies[point.arm], point, trial_id), trial_id), len(left)

    @property
    def _storage(self) -> RDBStorage:
        assert self.database is not None
        return self.database

    def _take_back(self, study: optuna.Study) -> None:
        """Fail the trials of silent workers, and have them tried again."""
        for trial_id in self._storage._get_stale_trial_ids(study._study_id):
            self._again(study, trial_id, "its worker died", DEATHS)

    def _again(self, study: optuna.Study, trial_id: int, why: str, most: int) -> None:
        """Fail a running trial, and enqueue it as it was, unless it has failed so as often as `most`."""
        trial = self.storage.get_trial(trial_id)
        if trial.state != TrialState.RUNNING:
            return
        self.storage.set_trial_user_attr(trial_id, "error", why)
        self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
        kind = f"failed {most}"
        if (times := trial.user_attrs.get(kind, 0) + 1) < most:
            attrs = {key: value for key, value in trial.user_attrs.items() if key != "error"} | {kind: times}
            study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, params=trial.params,
                                                      distributions=trial.distributions, user_attrs=attrs))  # fmt: skip

    def _add(self, study: optuna.Study, point: Point) -> FrozenTrial:
        # What samplers learn from, and what people see: what was tried, not what is reported of it.
        settings = {} if point.tested or point.settings.startswith("draw") else json.loads(point.settings)
        numbers = {k: float(v) for k, v in settings.items() if isinstance(v, (int, float))}
        template = optuna.trial.create_trial(
            state=TrialState.WAITING,
            params=numbers,
            distributions={key: FloatDistribution(value, value) for key, value in numbers.items()},
            user_attrs={"point": point._replace(arm="")},
        )
        return self.storage.get_trial(self.storage.create_new_trial(study._study_id, template))

    def _settings(self, plan: Plan, study: optuna.Study, point: Point, trial_id: int) -> dict[str, Any]:
        if not point.settings.startswith("draw"):
            return json.loads(point.settings)
        trial = optuna.trial.Trial(study, trial_id)
        return {
            name: trial.suggest_float(name, values.low, values.high, log=values.log)
            if isinstance(values, Range)
            else values[0]
            for name, values in plan.arms[point.arm].tried.items()
        }

    @contextmanager
    def beating(self, claim: Claim, done: Callable[[], float]) -> Iterator[None]:
        """Shows the others that this worker lives, and how much of the trial it has done, a share.

        Optuna's own thread ends at the first outage of the database; this one goes on.
        """
        stopped = threading.Event()

        def beat() -> None:
            while not stopped.wait(self.patience.beat):
                with contextlib.suppress(Exception):  # away, or the trial was given to another: `tell` finds out
                    self._storage.record_heartbeat(claim.trial_id)
                    self._storage.set_trial_user_attr(claim.trial_id, "done", done())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def tell(self, claim: Claim, runs: Mapping[str, Any], value: float) -> bool:
        """Commit the results of a trial; False where it was taken from this worker, which was silent for too long."""

        def work() -> bool:
            if self.storage.get_trial(claim.trial_id).state != TrialState.RUNNING:
                return False
            self.storage.set_trial_user_attr(claim.trial_id, "settings", claim.settings)
            self.storage.set_trial_user_attr(claim.trial_id, "runs", dict(runs))
            self.storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, [value])
            return True

        return self._decided(work)

    def give_back(self, claim: Claim) -> None:
        """Put a trial back, as it was, for any worker."""

        def work() -> None:
            if self.storage.get_trial(claim.trial_id).state == TrialState.RUNNING:
                self.storage.set_trial_state_values(claim.trial_id, TrialState.WAITING)

        self._decided(work)

    def give_up(self, claim: Claim, why: str) -> None:
        """Fail a trial; another attempt is made, by this worker or another, a few times."""
        self._decided(lambda: self._again(self._study(claim.point.arm), claim.trial_id, why, ATTEMPTS))

    def records(self, plan: Plan) -> list[Record]:
        """Every finished run."""
        return self._patiently(lambda: _records(self._trials(plan)))

    def done(self, plan: Plan) -> tuple[float, int]:
        """Trials done, those that run by their shares; and all that are known to be wanted."""

        def work() -> tuple[float, int]:
            trials = self._trials(plan)
            points = set(wanted(plan, _records(trials)))
            shares: dict[Point, float] = {}
            for arm, found in trials.items():
                for trial in found:
                    if (point := _point(arm, trial)) in points:
                        share = float(trial.state == TrialState.COMPLETE)
                        if trial.state == TrialState.RUNNING:
                            share = trial.user_attrs.get("done", 0.0)
                        shares[point] = max(share, shares.get(point, 0.0))
            return sum(shares.values()), len(points)

        return self._patiently(work)

    def _trials(self, plan: Plan) -> dict[str, list[FrozenTrial]]:
        return {arm: self._study(arm, plan).get_trials(deepcopy=False) for arm in plan.arms}


def _plan(text: str, name: str) -> Plan:
    try:
        return Plan.model_validate_json(text)
    except ValueError as error:
        raise UserError(f"{name} was made by another version: {str(error).splitlines()[0]}") from None


def _point(arm: str, trial: FrozenTrial) -> Point:
    _, settings, seeds, tested = trial.user_attrs["point"]
    return Point(arm, settings, tuple(seeds), tested)


def _records(trials: Mapping[str, list[FrozenTrial]]) -> list[Record]:
    return [
        Record(_point(arm, trial), trial.user_attrs["settings"], int(seed), run["validation"], run["test"])
        for arm, found in trials.items()
        for trial in found
        if trial.state == TrialState.COMPLETE
        for seed, run in trial.user_attrs["runs"].items()
    ]
