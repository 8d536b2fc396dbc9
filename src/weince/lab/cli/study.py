"""`weince study`: make a study, work on it, report it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from rich.console import Console

from weince.shell.errors import UserError
from weince.shell.terminal import answered

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince study`; returns the exit status."""
    return answered(lambda: _study(list(words)), "The same command goes on; so does any other worker.")


def _study(words: list[str]) -> None:
    what = words.pop(0) if words[:1] in (["work"], ["report"]) else "make"
    parser = argparse.ArgumentParser(prog=f"weince study {'PLAN.toml' if what == 'make' else what}")
    if what == "make":
        parser.add_argument("plan", type=Path, metavar="PLAN.toml")
        parser.add_argument("--workers", type=int, default=1, help="processes on this machine; 0 only makes the study")
    else:
        parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the study: OUTPUT/NAME")
    parser.add_argument(
        "--storage", help="sqlite:///FILE (default: FOLDER/study.db), journal:///FILE, postgresql://..."
    )
    parser.add_argument("--name", help="of the study; that of the plan, or of the folder")
    parser.add_argument("--data-dir", type=Path, help="where this machine has the images")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    if what == "make":
        parser.add_argument("--output", type=Path, help="folder above that of the study")
    if what == "work":
        parser.add_argument("--threads", type=int, help="cores of this worker")
        parser.add_argument("--most", type=int, help="trials to take")
        parser.add_argument("--beat", type=float, default=10.0, help="seconds between signs of life")
        parser.add_argument("--dead", type=float, default=60.0, help="seconds of silence after which a worker is dead")
        parser.add_argument("--away", type=float, default=600.0, help="seconds to wait for a database that is away")
    wanted = parser.parse_args(words)
    changes = {key: getattr(wanted, key) for key in ("data_dir", "device") if getattr(wanted, key) is not None}
    console = Console()
    from weince.lab.data.sets import load
    from weince.lab.engine.plan import read_plan
    from weince.lab.engine.study import concluded, work
    from weince.lab.engine.trials import Patience, Trials
    from weince.lab.pages.study_report import print_study, write_study

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    plan, images = None, ""
    if what == "make":
        if wanted.workers < 0:
            raise UserError(f"Option `--workers`: should be >= 0. Found {wanted.workers}.")
        named = {key: getattr(wanted, key) for key in ("name", "output") if getattr(wanted, key) is not None}
        plan = read_plan(wanted.plan, changes | named)
        folder = plan.recipe.folder
        images = load(plan.recipe).fingerprint
    else:
        folder = wanted.folder
    name = wanted.name or (plan.recipe.name if plan else folder.name)
    storage = wanted.storage or f"sqlite:///{(folder / 'study.db').absolute()}"
    if what != "make" and wanted.storage is None and not (folder / "study.db").is_file():
        raise UserError(f"{folder} holds no study.db: make the study with `weince study PLAN.toml`, or give --storage.")
    patience = Patience(wanted.beat, wanted.dead, wanted.away) if what == "work" else Patience()
    with closing(Trials(storage, name, patience, say)) as trials:
        if plan is not None:
            trials.publish(plan, images)
            say(f"Study {name} is in {storage}.")
            _workers(wanted.workers, [str(folder), "--storage", storage, "--name", name], changes)
            if wanted.workers == 0:
                say(f"Workers, on any machine: weince study work {folder} --storage {storage} --name {name}")
                return
        if what == "work":
            if wanted.threads is not None:
                import torch

                torch.set_num_threads(wanted.threads)
            say(f"{work(trials, folder, changes, say, wanted.most)} trials finished by this worker.")
            return
        plan, _ = trials.plan()
        result = concluded(plan, trials.records(plan))
        page = write_study(result, folder)
        print_study(result, console)
        say(f"{page} shows it; every number lies in {folder} and in the database.")


def _workers(count: int, words: Sequence[str], changes: Mapping[str, object]) -> None:
    """Worker processes on this machine, each with a GPU of its own or a share of the cores; waits for all."""
    import torch

    gpus = torch.cuda.device_count() if changes.get("device", "auto") != "cpu" else 0
    options = [word for key, value in changes.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    threads = max(1, (os.cpu_count() or 1) // max(1, count))
    running = []
    for number in range(count):
        own = {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else {}
        command = [sys.executable, "-m", "weince", "study", "work", *words, *options, "--threads", str(threads)]
        running.append(subprocess.Popen(command, env={**os.environ, **own}))
    try:
        failed = [worker.wait() for worker in running]
    except KeyboardInterrupt:
        for worker in running:
            worker.wait()
        raise
    if any(failed):
        raise UserError("A worker stopped; what it said stands above. What was finished is in the database.")
