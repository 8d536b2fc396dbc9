"""The whole command, in real processes."""

import io
import json
import re
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch

from commands import start
from weince.__main__ import main
from weince.lab.engine.plan import slug

SMALL = [
    "--losses",
    "infonce",
    "weince",
    "--temperatures",
    "0.2",
    "0.5",
    "--seeds",
    "1",
    "2",
    "--epochs",
    "1",
    "--device",
    "cpu",
]


def weince(*words):
    """The command in this process, whose libraries are imported already."""
    said, refused = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(refused), pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "100")
        try:
            status = main(list(map(str, words)))
        except SystemExit as exit:
            status = exit.code
    return SimpleNamespace(returncode=status, stdout=said.getvalue(), stderr=refused.getvalue())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    done = weince("compare", *SMALL, "--output", output)
    assert done.returncode == 0, done.stderr
    return output / "digits", done


def test_it_leaves_everything_it_promises(finished):
    folder, done = finished
    for name in ("recipe.toml", "trials.db", "result.json", "scores.csv", "report.html"):
        assert (folder / name).stat().st_size > 0
    runs = sorted(path.name for path in (folder / "runs").iterdir())
    assert len(runs) == 8
    for run in runs:
        inside = {path.name for path in (folder / "runs" / run).iterdir()}
        kept = {"history.csv", "validation.json", "held_out.npz", "encoder.safetensors", "projection.safetensors"}
        assert kept <= inside
        assert not [name for name in inside if name.endswith(".ckpt") or name.startswith(".")]
    result = json.loads((folder / "result.json").read_text())
    assert result["sentences"][0] in " ".join(done.stdout.split())


def test_only_the_reported_runs_were_scored_on_test_images(finished):
    folder, _ = finished
    result = json.loads((folder / "result.json").read_text())
    reported = {f"{row['arm']}-t{row['settings']['temperature']:g}-s{s}" for row in result["rows"] for s in (1, 2)}
    assert {path.parent.name for path in (folder / "runs").glob("*/test.json")} == reported
    assert {slug(r["arm"], r["settings"], r["seed"]) for r in result["runs"] if r["test"]} == reported


def test_the_report_comes_from_the_database_alone(finished, tmp_path):
    folder, _ = finished
    words = ["--storage", f"sqlite:///{folder / 'trials.db'}", "--name", "digits"]
    assert weince("compare", "report", tmp_path / "elsewhere", *words).returncode == 0
    for name in ("result.json", "scores.csv"):
        assert (tmp_path / "elsewhere" / name).read_text() == (folder / name).read_text()


def test_the_page_is_whole_and_asks_nothing_of_the_network(finished):
    folder, _ = finished
    page = (folder / "report.html").read_text(encoding="utf-8")

    class Sources(HTMLParser):
        found: list[str] = []  # noqa: RUF012
        tags: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.tags.append(tag)
            self.found.extend(value for name, value in attrs if name in ("src", "href", "srcset", "data"))

    parser = Sources()
    parser.feed(page)
    assert page.count("<svg ") == 1 + 1 + 5 + 3  # tried, paired, curves, histograms
    assert all(source.startswith(("#", "data:")) for source in parser.found)
    assert "link" not in parser.tags
    # Names of SVG's vocabularies are addresses that nobody opens.
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org|matplotlib|purl\.org|creativecommons)", page)
    assert str(folder) not in page


