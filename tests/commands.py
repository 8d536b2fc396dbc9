"""Commands in real processes that may really be killed, forked from one that has imported the libraries already."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weince.__main__ import main

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["weince.lab.tasks.images", "weince.lab.tasks.own", "weince.lab.pages.comparison"])


class Running:
    """A process that runs a function, in the manner of `subprocess.Popen`."""

    def __init__(self, function: Callable[..., Any], *given: Any) -> None:
        self.said = Path(tempfile.mkstemp()[1])
        self.process = CONTEXT.Process(target=_run, args=(self.said, function, given))
        self.process.start()

    def poll(self) -> int | None:
        return self.process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(self.said.read_text())
        return self.said.read_text(), None


def _run(said: Path, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    told = os.open(said, os.O_WRONLY | os.O_TRUNC)
    os.dup2(told, 1)
    os.dup2(told, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
    os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    warnings.simplefilter("ignore")
    sys.exit(function(*given))


def start(*words: Any) -> Running:
    """`weince WORDS`."""
    return Running(main, list(map(str, words)))


def finished(*words: Any) -> tuple[int | None, str]:
    """Exit status, and all that was said."""
    process = start(*words)
    said = process.communicate(timeout=200)[0]
    return process.returncode, said
