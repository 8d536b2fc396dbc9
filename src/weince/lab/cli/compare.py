"""`weince compare`: losses tuned alike and compared; `work` is one more worker, `report` the report anew."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from weince.lab.cli.settings import comparison, started_from
from weince.lab.engine.recipe import Comparison
from weince.shell.errors import UserError
from weince.shell.terminal import answered, bar, first
from weince.shell.words import count

if TYPE_CHECKING:
    from weince.lab.engine.store import Store

__all__ = ["asked", "run"]

HELP = """Losses tuned alike on one task: chosen on validation data, reported on test data, paired by seed.

RECIPE is a name that `weince recipes` lists, or a TOML file; without one, handwritten digits in about two minutes.
`weince compare work FOLDER` is one more worker, here or elsewhere, `weince compare report FOLDER` the report anew.
The same command goes on where it was stopped."""
STORAGE = (
    "Database of the trials: sqlite:///FILE (default: FOLDER/trials.db), or postgresql://USER@HOST/NAME for many "
    "machines."
)


@dataclass(frozen=True)
class Work:
    """One more worker on a comparison, on this or another machine, until no trial is left."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Of the comparison: OUTPUT/NAME."""
    storage: Annotated[str | None, tyro.conf.arg(help=STORAGE)] = None
    name: str | None = None
    """Of the comparison; that of its folder when not given."""
    data_dir: Path | None = None
    """Where this machine has the images."""
    stsb_dir: Path | None = None
    """Where this machine has the STS Benchmark."""
    device: str | None = None
    """auto, cpu or cuda; as the recipe says when not given."""
    threads: int | None = None
    """Cores of this worker."""
    most: int | None = None
    """Trials to take; all when not given."""
    beat: float = 5.0
    """Seconds between signs of life."""
    dead: float = 60.0
    """Seconds of silence after which a worker counts as dead, and its trial is taken by another."""
    away: float = 600.0
    """Seconds to wait for a database that cannot be reached."""


@dataclass(frozen=True)
class Report:
    """The report of a comparison anew, from its database alone, finished or not."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Of the comparison: OUTPUT/NAME; the report is written there."""
    storage: Annotated[str | None, tyro.conf.arg(help=STORAGE)] = None
    name: str | None = None
    """Of the comparison; that of its folder when not given."""


def run(words: Sequence[str]) -> int:
    """`weince compare`; returns the exit status."""
    commands = {"work": _work, "report": _report}
    command = commands.get(words[0] if words else "")
    if command is not None:
        return answered(lambda: command(list(words[1:])), "The same command goes on; so does any other worker.")
    return answered(lambda: _compare(list(words)), "The same command goes on where it was.")


def asked(words: list[str]) -> Any:
    """recipe, workers and storage of a command line.

    Raises:
        UserError: settings are unknown, malformed or contradictory.
        SystemExit: an option cannot be parsed, or --help.
    """
    start, rest = started_from(list(words))
    kind = comparison(start)
    whole: Any = make_dataclass(
        "Compare",
        [
            ("recipe", Annotated[kind, tyro.conf.arg(name="")], field(default=kind(**start))),
            ("workers", Annotated[int, tyro.conf.arg(
                help="Processes on this machine, each with a GPU of its own or a share of the cores; "
                "0 only makes the comparison, for workers elsewhere.")], field(default=1)),
            ("storage", Annotated[str | None, tyro.conf.arg(help=STORAGE)], field(default=None)),
        ],
    )  # fmt: skip
    found = tyro.cli(whole, args=rest, prog="weince compare [RECIPE]", description=HELP)
    if found.workers < 0:
        raise UserError(f"Option `--workers`: should be an integer >= 0. Found {found.workers}.")
    return found


def _compare(words: list[str]) -> None:
    console = Console(quiet=not first())
    wanted = asked(words)
    recipe, workers, storage = wanted.recipe, wanted.workers, wanted.storage
    recipe.check_places()
    with bar(console, "Starting", "") as progress:
        # The task's libraries take seconds to import: after --help and the refusals.
        from weince.lab.engine.comparison import default_storage, opened, publish
        from weince.lab.engine.folder import made_known
        from weince.lab.engine.work import work
        from weince.lab.launch import first_does, launched, leave
        from weince.lab.tasks import task_of

        task = task_of(recipe)
        if launched() is not None and workers != 1:
            raise UserError(
                f"Option `--workers`: under torchrun or srun all processes train together. Found {workers}."
            )
        made_known(recipe, task.fingerprint())
        storage = storage or default_storage(recipe.folder)
        with ExitStack() as until_done:
            held: list[Store] = []  # on the first process alone

            def begin() -> None:
                held.append(until_done.enter_context(opened(recipe.folder, recipe.name, storage)))
                settings = recipe.model_dump(mode="json")
                publish(held[0], task, recipe.plan(), recipe.task, settings, recipe.differences)

            first_does(begin)
            if workers == 1:
                work(held[0] if held else None, task, recipe.folder, _in(task.unit, progress))
    elsewhere = ["--storage", storage, "--name", recipe.name]
    if workers == 0:
        said = shlex.join(["weince", "compare", "work", str(recipe.folder), *elsewhere])
        console.print(f"Workers, on any machine: {said}", soft_wrap=True, markup=False, highlight=False)
        return
    if workers > 1:
        _workers(workers, [str(recipe.folder), *elsewhere], recipe, storage, console)
    first_does(lambda: _conclude(recipe.folder, recipe.name, storage, console))
    leave()


