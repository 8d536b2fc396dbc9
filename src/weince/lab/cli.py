"""The commands: options, a live progress bar, the answer in the terminal, and where the rest lies."""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import get_args

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from weince.lab.diagnose import Question, diagnose
from weince.lab.files import write_bytes, write_csv
from weince.lab.recipe import PAPER_TEMPERATURE, Data, Loss, Recipe, RecipeError, Run, preset, read
from weince.lab.text_recipe import TextRecipe, check_text_libraries
from weince.tails import noise_floor
from weince.tails.plots import noise_floor_figure

__all__ = [
    "run_compare",
    "run_data",
    "run_diagnose",
    "run_noise_floor",
    "run_simcse",
    "run_study",
    "run_train",
    "settings",
]


def settings(arguments: Sequence[str], command: str = "compare") -> Recipe:
    """The recipe of a command line: options over the TOML file, the file over the preset of its data.

    Args:
        arguments: [RECIPE.toml] [OPTIONS].
        command: whose help is shown.

    Raises:
        RecipeError: the file cannot be read, or settings are unknown, malformed or contradictory.
        SystemExit: an option cannot be parsed, or --help.
    """
    words = list(arguments)
    written = read(Path(words.pop(0))) if words and not words[0].startswith("-") else {}
    # The data named on the command line decides which preset the other settings start from.
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--data", choices=get_args(Data), default=written.get("data", "digits"))
    data = finder.parse_known_args(words)[0].data
    if data not in get_args(Data):
        Recipe(**written)  # refuses, and says why
    return tyro.cli(
        Recipe,
        default=Recipe(**(preset(data) | written | {"data": data})),
        args=words,
        prog=f"weince {command} [RECIPE.toml]",
    )


def run_compare(arguments: Sequence[str]) -> int:
    """`weince compare`; returns the exit status."""
    return _answered(lambda: _compare(arguments), "The same command continues where it was.")


def run_train(arguments: Sequence[str]) -> int:
    """`weince train`; returns the exit status."""
    return _answered(lambda: _train(arguments), "The same command continues where it was.")


def run_study(arguments: Sequence[str]) -> int:
    """`weince study`; returns the exit status."""
    return _answered(lambda: _study(list(arguments)), "The same command goes on; so does any other worker.")


def run_data(arguments: Sequence[str]) -> int:
    """`weince data`; returns the exit status."""
    return _answered(lambda: _data(arguments), "The same command goes on where it was.")


def run_simcse(arguments: Sequence[str]) -> int:
    """`weince simcse`; returns the exit status."""
    return _answered(lambda: _simcse(arguments), "The same command repeats the run it was at, and no finished one.")


def run_diagnose(arguments: Sequence[str]) -> int:
    """`weince diagnose`; returns the exit status."""
    return _answered(lambda: _diagnose(arguments), "Nothing was written.")


def _answered(work: Callable[[], None], after_a_stop: str) -> int:
    """Exit status of a command: 0 done, 2 refused, 130 stopped. Of several processes the first one speaks."""
    said = sys.stderr if _first() else io.StringIO()
    try:
        work()
    except RecipeError as error:
        print(error, file=said)
        return 2
    except OSError as error:
        print(f"{error.filename or 'Files'}: {error.strerror or error}.", file=said)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. {after_a_stop}", file=said)
        return 130
    return 0


def _first() -> bool:
    """Whether this is the first, or only, process that torchrun or srun started."""
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _compare(arguments: Sequence[str]) -> None:
    console = Console(quiet=not _first())
    recipe = settings(arguments)
    # Lightning, kornia and the rest take seconds to import: after --help and the refusals.
    from weince.lab.compare import compare
    from weince.lab.processes import first_does, leave
    from weince.lab.report import print_table, write_report

    with _bar(console, "Reading images", "epochs") as report:
        result = compare(recipe, report)
        report("Drawing the report", 1, 1)
        page = first_does(lambda: write_report(recipe.folder))
    print_table(result, console)
    console.out(f"{page} shows it with figures; every number lies in {recipe.folder}.", highlight=False)
    leave()


