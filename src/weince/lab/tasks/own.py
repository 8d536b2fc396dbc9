"""A user's own training loop as a task: any encoder, any data, a criterion of any setting."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import nn

import weince.lab.engine.plan as plans
from weince.lab.engine.comparison import opened, publish, result_of
from weince.lab.engine.outcomes import packed_all
from weince.lab.engine.plan import Plan, Range, Value, words
from weince.lab.engine.task import Settings
from weince.lab.engine.work import work
from weince.lab.pages.comparison import print_result, write_result
from weince.shell.errors import UserError
from weince.shell.files import read_json, write_json
from weince.shell.provenance import provenance
from weince.shell.terminal import bar

__all__ = ["Arm", "compare"]

Score: TypeAlias = "float | Sequence[float] | np.ndarray | torch.Tensor"
Scores: TypeAlias = "Score | Mapping[str, Score]"
Loop: TypeAlias = "Callable[[Any, int, Path], Scores]"


class Arm:
    """A loss, and the settings that are tried for it.

    Args:
        make: makes the criterion from one value of each setting, as `WEINCELoss` or
            `functools.partial(TwoTowerLoss, gate=INFONCE)` does.
        follows: name of an arm that is tuned: this one takes what was chosen there, with its own settings over it.
        tried: settings, each a value, a list of values, or a `Range` that Optuna draws from.

    Examples:
        >>> from weince import WEINCELoss
        >>> Arm(WEINCELoss, temperature=[0.05, 0.1, 0.2])
        Arm(WEINCELoss, temperature=(0.05, 0.1, 0.2))
    """

    def __init__(
        self, make: Callable[..., Any], *, follows: str | None = None, **tried: Value | Sequence[Value] | Range
    ) -> None:
        self.make, self.follows = make, follows
        self.tried: dict[str, Range | tuple[Value, ...]] = {
            name: values
            if isinstance(values, Range)
            else (values,)
            if isinstance(values, (str, int, float))
            else tuple(values)
            for name, values in tried.items()
        }

    def __repr__(self) -> str:
        name = getattr(self.make, "__name__", repr(self.make))
        said = [name, *(f"{key}={value!r}" for key, value in self.tried.items())]
        return f"Arm({', '.join([*said, *([f'follows={self.follows!r}'] if self.follows else [])])})"


def compare(
    train: Loop,
    *,
    arms: Mapping[str, Arm],
    seeds: Sequence[int],
    folder: str | Path,
    test: Loop | None = None,
    confirm_seeds: Sequence[int] = (),
    reference: str | None = None,
    metrics: Mapping[str, str] | None = None,
    select_by: str | None = None,
    settings: Mapping[str, Any] | None = None,
    sampler: str = "tpe",
    draws: int = 20,
    storage: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Which loss is better in a training loop of your own: tuned alike, resumable, paired by seed, with a page.

    Every setting of every arm is trained from each of `seeds`; the setting with the best mean validation score is
    chosen for each arm, and reported by its test scores from `confirm_seeds`. The same call goes on where it was
    stopped; the same script started again beside it, on this machine or on another with `storage`, is another worker.

    Args:
        train: (criterion, seed, folder) -> validation scores: a score, or metric -> score; shares of one, the higher
            the better; one that is not finite is out. A score is a number, or one number for each example (1 right, 0
            wrong), whose mean it then is. Seed everything random from `seed`, the same for every arm. `folder` is this
            trial's: after a kill `train` is called with it again, and may go on from what it left.
        arms: name -> what is compared. All that try several settings try equally many.
        seeds: by which settings are chosen.
        folder: of the comparison: trials.db, runs/, result.json, scores.csv, report.html.
        test: (criterion, seed, folder) -> test scores of what `train` left in the folder; asked for what is reported
            alone. With one number for each example, of the same examples in the same order every time, intervals are no
            narrower than their sampling error, which seeds alone do not tell. Without `test`, validation scores are
            reported, of seeds that have chosen nothing if `confirm_seeds` are given.
        confirm_seeds: others than `seeds`, from which the chosen settings are reported; `seeds` when empty.
        reference: the arm that the others are compared with; the first when not given.
        metrics: score -> as a reader sees it; {"score": "score"} when not given.
        select_by: the score that chooses; the first when not given.
        settings: what `train` depends on beside criterion and seed, as JSON: a folder that was made with others is
            refused, and the page tells them.
        sampler: "tpe", "random" or "qmc", of arms with a `Range`.
        draws: settings drawn for each arm with a `Range`.
        storage: database of the trials: sqlite:///FILE, or postgresql://USER@HOST/NAME; FOLDER/trials.db otherwise.
        quiet: neither bar nor table.

    Returns:
        The content of result.json: rows, differences paired by seed with 95 % t-intervals, sentences, every run.

    Raises:
        UserError: arms, seeds or scores that are not as above; a folder of another comparison.
    """
    named = dict(metrics or {"score": "score"})
    place = Path(folder)
    try:
        plan = Plan(
            arms={name: plans.Arm(loss=name, follows=arm.follows, tried=arm.tried) for name, arm in arms.items()},
            reference=reference or next(iter(arms), ""),
            select_by=select_by or next(iter(named)),
            seeds=tuple(seeds),
            confirm_seeds=tuple(confirm_seeds),
            sampler=sampler,  # pyright: ignore[reportArgumentType] - pydantic's own message names what it knows
            draws=draws,
        )
        kept = json.loads(json.dumps(dict(settings or {})))
    except ValidationError as error:
        one = error.errors()[0]
        where = "".join(f"`{part}`: " for part in one["loc"] if isinstance(part, str))
        raise UserError(f"{where}{one['msg'].removeprefix('Value error, ')}. Found {one['input']!r}."[:500]) from None
    except TypeError as error:
        raise UserError(f"Parameter `settings` should be JSON: {error}.") from None
    if plan.select_by not in named:
        raise UserError(f"Parameter `select_by` should be one of {', '.join(named)}. Found {plan.select_by!r}.")

    def other(held: Mapping[str, Any]) -> list[str]:
        keys = dict.fromkeys([*held, *kept])
        return [f"{k}: {held.get(k)!r} there, {kept.get(k)!r} now" for k in keys if held.get(k) != kept.get(k)]

    task, console = _Own(train, test, arms, named), Console(quiet=quiet)
    place.mkdir(parents=True, exist_ok=True)
    with opened(place, place.resolve().name, storage) as store:
        publish(store, task, plan, "own", kept, other)
        with bar(console, "Starting", task.unit) as progress:
            work(store, task, place, progress)
        result = result_of(store)
    page = write_result(result, place)
    print_result(result, console)
    console.out(f"{page} shows it with figures; every number lies in {place}.", highlight=False)
    return result


