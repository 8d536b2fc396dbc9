"""The trials of a study in their database, where any number of workers take them: SQLite, a journal file, PostgreSQL.

One lock, one rule. Under the lock a worker looks at all trials, takes those of dead workers back, adds what the plan
wants and no trial has, and claims one. So a plan is enqueued once, a longer plan adds to it, a lost trial comes back,
and no two workers have the same. (Optuna's own claim is not atomic on SQLite, and its heartbeat leaves out journals and
workers killed before their first beat.) A worker is dead when its beat stands still, by the watcher's clock: clocks of
machines are not compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import optuna
import sqlalchemy
import sqlalchemy.exc as sqlalchemy_errors
from filelock import FileLock
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from weince.lab.engine.plan import Plan, Point, Range
from weince.shell.errors import UserError

__all__ = ["STOPPED", "Claim", "Patience", "Trials"]

ATTEMPTS = 5
"""After as many errors, a point is given up."""
DEATHS = 20
"""Or dead workers: machines may be taken away often, but a trial that kills its worker must not go on for ever."""
DIED, STOPPED = "its worker died", "stopped"
GONE = (sqlalchemy_errors.OperationalError, sqlalchemy_errors.InterfaceError, optuna.exceptions.StorageInternalError)
Answer = TypeVar("Answer")
Wanted = Callable[[Plan, list[dict[str, Any]]], list[Point]]


class Patience(NamedTuple):
    """Seconds: between beats, until a silent worker counts as dead, and for a database that is away."""

    beat: float = 10.0
    dead: float = 60.0
    away: float = 600.0


class Claim(NamedTuple):
    """A trial that is this worker's alone."""

    point: Point
    settings: dict[str, Any]
    trial_id: int


