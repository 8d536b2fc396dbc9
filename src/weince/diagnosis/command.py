"""`weince diagnose`: is this tail Weibull?"""

from __future__ import annotations

from collections.abc import Sequence

import tyro
from rich.console import Console

from weince.diagnosis.formats import check_path
from weince.diagnosis.question import Question, check_output
from weince.shell.errors import UserError
from weince.shell.terminal import answered, bar

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince diagnose`; returns the exit status."""
    return answered(lambda: _diagnose(words), "Nothing was written.")


def _diagnose(words: Sequence[str]) -> None:
    question = tyro.cli(Question, args=list(words), prog="weince diagnose")
    check_output(question.folder)
    console = Console()
    if question.file.is_dir():
        _through_training(question, console)
    else:
        _file(question, console)


def _file(question: Question, console: Console) -> None:
    check_path(question.file, "file")
    if question.corpus is not None:
        check_path(question.corpus, "corpus")
    # SciPy and matplotlib take longer to import than a refusal should.
    from weince.diagnosis.examine import diagnose
    from weince.diagnosis.report import print_diagnosis, write_diagnosis

    with bar(console, "Reading", "rows") as report:
        diagnosis = diagnose(question, report)
        report("Drawing the report", 1, 1)
        page = write_diagnosis(diagnosis, question.folder)
    print_diagnosis(diagnosis, console)
    print(f"{page} shows it; every number lies in {question.folder}.")


def _through_training(question: Question, console: Console) -> None:
    try:
        from weince.lab.evaluation.through_training import examine_epochs, print_epochs, write_epochs
    except ImportError as error:
        needed = str(error) if "weince[lab]" in str(error) else f"{error}: pip install 'weince[lab]'"
        raise UserError(
            f"Parameter `file`: {question.file} is a folder, whose epochs the lab reads. {needed}"
        ) from error
    with bar(console, "Reading images", "epochs") as report:
        epochs = examine_epochs(question, report)
        page = write_epochs(epochs, question.folder)
    print_epochs(epochs, console)
    print(f"{page} shows it; every number lies in {question.folder}.")
