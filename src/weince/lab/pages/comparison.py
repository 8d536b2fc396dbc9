"""What a comparison shows: a table for the terminal, numbers as JSON and CSV, and one page that opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from weince.lab.engine.plan import words
from weince.lab.intervals import Interval, paired
from weince.lab.pages.figures import figures_of
from weince.shell.figures import svg
from weince.shell.files import write_csv, write_json, write_text
from weince.shell.pages import render
from weince.shell.words import count

__all__ = ["cell", "differences_of", "page_of", "print_result", "write_result"]

PLUS_MINUS = "± is the half width of the 95 % t-interval over seeds"
FEW = 4
"""Sentences that lead a page."""


def write_result(result: Mapping[str, Any], folder: Path) -> Path:
    """result.json, scores.csv and report.html.

    Args:
        result: of `result_of`.
        folder: they are written to.

    Returns:
        Path of the page.
    """
    write_json(folder / "result.json", result)
    write_csv(folder / "scores.csv", _tidy(result))
    write_text(folder / "report.html", page_of(result))
    return folder / "report.html"


def page_of(result: Mapping[str, Any]) -> str:
    """The page of a result, with all that it shows inside."""
    return render(
        "lab/pages/comparison.html",
        result=result,
        lead=_lead(result),
        tables=_tables(result),
        figures=[
            (drawn.title, [svg(figure, alt) for figure, alt in drawn.drawings], drawn.caption)
            for drawn in figures_of(result)
        ],
        runs=_runs(result),
        recipe=_recipe(result),
        seeds=count(len(result["seeds"]), "seed"),
    )


def print_result(result: Mapping[str, Any], console: Console) -> None:
    """Test scores of the chosen settings, their paired differences, and the sentences that sum them up."""
    metrics, select_by = result["metrics"], result["select_by"]
    table = Table(title=f"{result['name']}: test scores of the chosen settings, x 100", title_justify="left",
                  box=None, padding=(0, 2, 0, 0))  # fmt: skip
    table.add_column("", overflow="fold")
    shown = list(metrics)[:3] if select_by in list(metrics)[:3] else [*list(metrics)[:2], select_by]
    for metric in shown:
        table.add_column(metrics[metric].replace(" ", "\n", 1), justify="right", no_wrap=True)
    table.add_column(f"− {_reference(result)}\n{metrics[select_by]}", justify="right", no_wrap=True)
    if result["untrained"]:
        table.add_row(result["untrained"]["name"],
                      *(f"{100 * result['untrained']['test'][metric]:.1f}" for metric in shown), "")  # fmt: skip
    for row in result["rows"]:
        found = differences_of(result, row["label"]).get("reference", {}).get(select_by)
        table.add_row(row["label"], *(cell(row, metric) for metric in shown), "" if found is None else str(found))
    console.print(table, highlight=False)
    console.print(f"{'; '.join(result['facts'])}.", style="dim", highlight=False, markup=False)
    chosen = f"Chosen by validation {metrics[select_by]}; {PLUS_MINUS} ({count(len(result['seeds']), 'seed')}); "
    console.print(f"{chosen}differences are paired by seed, in points.", style="dim", highlight=False)
    for text in result["warnings"]:
        console.print(f"[yellow]Note:[/yellow] {text}", highlight=False)
    for text in result["sentences"]:
        console.print(f"[bold]{text}[/bold]", highlight=False)


def cell(row: Mapping[str, Any], metric: str) -> str:
    """Mean and half width of the interval, in per cent."""
    high = row["interval"][metric][1]
    mean = row["mean"][metric]
    return f"{100 * mean:.1f}" if high is None else f"{100 * mean:.1f} ± {100 * (high - mean):.1f}"


def differences_of(result: Mapping[str, Any], label: str) -> dict[str, dict[str, Interval]]:
    """To what -> metric -> the differences of a row."""
    found: dict[str, dict[str, Interval]] = {}
    for d in result["differences"]:
        if d["of"] == label:
            found.setdefault(d["to"], {})[d["metric"]] = Interval(d["mean"], d["low"], d["high"])
    return found


def _reference(result: Mapping[str, Any]) -> str:
    reference = result["plan"]["reference"]
    return next(row["title"] for row in result["rows"] if row["arm"] == reference)


def _recipe(result: Mapping[str, Any]) -> str:
    """The settings as TOML, without the folders of one machine."""
    import tomli_w

    kept = {k: v for k, v in result["settings"].items() if v not in (None, [], {}) and k not in PRIVATE}
    return tomli_w.dumps({k: _plain(v) for k, v in kept.items()})


PRIVATE = ("output", "data_dir", "stsb_dir", "sentences")


def _plain(value: Any) -> Any:
    return {k: _plain(v) for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


class _Table(NamedTuple):
    caption: str
    columns: list[str]
    rows: list[list[Any]]


def _lead(result: Mapping[str, Any]) -> list[str]:
    """What stands at the top: every sentence of few arms; of many, one that counts them."""
    if len(result["sentences"]) <= FEW:
        return result["sentences"]
    reference, metric = _reference(result), result["metrics"][result["select_by"]]
    found = [d for d in result["differences"] if d["to"] == "reference" and d["metric"] == result["select_by"]]
    better = [d for d in found if d["low"] is not None and d["low"] > 0]
    worse = [d for d in found if d["high"] is not None and d["high"] < 0]
    best = max(found, key=lambda d: d["mean"])
    text = (
        f"Of {count(len(found), 'arm')} {len(better)} are better than {reference} and {len(worse)} worse in {metric}, "
        f"by paired 95 % t-intervals; {best['of']} stands highest, "
        f"{Interval(best['mean'], best['low'], best['high'])} points."
    )
    return [text]


def _tables(result: Mapping[str, Any]) -> list[_Table]:
    """Arms as rows: test scores, and the differences to each thing they are compared with."""
    metrics = result["metrics"]
    names = ["", *metrics.values()]
    scores = [[row["label"], *({"text": cell(row, m), "value": row["mean"][m]} for m in metrics)]
              for row in result["rows"]]  # fmt: skip
    if result["untrained"]:
        test = result["untrained"]["test"]
        before = [{"text": f"{100 * test[m]:.1f}", "value": test[m]} for m in metrics]
        scores.insert(0, [result["untrained"]["name"], *before])
    found = [_Table(f"Test scores of the chosen settings, x 100; {PLUS_MINUS}", names, scores)]
    minus = dict.fromkeys((d["to"], d["minus"]) for d in result["differences"])
    for to, other in minus:
        rows = []
        for row in result["rows"]:
            those = {d["metric"]: d for d in result["differences"]
                     if (d["of"], d["to"], d["minus"]) == (row["label"], to, other)}  # fmt: skip
            if those:
                rows.append([row["label"], *(_difference(those[m]) for m in metrics)])
        found.append(_Table(f"Paired differences: minus {other}, in points, with 95 % t-intervals", names, rows))
    for protocol in dict.fromkeys(name for row in result["rows"] for seed in row["others"] for name in seed):
        shown = [m for m in result["rows"][0]["others"][0].get(protocol, {}) if not m.startswith("validation_")]
        rows = [[row["label"], *(_other(row, protocol, m) for m in shown)] for row in result["rows"]]
        columns = ["", *(metrics.get(m) or m.replace("recall_at_", "recall@").replace("_", " ") for m in shown)]
        found.append(_Table(f"The same runs by the protocol {protocol}, x 100", columns, rows))
    return found


def _difference(d: Mapping[str, Any]) -> dict[str, Any]:
    tone = "" if d["low"] is None else "up" if d["low"] > 0 else "down" if d["high"] < 0 else ""
    return {"text": str(Interval(d["mean"], d["low"], d["high"])), "value": d["mean"], "tone": tone}


def _other(row: Mapping[str, Any], protocol: str, metric: str) -> dict[str, Any]:
    found = paired([seed[protocol][metric] for seed in row["others"]])
    half = "" if found.high is None else f" ± {100 * (found.high - found.mean):.1f}"
    return {"text": f"{100 * found.mean:.1f}{half}", "value": found.mean}


def _runs(result: Mapping[str, Any]) -> _Table:
    metrics = [m for m in result["metrics"] if all(m in run["validation"] for run in result["runs"])]
    rows = []
    for run in result["runs"]:
        title = result["plan"]["arms"][run["arm"]].get("title") or run["arm"]
        scores = [{"text": f"{100 * run['validation'][m]:.1f}", "value": run["validation"][m]} for m in metrics]
        rows.append([f"{title} {words(run['settings'])}".strip(), run["seed"], *scores, run["seconds"]])
    columns = ["run", "seed", *(result["metrics"][m] for m in metrics), "train, s"]
    return _Table(f"Validation scores of {count(len(rows), 'run')}, x 100", columns, rows)


def _tidy(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """One row a score: arm, settings, seed, part of the data, metric, value."""
    rows = []
    if result["untrained"]:
        for part in ("validation", "test"):
            rows += [{"arm": "untrained", "settings": "", "seed": None, "part": part, "metric": metric, "value": value}
                     for metric, value in result["untrained"][part].items()]  # fmt: skip
    for run in result["runs"]:
        for part in ("validation", "test"):
            for metric, value in (run[part] or {}).items():
                rows.append({"arm": run["arm"], "settings": words(run["settings"]), "seed": run["seed"], "part": part,
                             "metric": metric, "value": value})  # fmt: skip
    return rows