class Trials:
    """The trials of one study.

    Args:
        url: sqlite:///FILE, journal:///FILE or postgresql://...
        name: of the study.
        patience: of this process.
        say: told when the database is away and when it is back.

    Raises:
        UserError: another kind of database, or one that cannot be reached.
    """

    def __init__(
        self, url: str, name: str, patience: Patience = Patience(), say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.url, self.name, self.patience, self.say = url, name, patience, say
        self._beats: dict[int, tuple[Any, float]] = {}
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        kind, _, rest = url.partition(":///")
        self._file: Path | None = None
        self._database: RDBStorage | None = None
        if kind in ("sqlite", "journal") and rest:
            self._file = Path(rest)
            self._file.parent.mkdir(parents=True, exist_ok=True)
        elif url.startswith("postgresql://"):
            self.url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        else:
            raise UserError(
                "Option `--storage`: should be sqlite:///FILE, journal:///FILE or postgresql://USER@HOST/NAME. "
                f"Found {url!r}."
            )
        self.storage = self._patiently(self._open)

    def _open(self) -> BaseStorage:
        with self._alone():  # two processes that make the tables at once disturb each other
            if self.url.startswith("journal"):
                return JournalStorage(JournalFileBackend(str(self._file)))
            options = {"connect_args": {"timeout": 60}} if self._file else {"pool_pre_ping": True}
            try:
                self._database = RDBStorage(self.url, engine_kwargs=options)
                return optuna.storages.get_storage(self._database)  # with the cache that every study shares
            except sqlalchemy_errors.DatabaseError as error:
                if isinstance(error, GONE):
                    raise
                raise UserError(f"{self.url} is not a database of studies: {error.orig}.") from None

    def close(self) -> None:
        """End the connections to the database."""
        if self._database is not None:
            self._database.remove_session()
            self._database.engine.dispose()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The study's lock. It ends with the process that holds it."""
        if self._file is not None:
            with FileLock(self._file.with_name(f".{self._file.name}.lock")):
                yield
            return
        key = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:7], "big")
        engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            yield

    def _patiently(self, work: Callable[[], Answer]) -> Answer:
        until, told = time.monotonic() + self.patience.away, False
        while True:
            try:
                answer = work()
            except GONE as error:
                if time.monotonic() > until:
                    reason = str(error.__cause__ or error).splitlines()[0]
                    raise UserError(
                        f"The database {self.url} could not be reached for {self.patience.away:g} s ({reason}). "
                        "What was finished is in it or in the folder; the same command goes on."
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

    def publish(self, plan: Plan, images: str) -> None:
        """Make the study, or extend it: the plan is in the database for every worker.

        Raises:
            UserError: a study of that name has another recipe, other images, or is of another version.
        """

        def work() -> None:
            with self._alone():
                board = self._study("plan", make=True)
                held = board.user_attrs
                if "plan" in held:
                    before = _plan(held["plan"], self.name)
                    other = plan.recipe.differences(before.recipe)
                    other += [
                        f"arm {arm}: another loss"
                        for arm in plan.arms
                        if arm in before.arms and before.arms[arm].loss != plan.arms[arm].loss
                    ]
                    other += [] if held["images"] == images else ["the images themselves"]
                    if other:
                        raise UserError(
                            f"Study {self.name} has other settings ({'; '.join(other)}). Give another --name."
                        )
                board.set_user_attr("images", images)
                board.set_user_attr("plan", plan.model_dump_json())

        self._patiently(work)

    def plan(self) -> tuple[Plan, str]:
        """The plan, and the fingerprint of its images.

        Raises:
            UserError: there is no such study.
        """
        held = self._patiently(lambda: self._study("plan").user_attrs)
        if "plan" not in held:
            raise UserError(f"{self.url} holds no study {self.name!r}: make it with `weince study PLAN.toml`.")
        return _plan(held["plan"], self.name), held["images"]

    def _study(self, arm: str, plan: Plan | None = None, *, make: bool = False) -> optuna.Study:
        name = f"{self.name}/{arm}"
        kinds = {"random": optuna.samplers.RandomSampler, "qmc": optuna.samplers.QMCSampler}
        sampler = kinds[plan.sampler]() if plan is not None and plan.sampler in kinds else optuna.samplers.TPESampler()
        if make or plan is not None:
            return optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize", load_if_exists=True, sampler=sampler
            )
        try:
            return optuna.load_study(storage=self.storage, study_name=name, sampler=sampler)
        except KeyError:
            raise UserError(
                f"{self.url} holds no study {self.name!r}: make it with `weince study PLAN.toml`."
            ) from None

    # ---------------------------------------------------------------------------------------------- the trials

    def claim(
        self, plan: Plan, wanted: Callable[[Plan, list[dict[str, Any]]], list[Point]]
    ) -> tuple[Claim | None, int]:
        """Take a trial.

        Args:
            plan: of the study.
            wanted: plan, finished runs -> all points the study wants, in order.

        Returns:
            The claim, None where nothing waits, and how many trials are not finished.
        """

        def work() -> tuple[Claim | None, int]:
            with self._alone():
                trials = {arm: self._study(arm, plan).get_trials(deepcopy=False) for arm in plan.arms}
                self._bury(trials)
                finished = _records(trials)
                points = wanted(plan, finished)
                waiting = self._fill(plan, points, trials)
                order = {point: place for place, point in enumerate(points)}
                open_points = [p for p in points if p not in {_point(a, t) for a, ts in trials.items() for t in ts
                                                               if t.state == TrialState.COMPLETE}]  # fmt: skip
                waiting = [w for w in waiting if w[0] in order]
                if not waiting:
                    running = sum(
                        t.state == TrialState.RUNNING and _point(a, t) in order for a, ts in trials.items() for t in ts
                    )
                    return None, running
                point, trial_id = min(waiting, key=lambda pair: order[pair[0]])
                self.storage.set_trial_user_attr(trial_id, "beat", 0)
                assert self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
                return Claim(point, self._settings(plan, point, trial_id), trial_id), len(open_points)

        return self._patiently(work)

    def _bury(self, trials: Mapping[str, list[FrozenTrial]]) -> None:
        """Fail the trials whose workers are silent; `_fill` adds them again."""
        now = time.monotonic()
        for found in trials.values():
            for place, trial in enumerate(found):
                if trial.state != TrialState.RUNNING:
                    continue
                beat = trial.user_attrs.get("beat")
                seen, since = self._beats.setdefault(trial._trial_id, (beat, now))
                if seen != beat:
                    self._beats[trial._trial_id] = (beat, now)
                elif now - since > self.patience.dead:
                    self._fail(trial._trial_id, DIED)
                    found[place] = self.storage.get_trial(trial._trial_id)

    def _fill(
        self, plan: Plan, points: list[Point], trials: Mapping[str, list[FrozenTrial]]
    ) -> list[tuple[Point, int]]:
        """Add what is wanted and no trial has; returns what waits."""
        alive: set[Point] = set()
        attempts: dict[Point, float] = {}
        waiting = []
        for arm, found in trials.items():
            for trial in found:
                point = _point(arm, trial)
                if trial.state == TrialState.FAIL:
                    cost = {DIED: ATTEMPTS / DEATHS, STOPPED: 0.0}.get(trial.user_attrs.get("error", ""), 1.0)
                    attempts[point] = attempts.get(point, 0.0) + cost
                    continue
                alive.add(point)
                if trial.state == TrialState.WAITING:
                    waiting.append((point, trial._trial_id))
        for point in points:
            if point in alive or attempts.get(point, 0) >= ATTEMPTS:
                continue
            settings = {} if point.settings.startswith("draw") else json.loads(point.settings)
            before = [t for t in trials[point.arm] if _point(point.arm, t) == point and t.params]
            numbers = {k: float(v) for k, v in settings.items() if isinstance(v, (int, float))}
            template = optuna.trial.create_trial(
                state=TrialState.WAITING,
                params=numbers,
                distributions={key: FloatDistribution(value, value) for key, value in numbers.items()},
                user_attrs={"point": {"settings": point.settings, "seeds": list(point.seeds)}},
                # A drawn setting is tried again as it was drawn, from its checkpoint.
                system_attrs={"fixed_params": before[-1].params} if before and not numbers else {},
            )
            study = self._study(point.arm, plan)
            waiting.append((point, self.storage.create_new_trial(study._study_id, template)))
        return waiting

    def _settings(self, plan: Plan, point: Point, trial_id: int) -> dict[str, Any]:
        if not point.settings.startswith("draw"):
            return json.loads(point.settings)
        trial = optuna.trial.Trial(self._study(point.arm, plan), trial_id)
        settings = {}
        for name, values in plan.arms[point.arm].tried.items():
            settings[name] = (
                trial.suggest_float(name, values.low, values.high, log=values.log)
                if isinstance(values, Range)
                else values[0]
            )
        trial.set_user_attr("settings", settings)
        return settings

    @contextmanager
    def beating(self, claim: Claim) -> Iterator[None]:
        """Shows the others that this worker lives. An outage of the database does not end it."""
        stopped = threading.Event()

        def beat() -> None:
            number = 0
            while not stopped.wait(self.patience.beat):
                number += 1
                try:
                    self.storage.set_trial_user_attr(claim.trial_id, "beat", number)
                except Exception:
                    continue  # away, or the trial was given to another: `tell` finds out

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()

    def tell(self, claim: Claim, runs: dict[str, Any], value: float) -> bool:
        """Commit the results of a trial; False where it was taken from this worker, which was silent for too long."""

        def work() -> bool:
            with self._alone():
                if self.storage.get_trial(claim.trial_id).state != TrialState.RUNNING:
                    return False
                self.storage.set_trial_user_attr(claim.trial_id, "settings", claim.settings)
                self.storage.set_trial_user_attr(claim.trial_id, "runs", runs)
                self.storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, [value])
                return True

        return self._patiently(work)

    def give_up(self, claim: Claim, why: str) -> None:
        """Fail a trial; another attempt is made, by this worker or another."""

        def work() -> None:
            with self._alone():
                self._fail(claim.trial_id, why)

        self._patiently(work)

    def _fail(self, trial_id: int, why: str) -> None:
        if self.storage.get_trial(trial_id).state == TrialState.RUNNING:
            self.storage.set_trial_user_attr(trial_id, "error", why)
            self.storage.set_trial_state_values(trial_id, TrialState.FAIL)

    def records(self, plan: Plan) -> list[dict[str, Any]]:
        """Every finished run: arm, settings, seed, scores."""
        return self._patiently(
            lambda: _records({arm: self._study(arm, plan).get_trials(deepcopy=False) for arm in plan.arms})
        )


def _plan(text: str, name: str) -> Plan:
    try:
        return Plan.model_validate_json(text)
    except (ValueError, UserError) as error:
        raise UserError(f"Study {name} was made by another version: {str(error).splitlines()[0]}") from None


def _point(arm: str, trial: FrozenTrial) -> Point:
    point = trial.user_attrs["point"]
    return Point(arm, point["settings"], tuple(point["seeds"]))


def _records(trials: Mapping[str, list[FrozenTrial]]) -> list[dict[str, Any]]:
    return [
        {"arm": arm, "settings": trial.user_attrs["settings"], "point": _point(arm, trial), "seed": int(seed), **run}
        for arm, found in trials.items()
        for trial in found
        if trial.state == TrialState.COMPLETE
        for seed, run in trial.user_attrs["runs"].items()
    ]
