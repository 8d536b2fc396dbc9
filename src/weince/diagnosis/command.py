"""`weince diagnose`: is this tail Weibull?"""

from __future__ import annotations

from collections.abc import Sequence

import tyro
from rich.console import Console

from weince.diagnosis.examine import Question, diagnose
from weince.shell.terminal import answered, bar

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince diagnose`; returns the exit status."""
    return answered(lambda: _diagnose(words), "Nothing was written.")


def _diagnose(arguments: Sequence[str]) -> None:
    console = Console()
    question = tyro.cli(Question, args=list(arguments), prog="weince diagnose")
    from weince.diagnosis.report import check_output, print_diagnosis, write_diagnosis

    check_output(question.folder)
    if question.file.is_dir():
        from weince.lab.evaluation.through_training import examine_epochs, print_epochs, write_epochs

        with bar(console, "Reading images", "epochs") as report:
            epochs = examine_epochs(question, report)
            page = write_epochs(epochs, question.folder)
        print_epochs(epochs, console)
    else:
        with bar(console, "Reading", "rows") as report:
            diagnosis = diagnose(question, report)
            report("Drawing the report", 1, 1)
            page = write_diagnosis(diagnosis, question.folder)
        print_diagnosis(diagnosis, console)
    print(f"{page} shows it; every number lies in {question.folder}.")
