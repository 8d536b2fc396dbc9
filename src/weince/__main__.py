"""The command line's door: it opens without the lab, and says what to install when the lab is missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["command", "main"]

COMMANDS = {
    **{name: f"lab.cli.{name}" for name in ("compare", "leaderboard", "recipes", "train", "data", "report")},
    "diagnose": "diagnosis.command",
    "noise-floor": "diagnosis.noise_floor_command",
}
USAGE = """\
usage: weince COMMAND [OPTIONS]        weince COMMAND --help shows every option

  compare [RECIPE] [OPTIONS]   which loss is better on a task: InfoNCE, WEINCE and others tuned alike, chosen on
                               validation data, reported on test data, paired by seed. Without options: handwritten
                               digits, two minutes on a CPU. Goes on where it was stopped; any number of workers.
  compare work FOLDER          one more worker on it, on this or another machine
  compare report FOLDER        its report anew, finished or not
  leaderboard RESULTS          many comparisons in one table: losses by tasks, from result files or a folder of them
  recipes [NAME]               the recipes that the package carries; or one, to be copied and edited
  train [RECIPE] [OPTIONS]     one run on images: --loss weince --temperature 0.1 --seed 7
  data NAME                    fetch a published set of images
  report [RESULTS]             the paper's table and ours: what was run, from what, and why the rest was not
  diagnose FILE [OPTIONS]      is the tail of these embeddings Weibull, with an end at 1? A verdict with its test,
                               figures and a page. .npy .npz .parquet .safetensors .pt
  noise-floor                  the paper's toy: what a softmax cannot learn of a shortfall law, in seconds
  --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line; those of the process when None.

    Returns:
        Exit status: 0 done, 2 refused, 130 stopped by the user.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        import weince

        print(weince.__version__)
        return 0
    if not words or words[0] not in COMMANDS:
        asked = not words or words[0] in ("-h", "--help")
        print(USAGE, end="", file=sys.stdout if asked else sys.stderr)
        if not asked:
            print(f"\nUnknown command {words[0]!r}.", file=sys.stderr)
        return 0 if asked else 2
    try:
        # A command is imported when it is called: Lightning, kornia and the rest take seconds.
        return import_module(f"weince.{COMMANDS[words[0]]}").run(words[1:])
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2


def command() -> None:
    """Run a command, and end the process.

    One of several that a launcher started ends at once: at the interpreter's own end, threads of their connections
    aborted the process now and then ("terminate called without an active exception"), after all was done.
    """
    status = main()
    if int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1"))) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    command()