def _in(unit: str, progress: Any) -> Any:
    return lambda what, done, total: progress(f"{what}, {unit}", done, total)


def _workers(number: int, words: list[str], recipe: Comparison, storage: str, console: Console) -> None:
    """Worker processes on this machine, each with a GPU of its own or a share of the cores; waits for all."""
    import torch

    from weince.lab.engine.comparison import opened

    device = getattr(recipe, "device", "auto")
    gpus = torch.cuda.device_count() if device != "cpu" else 0
    threads = max(1, (os.cpu_count() or 1) // number)
    command = [sys.executable, "-m", "weince", "compare", "work", *words, "--device", device, "--threads", str(threads)]
    for place in ("data_dir", "stsb_dir"):
        if (given := getattr(recipe, place, None)) is not None:
            command += [f"--{place.replace('_', '-')}", str(given)]
    running = []
    for one in range(number):
        own = {"CUDA_VISIBLE_DEVICES": str(one % gpus)} if gpus else {}
        running.append(
            subprocess.Popen([*command, "--beat", "2"], env={**os.environ, **own}, stdout=subprocess.DEVNULL)
        )
    try:
        with opened(recipe.folder, recipe.name, storage) as store, bar(console, "Starting", "trials") as progress:
            while any(worker.poll() is None for worker in running):
                done, whole = store.done(store.held()[0])
                progress(count(number, "worker"), round(done, 1), whole)
                time.sleep(1)
    except KeyboardInterrupt:
        for worker in running:
            worker.wait()
        raise
    failed = sum(worker.returncode != 0 for worker in running)
    if failed:
        raise UserError(
            f"{count(failed, 'worker')} stopped; what was said stands above. What was finished is in the database."
        )


def _work(words: list[str]) -> None:
    wanted = tyro.cli(Work, args=words, prog="weince compare work")
    _check_made(wanted.folder, wanted.storage)
    console = Console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    from weince.lab.engine.comparison import opened
    from weince.lab.engine.database import Patience
    from weince.lab.engine.folder import made_known
    from weince.lab.engine.work import work
    from weince.lab.tasks import recipe_class, task_of

    if wanted.threads is not None:
        import torch

        torch.set_num_threads(wanted.threads)
    patience = Patience(wanted.beat, wanted.dead, wanted.away)
    with opened(wanted.folder, wanted.name or wanted.folder.resolve().name, wanted.storage, patience, say) as store:
        _, origin = store.held()
        changes = {key: getattr(wanted, key) for key in ("data_dir", "stsb_dir", "device") if getattr(wanted, key)}
        where = {"output": wanted.folder.resolve().parent, "name": wanted.folder.resolve().name}
        kind = recipe_class(origin["task"])
        recipe = kind(**{**origin["settings"], **{k: v for k, v in changes.items() if k in kind.model_fields}, **where})
        recipe.check_places()
        task = task_of(recipe)
        if task.fingerprint() != origin["data"]:
            raise UserError(f"The data here are not those of comparison {store.name}.")
        made_known(recipe, task.fingerprint())
        with bar(console, "Starting", "") as progress:
            finished = work(store, task, wanted.folder, _in(task.unit, progress), say, wanted.most)
    say(f"{count(finished, 'trial')} finished by this worker.")


def _report(words: list[str]) -> None:
    wanted = tyro.cli(Report, args=words, prog="weince compare report")
    _check_made(wanted.folder, wanted.storage)
    _conclude(wanted.folder, wanted.name or wanted.folder.resolve().name, wanted.storage, Console())


def _check_made(folder: Path, storage: str | None) -> None:
    if storage is None and not (folder / "trials.db").is_file():
        raise UserError(f"{folder} holds no trials.db: make the comparison with `weince compare`, or give --storage.")


def _conclude(folder: Path, name: str, storage: str | None, console: Console) -> None:
    from weince.lab.engine.comparison import opened, result_of
    from weince.lab.pages.comparison import print_result, write_result

    with opened(folder, name, storage) as store:
        result = result_of(store)
    page = write_result(result, folder)
    print_result(result, console)
    console.out(f"{page} shows it with figures; every number lies in {folder}.", highlight=False)