def _train(arguments: Sequence[str]) -> None:
    console = Console(quiet=not _first())
    finder = argparse.ArgumentParser(prog="weince train [RECIPE.toml]", add_help=False, allow_abbrev=False)
    finder.add_argument("--loss", choices=get_args(Loss), default="weince")
    finder.add_argument("--temperature", type=float, default=PAPER_TEMPERATURE)
    finder.add_argument("--seed", type=int, default=7)
    if {"-h", "--help"} & set(arguments):
        losses = ",".join(get_args(Loss))
        known = f"[--loss {{{losses}}}] [--temperature {PAPER_TEMPERATURE:g}] [--seed 7]"
        console.print(f"One run: {known}, and the settings of a recipe:", markup=False)
    wanted, rest = finder.parse_known_args(list(arguments))
    recipe = settings(rest, "train")
    # The recipe's own rules for what a temperature and a seed may be.
    Recipe(**{**recipe.model_dump(), "temperatures": (wanted.temperature,), "seeds": (wanted.seed,)})
    run = Run(wanted.loss, wanted.temperature, wanted.seed)
    from weince.lab.compare import train_one
    from weince.lab.processes import leave

    with _bar(console, "Reading images", "epochs") as report:
        found = train_one(recipe, run, report)
    for metric, score in found["scores"].items():
        console.print(f"validation {metric.replace('_', ' ')}: {100 * score:.1f} %")
    folder = recipe.folder / "runs" / run.slug
    console.out(f"{folder} holds encoder.safetensors, projection.safetensors and history.csv.", highlight=False)
    leave()


def _simcse(arguments: Sequence[str]) -> None:
    console = Console()
    words = list(arguments)
    written = read(Path(words.pop(0))) if words and not words[0].startswith("-") else {}
    recipe = tyro.cli(TextRecipe, default=TextRecipe(**written), args=words, prog="weince simcse [RECIPE.toml]")
    check_text_libraries()
    # Transformers and the rest take seconds to import: after --help and the refusals.
    from weince.lab.simcse_compare import compare_text
    from weince.lab.simcse_report import print_simcse, write_simcse

    with _bar(console, "Reading sentences", "steps") as report:
        result = compare_text(recipe, report)
        page = write_simcse(result, recipe.folder)
    print_simcse(result, console)
    console.out(f"{page} shows it; every number lies in {recipe.folder}.", highlight=False)


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
    from weince.lab.data import load
    from weince.lab.plan import read_plan
    from weince.lab.study import concluded, work
    from weince.lab.study_report import print_study, write_study
    from weince.lab.trials import Patience, Trials

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    plan, images = None, ""
    if what == "make":
        if wanted.workers < 0:
            raise RecipeError(f"Option `--workers`: should be >= 0. Found {wanted.workers}.")
        named = {key: getattr(wanted, key) for key in ("name", "output") if getattr(wanted, key) is not None}
        plan = read_plan(wanted.plan, changes | named)
        folder = plan.recipe.folder
        images = load(plan.recipe).fingerprint
    else:
        folder = wanted.folder
    name = wanted.name or (plan.recipe.name if plan else folder.name)
    storage = wanted.storage or f"sqlite:///{(folder / 'study.db').absolute()}"
    if what != "make" and wanted.storage is None and not (folder / "study.db").is_file():
        raise RecipeError(
            f"{folder} holds no study.db: make the study with `weince study PLAN.toml`, or give --storage."
        )
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
        raise RecipeError("A worker stopped; what it said stands above. What was finished is in the database.")


