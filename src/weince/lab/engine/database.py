"""The database of trials: Optuna's, on SQLite or PostgreSQL, waited for when it is away, one decision at a time."""

from __future__ import annotations

import hashlib
import logging
import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import optuna
import sqlalchemy
import sqlalchemy.exc as sqlalchemy_errors
from filelock import FileLock
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

from weince.shell.errors import UserError

__all__ = ["DEATHS", "Database", "Patience", "experimental", "shown_url"]

DEATHS = 20
"""Silent workers, after which a trial is given up: machines may be taken away often, but one that kills its worker must
not go on for ever."""
GONE = (sqlalchemy_errors.OperationalError, sqlalchemy_errors.InterfaceError, optuna.exceptions.StorageInternalError)
Answer = TypeVar("Answer")


@contextmanager
def experimental() -> Iterator[None]:
    """Optuna calls its heartbeat experimental, at every use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


class Patience(NamedTuple):
    """Seconds: between signs of life, until a silent worker counts as dead, and for a database that is away."""

    beat: float = 5.0
    dead: float = 60.0
    away: float = 600.0


def shown_url(url: str) -> str:
    """The address of a database, without a password."""
    return url if url.startswith("sqlite") else sqlalchemy.make_url(url).render_as_string(hide_password=True)


class Database:
    """Optuna's storage, and the lock around decisions.

    Args:
        url: sqlite:///FILE, whatever characters the path has, or postgresql://...
        name: of the comparison, which the lock is for.
        patience: of this process.
        say: told when the database is away and when it is back.

    Raises:
        UserError: another kind of database, or one that cannot be reached.
    """

    def __init__(self, url: str, name: str, patience: Patience, say: Callable[[str], None]) -> None:
        self.url, self.name, self.patience, self.say = url, name, patience, say
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("optuna").setLevel(logging.ERROR)
        self._file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        if self._file is not None and url != "sqlite:///":
            self._file.parent.mkdir(parents=True, exist_ok=True)
        elif url.startswith("postgresql://"):
            self._server = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
        else:
            raise UserError(
                f"Option `--storage`: should be sqlite:///FILE or postgresql://USER@HOST/NAME. Found {url!r}."
            )
        self.beats = self.patiently(self._open)
        self.storage = optuna.storages.get_storage(self.beats)  # with the cache that every study shares

    def _open(self) -> RDBStorage:
        options: dict[str, Any] = {"pool_pre_ping": True}
        if (file := self._file) is not None:
            # Opened by path: an address could not hold every name of a folder.
            options = {
                "creator": lambda: sqlite3.connect(file, timeout=60, check_same_thread=False),
                "poolclass": sqlalchemy.pool.NullPool,
            }
        url = "sqlite:///" if file else self._server.render_as_string(hide_password=False)
        with self._alone():  # two processes that make the tables at once disturb each other
            try:
                with experimental():
                    return RDBStorage(
                        url.replace("{", "{{").replace("}", "}}"),
                        options,
                        heartbeat_interval=max(1, math.ceil(self.patience.beat)),
                        grace_period=max(1, math.ceil(self.patience.dead)),
                        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(DEATHS - 1),
                    )
            except sqlalchemy_errors.DatabaseError as error:
                if isinstance(error, GONE):
                    raise
                raise UserError(f"{shown_url(self.url)} is not a database of trials: {error.orig}.") from None

    def close(self) -> None:
        """End the connections."""
        self.beats.remove_session()
        self.beats.engine.dispose()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """The lock of the comparison. It ends with the process that holds it."""
        if self._file is not None:
            with FileLock(self._file.with_name(f".{self._file.name}.lock")):
                yield
            return
        key = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:7], "big")
        engine = sqlalchemy.create_engine(self._server, poolclass=sqlalchemy.pool.NullPool)
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            yield

    def decide(self, work: Callable[[], Answer]) -> Answer:
        """Carry out a decision under the lock, when the database is there."""

        def locked() -> Answer:
            with self._alone():
                return work()

        return self.patiently(locked)

    def patiently(self, work: Callable[[], Answer]) -> Answer:
        """Do something with the database, when it is there.

        Raises:
            UserError: it stays away.
        """
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
