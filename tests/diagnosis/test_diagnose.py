"""The whole command on real files, in real processes; and its page, in a real browser."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from browser import browser, opened, owes
from weince.__main__ import main
from weince.diagnosis.examine import diagnose
from weince.diagnosis.question import Question
from weince.diagnosis.report import write_diagnosis
from weince.formula import blended_logits
from weince.gate import Gate, mix
from weince.tail import measure_tail

HOSTILE = "</script><script>window.broken = true</script><b>&amp;"


def sphere(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.fixture(scope="module")
def running():
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    """Diagnosed embeddings whose tail ends at the cap, with labels that try to break the page."""
    folder = tmp_path_factory.mktemp("near")
    np.save(folder / "near.npy", sphere(1500, 6))
    (folder / "labels.txt").write_text("\n".join(f"{HOSTILE} {i % 50}" for i in range(1500)), encoding="utf-8")
    command = [sys.executable, "-m", "weince", "diagnose", "near.npy", "--labels", "labels.txt", "--anchors", "400"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "diagnosis-near", done


def test_it_says_what_the_tail_is_and_leaves_everything_it_promises(near):
    folder, done = near
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"diagnosis.json", "anchors.csv", "thresholds.csv", "exceedances.csv", "report.html"} | {
        f"figures/{name}.png" for name in ("tail", "thresholds", "anchors")
    }
    summary = json.loads((folder / "diagnosis.json").read_text())
    assert summary["verdict"]["kind"] == "cap"
    assert summary["verdict"]["text"] in " ".join(done.stdout.split())
    assert summary["asked"]["anchors"] == summary["anchors"] == 400
    # 50 labels of 30 rows: 29 positives and itself are no negatives.
    assert summary["pairs"] == 400 * (1500 - 30)
    assert summary["alignment"] == pytest.approx(2, abs=0.15)  # labels mean nothing here: random pairs
    assert not summary["file"]["normalised"]
    assert any("brought to length 1" in note for note in summary["verdict"]["notes"])
    with (folder / "anchors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 400
    assert rows[0]["label"].startswith(HOSTILE)
    with (folder / "exceedances.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == summary["thresholds"][0]["n"] + 1
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_the_page_opens_offline_and_answers_to_clicks(near, running):
    folder, _ = near
    page_text = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<(link|img|iframe|script)[^>]+(src|href)=", page_text)
    summary = json.loads((folder / "diagnosis.json").read_text())
    with opened(running, folder / "report.html") as page:
        page.wait_for_selector("#anchors .plot-container")
        assert page.inner_text("#verdict") == summary["verdict"]["text"]
        for plot in ("density", "quantiles", "shape", "endpoint", "excess", "background"):
            assert page.locator(f"#{plot} .main-svg").count() > 0, plot

        # Another threshold, by the slider and by a click on a point; another estimator.
        first = page.inner_text("#numbers")
        assert f"{summary['thresholds'][0]['n']:,} pairs" in first
        page.locator("#threshold").fill("2")
        assert f"{summary['thresholds'][2]['n']:,} pairs" in page.inner_text("#numbers")
        page.locator("#shape .scatterlayer .trace").nth(1).locator("path.point").nth(1).hover(force=True)
        page.locator("#shape .nsewdrag").scroll_into_view_if_needed()
        box = page.locator("#shape .scatterlayer .trace").nth(1).locator("path.point").nth(1).bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_function(
            "n => document.getElementById('numbers').textContent.includes(n)",
            arg=f"{summary['thresholds'][1]['n']:,} pairs",
        )
        before = page.inner_text("#numbers")
        page.click("#moments")
        assert page.inner_text("#numbers") != before
        assert page.get_attribute("#moments", "aria-pressed") == "true"

        # An anchor, by its row and by a click: its label is text, whatever it holds.
        rows = page.evaluate("data.anchors.row")
        page.fill("#row", str(rows[3]))
        page.press("#row", "Enter")
        assert f"Row {rows[3]}, {HOSTILE}" in page.inner_text("#anchor h3")
        assert page.locator("#anchor tbody tr").count() == 8
        assert page.locator("#anchor b").count() == 0
        page.fill("#row", "999999")
        page.press("#row", "Enter")
        assert not page.evaluate("document.getElementById('row').checkValidity()")
        page.locator("#anchors .nsewdrag").first.scroll_into_view_if_needed()
        place = page.evaluate(
            """() => { const plot = document.getElementById('anchors');
            const l = plot._fullLayout, b = plot.getBoundingClientRect();
            return [b.x + l.xaxis._offset + l.xaxis.d2p(data.anchors.nearness[7]),
                    b.y + l.yaxis._offset + l.yaxis.d2p(data.anchors.slope_line[7])]; }"""
        )
        page.mouse.move(place[0] + 1, place[1])
        page.mouse.click(*place)
        page.wait_for_function(
            "n => !document.querySelector('#anchor h3').textContent.includes(n)", arg=f"Row {rows[3]},"
        )
        page.select_option("#colour", "effective_temperature")
        page.click("summary")
        assert summary["file"]["sha256"] in page.inner_text("details")
        assert not page.evaluate("window.broken === true")


def test_the_page_owes_its_readers_nothing_and_shows_figures_without_scripts(near, running):
    folder, _ = near
    owes(running, folder / "report.html")
    with opened(running, folder / "report.html", java_script_enabled=False) as page:
        assert page.locator("svg.drawing").count() == 2
        assert page.locator("svg.drawing").first.is_visible()
        assert not page.locator("#threshold").is_visible()


def test_the_page_turns_dark_and_says_what_its_plots_show(near, running):
    folder, _ = near
    with opened(running, folder / "report.html", color_scheme="light") as page:
        ink = "getComputedStyle(document.querySelector('#density .xtitle')).fill"
        light = page.evaluate(ink)
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"light => {ink} !== light", arg=light)
        first = page.get_attribute("#density", "aria-label")
        assert first is not None
        assert page.inner_text("#numbers") in first
        page.locator("#threshold").fill("3")
        assert page.get_attribute("#density", "aria-label") != first
        said = page.get_attribute("#endpoint", "aria-label")
        assert said is not None
        assert "where the cap is 1: from" in said


def test_no_page_tells_where_files_lie(near, tmp_path):
    folder, _ = near
    for name in ("report.html", "diagnosis.json"):
        assert str(folder.parent.parent) not in (folder / name).read_text(encoding="utf-8")
    path = tmp_path / "elsewhere" / "e.npy"
    path.parent.mkdir()
    np.save(path, sphere(300, 5))
    labels = path.with_name("l.txt")
    labels.write_text("\n".join(map(str, range(300))))
    question = Question(path, labels=str(labels), anchors=200, output=tmp_path / "out")
    page = write_diagnosis(diagnose(question), tmp_path / "out").read_text(encoding="utf-8")
    assert str(tmp_path) not in page
    assert "file = e.npy" in page
    assert "labels = l.txt" in page


def test_the_anchors_are_measured_by_the_loss_itself(tmp_path):
    x = sphere(400, 8, seed=3)
    np.save(tmp_path / "e.npy", x)
    found = diagnose(Question(tmp_path / "e.npy", anchors=400, temperature=0.2)).anchors
    z = torch.nn.functional.normalize(torch.from_numpy(x).double(), dim=1)
    similarity = (z @ z.T).fill_diagonal_(float("-inf"))
    tail = measure_tail(similarity.clone(), 399, None, Gate().rule, 1e-6)
    weight, slope = mix(tail, Gate())
    np.testing.assert_allclose(found.nearness, tail.nearness, rtol=1e-4)
    np.testing.assert_allclose(found.slope_line, slope, rtol=1e-4)
    np.testing.assert_allclose(found.weight, weight, atol=2e-3)
    hardest = similarity.amax(dim=1, keepdim=True).requires_grad_()
    (steepness,) = torch.autograd.grad(blended_logits(hardest, weight, slope, 1 / 0.2, 1e-6).sum(), hardest)
    np.testing.assert_allclose(found.effective_temperature, 1 / steepness.squeeze(1), rtol=1e-2)


def test_queries_against_a_corpus_with_pairs_and_ids(tmp_path):
    corpus = sphere(900, 12, seed=4)
    queries = corpus[:300] + 0.05 * sphere(300, 12, seed=5)
    np.save(tmp_path / "q.npy", queries)
    np.save(tmp_path / "c.npy", corpus)
    np.save(tmp_path / "same.npy", corpus[:300])
    paired = diagnose(Question(tmp_path / "q.npy", tmp_path / "same.npy", paired=True))
    assert paired.summary["pairs"] == 300 * 299
    assert paired.summary["alignment"] < 0.02
    np.save(tmp_path / "ids.npy", np.arange(900))
    np.save(tmp_path / "of_queries.npy", np.arange(300))
    named = diagnose(
        Question(
            tmp_path / "q.npy",
            tmp_path / "c.npy",
            ids=str(tmp_path / "of_queries.npy"),
            corpus_ids=str(tmp_path / "ids.npy"),
        )
    )
    assert named.summary["pairs"] == 300 * 899
    assert named.summary["alignment"] == pytest.approx(paired.summary["alignment"])
    assert (named.anchors.hardest != named.anchors.row).all()
    with_positives = diagnose(Question(tmp_path / "q.npy", tmp_path / "c.npy"))
    assert with_positives.tails[0].threshold >= named.tails[0].threshold
    assert with_positives.found.pool.similarity[0] > 0.99


def test_duplicates_are_counted_and_left_out(tmp_path):
    x = sphere(400, 10, seed=6)
    x[1::2][:30] = x[::2][:30]
    np.save(tmp_path / "e.npy", x)
    found = diagnose(Question(tmp_path / "e.npy"))
    write_diagnosis(found, tmp_path / "out")
    with (tmp_path / "out" / "duplicates.csv").open(newline="") as file:
        pairs = {(int(row["anchor"]), int(row["candidate"])) for row in csv.DictReader(file)}
    assert pairs == {(2 * k, 2 * k + 1) for k in range(30)} | {(2 * k + 1, 2 * k) for k in range(30)}
    assert found.summary["duplicate_pairs"] == 60
    assert found.found.pool.similarity[0] < 0.99
    assert any(note.startswith("60 pairs of duplicates") for note in found.verdict.notes)


def test_the_same_file_and_seed_give_the_same_numbers(tmp_path):
    np.savez(tmp_path / "e.npz", sphere(600, 9, seed=7))
    first, again = (diagnose(Question(tmp_path / "e.npz", anchors=200, seed=3)).summary for _ in range(2))
    assert {k: v for k, v in first.items() if k != "made"} == {k: v for k, v in again.items() if k != "made"}


REFUSALS = [
    (["none.npy"], "is not there"),
    (["few.npy"], "at least 200 rows"),
    (["nan.npy"], "NaN or infinity in 1 of 300 rows: 7."),
    (["collapsed.npy"], "collapsed"),
    (["good.npy", "--labels", "short.txt"], "Found 3"),
    (["good.npy", "--labels", "one.txt"], "should leave at least 20,000 pairs"),
    (["good.npy", "--corpus", "other.npy"], "should have D = 5 columns"),
    (["good.npy", "--corpus", "good.npy", "--labels", "short.txt"], "given together"),
    (["good.npy", "--paired"], "`paired` needs a `corpus`"),
    (["good.npy", "--anchors", "3"], "`anchors` should be an integer >= 20. Found 3."),
    (["good.npy", "--temperature", "-1"], "`temperature` should be finite and > 0"),
    (["good.npy", "--output", "taken"], "earlier diagnosis"),
    (["good.npy", "--output", "project"], "earlier diagnosis"),
    (["good.npy", "--output", "/dev/null/x"], "/dev/null"),
    (["empty"], "recipe.toml"),
    (["good.npy", "--anchor", "x"], "x"),
]


@pytest.mark.parametrize(("words", "says"), REFUSALS, ids=[" ".join(words) for words, _ in REFUSALS])
def test_what_cannot_be_used_is_refused_and_nothing_is_written(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = sphere(300, 5)
    np.save("good.npy", good)
    np.save("few.npy", good[:100])
    np.save("other.npy", sphere(300, 6))
    bad = good.copy()
    bad[7, 2] = np.nan
    np.save("nan.npy", bad)
    np.save("collapsed.npy", np.ones((300, 5), np.float32) * np.linspace(1, 2, 300, dtype=np.float32)[:, None])
    (tmp_path / "short.txt").write_text("a\nb\nc\n")
    (tmp_path / "one.txt").write_text("a\n" * 300)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("mine")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "training.json").write_text("{}")  # a name that we use, beside work that is not ours
    (tmp_path / "project" / "train.py").write_text("mine")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    try:
        status = main(["diagnose", *words])
    except SystemExit as exit:  # an option that does not parse
        status = exit.code
    assert status == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_stop_leaves_the_earlier_diagnosis_or_nothing(sent, tmp_path):
    np.save(tmp_path / "e.npy", sphere(300_000, 32))  # far more than is searched before the signal comes
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-u", "-m", "weince", "diagnose", "e.npy", "--anchors", "20000"]
    running = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and all they start, are deaf to SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    mapped = str(tmp_path / "e.npy")
    while True:  # until it reads
        assert running.poll() is None
        assert time.monotonic() < deadline
        with open(f"/proc/{running.pid}/maps") as maps:
            if mapped in maps.read():
                break
        time.sleep(0.005)
    running.send_signal(sent)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    if sent == signal.SIGINT:
        assert errors.strip() == "Stopped. Nothing was written."
    assert [path.name for path in tmp_path.iterdir()] == ["e.npy"]