def _data(arguments: Sequence[str]) -> None:
    from weince.lab.download import ARCHIVES, fetch

    parser = argparse.ArgumentParser(prog="weince data", description="Fetch a published set of images.")
    parser.add_argument("name", choices=[*ARCHIVES, "imagenet32"])
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder it is unpacked into (data)")
    wanted = parser.parse_args(list(arguments))
    if wanted.name not in ARCHIVES:
        raise RecipeError(
            "ImageNet-32 is given to those who log in at image-net.org (downsampled images, 32x32, npz). "
            f"Unpack its train_data_batch_*.npz and val_data.npz into {wanted.data_dir}."
        )
    console = Console()
    with _bar(console, "Asking", "bytes") as report:
        place = fetch(ARCHIVES[wanted.name], wanted.data_dir, report)
    console.print(f"{place} holds it: weince compare --data {wanted.name} --data-dir {wanted.data_dir}", soft_wrap=True)


def _diagnose(arguments: Sequence[str]) -> None:
    console = Console()
    question = tyro.cli(Question, args=list(arguments), prog="weince diagnose")
    from weince.lab.diagnosis_report import check_output, print_diagnosis, write_diagnosis

    check_output(question.folder)
    if question.file.is_dir():
        from weince.lab.through_training import examine_epochs, print_epochs, write_epochs

        with _bar(console, "Reading images", "epochs") as report:
            epochs = examine_epochs(question, report)
            page = write_epochs(epochs, question.folder)
        print_epochs(epochs, console)
    else:
        with _bar(console, "Reading", "rows") as report:
            diagnosis = diagnose(question, report)
            report("Drawing the report", 1, 1)
            page = write_diagnosis(diagnosis, question.folder)
        print_diagnosis(diagnosis, console)
    print(f"{page} shows it; every number lies in {question.folder}.")


@contextmanager
def _bar(console: Console, what: str, unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar, told what is being done, how much of it is done and of how much."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def run_noise_floor(arguments: Sequence[str]) -> int:
    """`weince noise-floor`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="weince noise-floor", description=noise_floor.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("runs/noise-floor"), help="folder of the CSV and the figure"
    )
    parser.add_argument("--repetitions", type=int, default=12_000, help="samples of each size (12000)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (0)")
    wanted = parser.parse_args(list(arguments))
    for name, value, least in (("repetitions", wanted.repetitions, 2), ("seed", wanted.seed, 0)):
        if value < least:
            print(f"Parameter `--{name}` should be an integer >= {least}. Found {value}.", file=sys.stderr)
            return 2
    limit = noise_floor.theory()
    generator = np.random.default_rng(wanted.seed)
    found = [noise_floor.simulate(n, wanted.repetitions, generator) for n in noise_floor.SIZES]
    rows = [
        {**one._asdict(), "weibit_theory": limit.weibit_mse(one.n), "softmax_theory": limit.softmax_mse(one.n)}
        for one in found
    ]
    table = Table(title=f"Mean squared error of the log-odds, whose truth is {limit.log_odds:.4f}")
    for column in ("n", "Weibit", "theory", "softmax", "theory "):
        table.add_column(column, justify="right")
    for row in rows:
        errors = (row["weibit_mse"], row["weibit_theory"], row["softmax_mse"], row["softmax_theory"])
        table.add_row(str(row["n"]), *(f"{value:.5f}" for value in errors))
    buffer = io.BytesIO()
    noise_floor_figure(found, limit).savefig(buffer, format="png", dpi=160, facecolor="white")
    try:
        write_csv(wanted.output / "noise_floor.csv", rows)
        write_bytes(wanted.output / "noise_floor.png", buffer.getvalue())
    except OSError as error:
        print(f"{error.filename or wanted.output}: {error.strerror or error}.", file=sys.stderr)
        return 2
    Console().print(table)
    print(f"The softmax converges to {limit.softmax_log_odds:.4f}: a squared error of {limit.floor:.4f} that stays.")
    print(f"{wanted.output / 'noise_floor.png'} shows it.")
    return 0
