"""The command line's door: it opens without the lab, and says what to install when the lab is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

__all__ = ["main"]

COMMANDS = {
    **{name: f"lab.cli.{name}" for name in ("compare", "train", "study", "data", "simcse", "report")},
    "diagnose": "diagnosis.command",
    "noise-floor": "diagnosis.noise_floor_command",
}
USAGE = """\
usage: weince COMMAND [OPTIONS]

  compare [RECIPE.toml] [OPTIONS]   train an encoder with InfoNCE and with WEINCE alike, freeze it, and report which
                                    features are better. Without options: handwritten digits, two minutes on a CPU.
  compare --help                    all settings
  train [RECIPE.toml] [OPTIONS]     one run of it: --loss weince --temperature 0.1 --seed 7
                                    Both go on where they were stopped, and run under torchrun and srun.
  study PLAN.toml [OPTIONS]         settings of several arms tried alike, by any number of workers on any machines;
                                    study work FOLDER, study report FOLDER. What is finished is never lost.
  data NAME [--data-dir DIR]        fetch a published set of images: checked, and taken up where it was cut.
  simcse [RECIPE.toml] [OPTIONS]    the same question of sentences: SimCSE with both losses, any encoder of the
                                    Hugging Face hub, judged on STS-B; --stsb-dir DIR
  report [RUNS]                     the paper's table and ours: what was run, from what, and why the rest was not
  diagnose FILE [OPTIONS]           is the tail of these embeddings Weibull, with an end at 1? A verdict with a test
                                    that can say no, figures and a page. .npy .npz .parquet .safetensors .pt
  diagnose --help                   all settings
  noise-floor [--output DIR]        the paper's toy: what a softmax cannot learn of a shortfall law, simulated beside
                                    theory, in seconds.
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


if __name__ == "__main__":
    sys.exit(main())