class _Own:
    """The functions of a user, as a task."""

    unit = "trials"
    untrained = ""

    def __init__(self, train: Loop, test: Loop | None, arms: Mapping[str, Arm], metrics: Mapping[str, str]) -> None:
        self.functions = {"train": train, "test": test}
        self.arms, self.metrics = arms, metrics
        self.facts: tuple[str, ...] = (
            () if test else ("there is no test function: the scores reported are validation scores",)
        )

    def amount(self, settings: Settings) -> int:
        return 1

    def fingerprint(self) -> str:
        return ""

    def train(
        self, loss: str, settings: Settings, seed: int, folder: Path, progress: Callable[[int], None]
    ) -> dict[str, Any]:
        done = folder / "validation.json"
        if done.is_file():
            return read_json(done)
        progress(0)
        before = time.perf_counter()
        judged = self._scores("train", loss, settings, seed, folder)
        scores = judged["scores"]
        diverged = not all(map(math.isfinite, scores.values()))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        found = {
            "scores": dict.fromkeys(scores, 0.0) if diverged else scores,
            "diverged": diverged,
            "seconds": round(time.perf_counter() - before, 2),
            "made": provenance(device),
            **({"outcomes": judged["outcomes"]} if "outcomes" in judged and self.functions["test"] is None else {}),
        }
        write_json(done, found)
        return found

    def test(self, loss: str, settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
        if self.functions["test"] is None:
            kept = read_json(folder / "validation.json")
            return {name: kept[name] for name in ("scores", "outcomes") if name in kept}
        return self._scores("test", loss, settings, seed, folder)

    def untrained_scores(self) -> dict[str, dict[str, float]]:
        return {}

    def _scores(self, what: str, loss: str, settings: Settings, seed: int, folder: Path) -> dict[str, Any]:
        """Scores, and outcomes where a score is given example by example."""
        function = self.functions[what]
        assert function is not None
        try:
            criterion = self.arms[loss].make(**settings)
        except (TypeError, ValueError) as error:
            raise UserError(f"Arm {loss!r} makes no criterion {words(settings)}: {error}") from None
        if isinstance(criterion, nn.Module):
            criterion.train(what == "train")
        found = function(criterion, seed, folder)
        scores = dict(found) if isinstance(found, Mapping) else dict.fromkeys(list(self.metrics)[:1], found)
        if set(scores) != set(self.metrics):
            raise UserError(
                f"Function `{what}` should return the scores that `metrics` names: {', '.join(self.metrics)}. "
                f"Found {', '.join(map(str, scores)) or 'none'}."
            )
        try:
            given = {name: _numbers(scores[name]) for name in self.metrics}
        except (TypeError, ValueError):
            raise UserError(f"Function `{what}` should return numbers. Found {scores}.") from None
        if wrong := [name for name, values in given.items() if values.ndim > 1 or not values.size]:
            found = ", ".join(f"{name} of shape {given[name].shape}" for name in wrong)
            raise UserError(
                f"Function `{what}` should return a number, or one for each example (examples,). Found {found}."
            )
        outcomes = {name: values for name, values in given.items() if values.ndim == 1}
        means = {name: float(values.mean()) for name, values in given.items()}
        return {"scores": means, **({"outcomes": packed_all(outcomes)} if outcomes else {})}


def _numbers(score: Any) -> np.ndarray:
    """A score, or one for each example, in double precision."""
    if isinstance(score, torch.Tensor):
        return score.detach().double().cpu().numpy()
    if isinstance(score, Sequence) and any(isinstance(one, torch.Tensor) for one in score):
        return np.array([float(one) for one in score])
    return np.asarray(score, dtype=float)