def test_the_same_command_repeats_nothing_and_more_seeds_add_to_it(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/*")}
    first = json.loads((folder / "result.json").read_text())
    extended = [word if word != "2" else "3" for word in SMALL]
    assert weince("compare", *SMALL, "--output", folder.parent).returncode == 0
    again = json.loads((folder / "result.json").read_text())
    assert first == again
    assert weince("compare", *extended, "--output", folder.parent).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((folder / "runs").iterdir())) == 12


def test_other_settings_in_the_same_folder_are_refused(finished):
    folder, _ = finished
    before = (folder / "recipe.toml").read_text()
    refused = weince("compare", *SMALL, "--output", folder.parent, "--learning-rate", "0.01", "--encoder", "resnet18")
    assert refused.returncode == 2
    assert "learning_rate: 0.001 there, 0.01 now" in refused.stderr
    assert "encoder: 'small' there, 'resnet18' now" in refused.stderr
    assert (folder / "recipe.toml").read_text() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--epochs", "0"], "`epochs`"),
        (["--data", "cifar10"], "`data_dir`"),
        (["--seeds", "1", "1"], "`seeds`"),
        (["--batch-size", "2000"], "`batch_size`"),
        (["--epochz", "3"], "--epochz"),
        (["--output", "/dev/null/runs"], "/dev/null"),
        (["--data", "cifar10", "--data-dir", "nowhere"], "nowhere"),
        (["--encoder", "resnet1"], "`encoder`"),
        (["--encoder", "convnext_atto"], "`encoder`"),
        (["none.toml"], "none.toml"),
    ]
    + ([] if torch.cuda.is_available() else [(["--device", "cuda"], "`device`")]),
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["compare", *words])
    except SystemExit as exit:  # an option that does not parse
        status = exit.code
    assert status == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_killed_comparison_continues_to_the_same_end(tmp_path):
    words = ["--losses", "infonce", "--temperatures", "0.2", "--seeds", "1", "--epochs", "6", "--device", "cpu"]
    assert weince("compare", *words, "--output", tmp_path / "whole").returncode == 0

    killed = start("compare", *words, "--output", tmp_path / "killed")
    folder = tmp_path / "killed" / "digits" / "runs" / "infonce-t0.2-s1"
    deadline = time.monotonic() + 120
    while not list(folder.glob("0000[1-4].ckpt")):
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    killed.kill()
    killed.communicate()
    assert not (folder / "validation.json").exists()

    assert weince("compare", *words, "--output", tmp_path / "killed").returncode == 0
    whole = tmp_path / "whole" / "digits" / "runs" / "infonce-t0.2-s1"
    for name in ("encoder.safetensors", "projection.safetensors", "test.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_two_commands_in_one_folder_share_the_work(finished, tmp_path):
    both = [start("compare", *SMALL, "--output", tmp_path) for _ in range(2)]
    told = [one.communicate(timeout=200)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    folder, _ = finished  # which other tests extend
    mine, whole = ((at / "scores.csv").read_text().splitlines() for at in (tmp_path / "digits", folder))
    assert {line for line in mine if ",validation," in line} <= set(whole)
    assert len(mine) == 1 + 6 * (8 + len([line for line in mine if ",test," in line]) // 6)


def test_without_the_lab_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules['tyro'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'tyro' else find(name, *rest)\n"
        "from weince.__main__ import main; sys.exit(main(['compare']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == "weince.lab needs tyro, which is not installed: pip install 'weince[lab]'"


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path):
    """At a learning rate of 1e30 every run diverges; each is finished and marked, and the command says so."""
    words = ["--losses", "infonce", "--temperatures", "0.2", "0.5", "--seeds", "1", "--epochs", "1", "--device", "cpu"]
    lost = weince("compare", *words, "--output", tmp_path, "--learning-rate", "1e30")
    assert lost.returncode == 2
    assert "InfoNCE diverged at every setting" in lost.stderr
    for path in (tmp_path / "digits" / "runs").glob("*/validation.json"):
        assert json.loads(path.read_text())["diverged"]


def test_a_recipe_of_another_version_is_named_as_such(finished):
    folder, _ = finished
    stored = folder / "recipe.toml"
    before = stored.read_text()
    stored.write_text("warmup = 3\n" + before)
    refused = weince("compare", *SMALL, "--output", folder.parent)
    stored.write_text(before)
    assert refused.returncode == 2
    assert "was written by another version" in refused.stderr
    assert "`warmup` is unknown" in refused.stderr
