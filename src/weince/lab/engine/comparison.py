"""A comparison from its plan to its result: published in the store, worked on, concluded from the store alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weince.lab.engine.conclusion import concluded
from weince.lab.engine.database import Patience
from weince.lab.engine.plan import Plan
from weince.lab.engine.store import Store
from weince.lab.engine.task import Task

__all__ = ["DATABASE", "default_storage", "opened", "publish", "result_of"]

DATABASE = "trials.db"


def default_storage(folder: Path) -> str:
    """The database beside the trials."""
    return f"sqlite:///{(folder / DATABASE).absolute()}"


@contextmanager
def opened(
    folder: Path, name: str, storage: str | None = None, patience: Patience = Patience(),
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Store]:  # fmt: skip
    """The store of a comparison, closed at the end."""
    store = Store(storage or default_storage(folder), name, patience, say)
    try:
        yield store
    finally:
        store.close()


def publish(store: Store, task: Task, plan: Plan, name: str, settings: Mapping[str, Any],
            differences: Callable[[Mapping[str, Any]], list[str]]) -> None:  # fmt: skip
    """Put a comparison into its store, with all that a report of it needs.

    Args:
        store: of it.
        task: what is trained and scored.
        plan: what to do.
        name: of the task.
        settings: what the trials depend on, as JSON, and a worker elsewhere makes the task from.
        differences: from other such settings, as a message names them.

    Raises:
        UserError: one of that name has other settings or other data.
    """
    data = task.fingerprint()

    def other(held: Mapping[str, Any]) -> list[str]:
        found = differences(held["settings"]) if held["task"] == name else [f"task: {held['task']} there, {name} now"]
        return found or ([] if held["data"] == data else ["the data themselves"])

    def origin(held: Mapping[str, Any] | None) -> dict[str, Any]:
        if held is not None:
            untrained = held["untrained"]
        else:
            untrained = {"name": task.untrained, **task.untrained_scores()} if task.untrained else None
        return {
            "task": name, "settings": dict(settings), "data": data, "metrics": dict(task.metrics),
            "facts": list(task.facts), "untrained": untrained,
        }  # fmt: skip

    store.publish(plan, origin, other)


def result_of(store: Store) -> dict[str, Any]:
    """What a comparison says so far; see `concluded`.

    Raises:
        UserError: no such comparison, or nothing to say yet.
    """
    plan, origin = store.held()
    found = concluded(plan, store.records(plan), origin["metrics"], origin["untrained"])
    made = next(run["made"] for run in reversed(found["runs"]) if run["reported"])
    return {"name": store.name, "task": origin["task"], "facts": origin["facts"], "settings": origin["settings"],
            "made": made, **found}  # fmt: skip
