"""`weince train`: one run of a comparison on images."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from weince.lab.cli.settings import parsed, started_from
from weince.lab.tasks.recipe.images import METRICS, ImageRun, ImagesRecipe
from weince.shell.errors import UserError
from weince.shell.terminal import answered, bar, first

__all__ = ["run"]


def run(words: Sequence[str]) -> int:
    """`weince train`; returns the exit status."""
    return answered(lambda: _train(list(words)), "The same command continues where it was.")


def _train(words: list[str]) -> None:
    console = Console(quiet=not first())
    start, rest = started_from(words)
    if start.pop("task", "images") != "images":
        raise UserError('`weince train` trains on images: the recipe should have task "images".')
    start = {key: value for key, value in start.items() if key in ImageRun.model_fields}
    one = parsed(ImageRun, start, rest, "weince train [RECIPE]")
    one.check_places()
    title = f"{ImagesRecipe.TITLES[one.loss]} at {one.temperature:g}, seed {one.seed}"
    console.print(f"Training with {title} on {one.data}.", highlight=False)
    # Lightning, kornia and the rest take seconds to import: after --help and the refusals.
    from weince.lab.engine.folder import made_known, trial
    from weince.lab.engine.plan import slug
    from weince.lab.launch import leave
    from weince.lab.tasks.images import finish, ready
    from weince.lab.training.settings import Run

    with bar(console, "Reading images", "epochs") as progress:
        splits = ready(one)
        settings = {key: value for key, value in one.model_dump().items() if key in ImagesRecipe.model_fields}
        made_known(ImagesRecipe(**settings), splits.fingerprint)
        name = slug(one.loss, {"temperature": one.temperature}, one.seed)
        with trial(one.folder, name) as folder:
            run = Run(one.loss, one.temperature, one.seed)
            found = finish(one.image_settings(), run, splits, folder, lambda epoch: progress(title, epoch, one.epochs))
    if found["diverged"]:
        console.print("It diverged: a weight is not finite. Lower --learning-rate.")
    for metric, score in found["scores"].items():
        console.print(f"validation {METRICS[metric]}: {100 * score:.1f} %")
    console.out(f"{folder} holds encoder.safetensors, projection.safetensors and history.csv.", highlight=False)
    leave()
