"""The tail through training: every kept epoch of a comparison's runs, diagnosed on the images it validates on.

<output>/training.json, training.csv, figures/training.png, report.html
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file

from weince.diagnosis.embeddings import embeddings_of
from weince.diagnosis.examine import Progress, examine
from weince.diagnosis.question import Question
from weince.extremes.plots import training_figure
from weince.lab.data.sets import load
from weince.lab.evaluation.features import extract, freeze
from weince.lab.rivals import NAMES
from weince.lab.settings import read
from weince.lab.training.contrastive import build
from weince.lab.training.settings import ImageSettings, Run
from weince.shell.errors import UserError
from weince.shell.figures import png, svg
from weince.shell.files import csv_text, json_text, write_folder
from weince.shell.pages import render
from weince.shell.provenance import provenance
from weince.shell.terminal import table
from weince.shell.words import count

__all__ = ["Epochs", "examine_epochs", "print_epochs", "write_epochs"]

PER_FILE = ("key", "labels", "ids", "corpus")
"""Options that speak of a file of embeddings."""
PALETTE = ("#4477AA", "#D1495B", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
"""Told apart with any colour vision."""
TOLD = 6
"""Runs that are told one by one where a plot is described in words."""


class Epochs(NamedTuple):
    """One row for every kept epoch of every run, and what is said of them together.

    Attributes:
        rows: run, epoch, and the diagnosis in numbers.
        summary: training.json.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def examine_epochs(question: Question, progress: Progress = lambda what, done, total: None) -> Epochs:
    """Diagnose the embeddings z of the validation images, without augmentation, at every kept epoch.

    Labels are not looked at: in training, images of the same class are negatives too.

    Args:
        question: `file` is the folder of a comparison.
        progress: told of every epoch.

    Raises:
        UserError: no comparison there, none of its epochs kept, its images gone or other ones, or too few of them.
    """
    folder = question.file
    for name in PER_FILE:
        if getattr(question, name) is not None:
            raise UserError(f"Parameter `{name}` belongs to a file of embeddings. Found the folder {folder}.")
    settings = read(folder / "recipe.toml")
    if question.data_dir is not None:
        settings["data_dir"] = question.data_dir
    recipe = ImageSettings(**{name: value for name, value in settings.items() if name in ImageSettings.model_fields})
    kept = sorted(folder.glob(f"runs/*/kept/{'[0-9]' * 5}.safetensors"))
    if not kept:
        raise UserError(
            f"Parameter `file`: {folder} should hold epochs that were kept. Found none: run its comparison with "
            "--keep-every 1 (runs that are finished stay as they are)."
        )
    splits = load(recipe)
    stored = folder / "data.json"
    try:
        known = json.loads(stored.read_text(encoding="utf-8"))["sha256"] if stored.is_file() else splits.fingerprint
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{stored} is damaged. Remove it to go on without comparing the images.") from None
    if known != splits.fingerprint:
        raise UserError("Parameter `data_dir` should hold the images of the comparison. Found other ones.")
    pixels = splits.validation.pixels
    rows: list[dict[str, Any]] = []
    for place, path in enumerate(kept):
        run = _run(path.parent.parent.name)
        progress(f"{NAMES[run.loss]} at {run.temperature:g}, seed {run.seed}", place, len(kept))
        model = build(recipe, run.seed, splits.training)
        try:
            state = load_file(path)
            for name, half in model._asdict().items():
                part = {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}
                half.load_state_dict(part)
        except (SafetensorError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise UserError(f"{path} is damaged, or of another recipe: {reason}.") from None
        features = torch.from_numpy(extract(freeze(model.encoder), pixels))
        with torch.no_grad():
            embeddings = freeze(model.projection)(features).numpy()
        found = embeddings_of(embeddings, path.parent.parent.name)
        row = {"run": path.parent.parent.name, "loss": run.loss, "temperature": run.temperature, "seed": run.seed}
        rows.append(row | {"epoch": int(path.stem)} | _row(question, found))
    return Epochs(rows, _summary(rows, folder, len(pixels)))


def _run(slug: str) -> Run:
    found = re.fullmatch(rf"({'|'.join(map(re.escape, NAMES))})-t(.+)-s(\d+)", slug)
    if found is None:
        raise UserError(f"A run's folder should be named LOSS-tTEMPERATURE-sSEED. Found {slug!r}.")
    return Run(found[1], float(found[2]), int(found[3]))


def _row(question: Question, found: Any) -> dict[str, Any]:
    diagnosis = examine(question, found, found, None, None)
    tail, measured = diagnosis.tails[0], diagnosis.anchors
    best = tail.best
    return {
        "kind": diagnosis.verdict.kind,
        "threshold": tail.threshold,
        "pairs": tail.n,
        "shape": best.shape,
        "shape_low": best.shape_interval.low,
        "shape_high": best.shape_interval.high,
        "endpoint": best.endpoint,
        "endpoint_low": best.endpoint_interval.low,
        "endpoint_high": best.endpoint_interval.high,
        "p_value": tail.test.p_value,
        "largest": float(diagnosis.found.pool.similarity[0]),
        "nearness": float(np.median(measured.nearness)),
        "slope": float(np.median(measured.slope_likelihood)),
        "weight": float(measured.weight.mean()),
        "uniformity": diagnosis.summary["uniformity"],
    }


def _summary(rows: list[dict[str, Any]], folder: Path, images: int) -> dict[str, Any]:
    sentences = []
    for slug in dict.fromkeys(row["run"] for row in rows):
        first, *_, last = [row for row in rows if row["run"] == slug] * 2
        ends = [row for row in rows if row["run"] == slug and row["p_value"] <= 0.05]
        caps = [row["epoch"] for row in ends if row["kind"] == "cap"]
        run = _run(slug)
        sentences.append(
            f"{NAMES[run.loss]} at {run.temperature:g}, seed {run.seed}: xi {first['shape']:.2f} after epoch "
            f"{first['epoch']}, {last['shape']:.2f} after {last['epoch']}; the median hardest negative is "
            f"{first['nearness']:.3g}, then {last['nearness']:.3g} below 1; the tail ends near 1 at {len(caps)} of "
            f"{count(sum(row['run'] == slug for row in rows), 'kept epoch')}."
        )
    return {
        "comparison": folder.resolve().name,
        "images": images,
        "sentences": sentences,
        "made": provenance(torch.device("cpu")),
        "rows": [{k: _finite(v) for k, v in row.items()} for row in rows],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_epochs(epochs: Epochs, folder: Path) -> Path:
    """Numbers, table, figure and page, all of them or none; returns the page's path."""
    runs = list(dict.fromkeys(row["run"] for row in epochs.rows))
    by_run = {run: [row for row in epochs.rows if row["run"] == run] for run in runs}
    colours = _colours(epochs.rows)
    figure, seen = training_figure(by_run, colours), _seen(by_run)
    page = render(
        "lab/evaluation/training.html",
        summary=epochs.summary,
        images=count(epochs.summary["images"], "validation image"),
        seen=seen,
        cells=[_cells(row) for row in epochs.rows],
        drawing=svg(figure, " ".join(seen.values())),
        payload={"rows": epochs.summary["rows"], "colours": colours},
    )
    write_folder(
        folder,
        {
            "training.json": json_text(epochs.summary).encode(),
            "training.csv": csv_text(epochs.rows).encode(),
            "figures/training.png": png(figure),
            "report.html": page.encode(),
        },
    )
    return folder / "report.html"


def _colours(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Run -> colour; the seeds of a loss at a temperature share one."""
    kinds = list(dict.fromkeys((row["loss"], row["temperature"]) for row in rows))
    return {row["run"]: PALETTE[kinds.index((row["loss"], row["temperature"])) % len(PALETTE)] for row in rows}


def _seen(by_run: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """What each plot shows, for those who do not see it."""
    found = {}
    for quantity, name in (("shape", "Shape xi"), ("endpoint", "Endpoint"), ("nearness", "Median nearness rho")):
        ways = [
            f"{run} from {_number(rows[0][quantity], '.3g')} to {_number(rows[-1][quantity], '.3g')}"
            for run, rows in by_run.items()
        ]
        more = f", and {count(len(ways) - TOLD, 'more run')}" if len(ways) > TOLD else ""
        found[quantity] = f"{name} from the first to the last kept epoch: {', '.join(ways[:TOLD])}{more}."
    return found


def _cells(row: dict[str, Any]) -> list[Any]:
    kept = {"p_value": ".1g", "nearness": ".3g", "slope": ".2f", "weight": ".2f"}
    return [
        row["run"], row["epoch"], _number(row["shape"], ".2f"), _number(row["endpoint"], ".3f"), row["kind"],
        *(_number(row[name], form) for name, form in kept.items()),
    ]  # fmt: skip


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "none"


def _ends(rows: list[dict[str, Any]], run: str) -> tuple[int, int]:
    epochs = [row["epoch"] for row in rows if row["run"] == run]
    return min(epochs), max(epochs)


def print_epochs(epochs: Epochs, console: Console) -> None:
    """Shape, endpoint and nearness of every run's first and last kept epoch."""
    ends = {(row["run"], at): row for row in epochs.rows for at in _ends(epochs.rows, row["run"]) if row["epoch"] == at}
    shown = table(
        "The tail through training, first and last kept epoch, with 95 % intervals",
        ("run", "epoch", "xi", "endpoint", "tail", "nearness"),
        names=("run", "tail"),
    )
    for row in ends.values():
        interval = f"\\[{_number(row['shape_low'], '.2f')}, {_number(row['shape_high'], '.2f')}]"
        shown.add_row(
            row["run"], f"{row['epoch']:,}", f"{row['shape']:.2f} {interval}", _number(row["endpoint"], ".3f"),
            row["kind"], f"{row['nearness']:.3g}",
        )  # fmt: skip
    console.print(shown)
    for text in epochs.summary["sentences"]:
        console.print(text, style="bold", highlight=False, markup=False)
