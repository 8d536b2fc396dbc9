"""A training loop of a user: any criterion, tuned alike, resumable, paired, with the page."""

import functools
import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from commands import Running
from examples import load
from weince import INFONCE, InfoNCELoss, QueueLoss, RetrievalLoss, SupervisedLoss, TwoTowerLoss, WEINCELoss
from weince.lab import Arm, Range, compare
from weince.lab.intervals import sampling_error
from weince.shell.errors import UserError

SETTINGS = {
    "two views": (WEINCELoss, InfoNCELoss, lambda c, a, b, labels: c(a, b)),
    "two towers": (TwoTowerLoss, functools.partial(TwoTowerLoss, gate=INFONCE), lambda c, a, b, labels: c(a, b)),
    "labels": (SupervisedLoss, functools.partial(SupervisedLoss, gate=INFONCE), lambda c, a, b, labels: c(a, labels)),
    "retrieval": (RetrievalLoss, functools.partial(RetrievalLoss, gate=INFONCE), lambda c, a, b, labels: c(a, b)),
    "queue": (
        functools.partial(QueueLoss, 64, 8),
        functools.partial(QueueLoss, 64, 8, gate=INFONCE),
        lambda c, a, b, labels: c(a, b.detach()),
    ),
}


def loop(ask, calls=None):
    """A linear encoder of random points near eight centres; its score is how near the centre's own points are."""

    def train(criterion, seed, folder):
        if calls is not None:
            calls.append((seed, folder.name))
        generator = torch.Generator().manual_seed(seed)
        centres = torch.randn(8, 16, generator=generator)
        weights = torch.nn.Parameter(torch.randn(16, 8, generator=generator) / 4)
        optimizer = torch.optim.SGD([weights], 0.3)
        for _ in range(4):
            labels = torch.arange(32) % 8
            x, y = (centres[labels] + 0.3 * torch.randn(32, 16, generator=generator) for _ in range(2))
            optimizer.zero_grad()
            ask(criterion, x @ weights, y @ weights, labels).backward()
            optimizer.step()
        np.save(folder / "weights.npy", weights.detach().numpy())
        return score(weights.detach(), centres, 1)

    def test(criterion, seed, folder):
        centres = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
        return score(torch.from_numpy(np.load(folder / "weights.npy")), centres, 2)

    def score(weights, centres, seed):
        x = centres + 0.3 * torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
        z, c = (torch.nn.functional.normalize(rows @ weights, dim=1) for rows in (x, centres))
        return {"nearest": float(((z @ c.T).argmax(1) == torch.arange(8)).float().mean()),
                "similarity": float((z * c).sum(1).mean())}  # fmt: skip

    return train, test


METRICS = {"similarity": "mean similarity", "nearest": "accuracy"}
GRID = (0.1, 0.3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_criterion_of_any_setting(setting, tmp_path, capsys):
    ours, infonce, ask = SETTINGS[setting]
    train, test = loop(ask)
    result = compare(
        train, test=test, metrics=METRICS, seeds=(1, 2), confirm_seeds=(3, 4), folder=tmp_path / "own",
        arms={"InfoNCE": Arm(infonce, temperature=GRID), "WEINCE": Arm(ours, temperature=GRID)},
    )  # fmt: skip
    assert [row["arm"] for row in result["rows"]] == ["InfoNCE", "WEINCE"]
    assert result["seeds"] == [3, 4]
    assert json.loads((tmp_path / "own" / "result.json").read_text()) == result
    assert result["sentences"][0] in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "own" / "report.html").stat().st_size > 10_000


def arms(**more):
    return {"InfoNCE": Arm(InfoNCELoss, temperature=GRID), "WEINCE": Arm(WEINCELoss, temperature=GRID), **more}


def test_what_is_finished_is_not_done_again_and_test_data_are_for_what_is_reported(tmp_path):
    calls, tested = [], []
    train, test = loop(SETTINGS["two views"][2], calls)

    def counted(criterion, seed, folder):
        tested.append((seed, folder.name))
        return test(criterion, seed, folder)

    options = {"arms": arms(), "seeds": (1, 2), "folder": tmp_path, "metrics": METRICS, "quiet": True}
    first = compare(train, test=counted, **options)
    assert len(calls) == len(set(calls)) == 8
    assert len(tested) == 4
    assert compare(train, test=counted, **options) == first
    assert (len(calls), len(tested)) == (8, 4)
    wider = compare(train, test=counted, **{**options, "seeds": (1, 2, 3)})
    assert len(calls) == 12
    assert wider["seeds"] == [1, 2, 3]


def killed_at(folder, die):
    """A script that is killed when `die` trials are done."""
    train, test = loop(SETTINGS["two views"][2])

    def dying(criterion, seed, place):
        if die and len(list(folder.glob("runs/*/validation.json"))) == die:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(criterion, seed, place)

    compare(dying, test=test, arms=arms(), seeds=(1, 2), folder=folder, metrics=METRICS, quiet=True)


def test_a_killed_script_goes_on_and_ends_as_an_undisturbed_one(tmp_path):
    for name, die, status in (("whole", 0, 0), ("killed", 3, -signal.SIGKILL), ("killed", 0, 0)):
        script = Running(killed_at, tmp_path / name, die)
        said, _ = script.communicate(timeout=100)
        assert script.returncode == status, said
    scores = [(tmp_path / name / "scores.csv").read_text() for name in ("whole", "killed")]
    assert scores[0] == scores[1]


def test_one_number_no_test_and_drawn_settings(tmp_path):
    def train(criterion, seed, folder):
        return 1 - (criterion.temperature - 0.3) ** 2 + seed / 1000

    # Whatever a loop can use: here a criterion that only carries its setting.
    drawn = {name: Arm(SimpleNamespace, temperature=Range(low=0.05, high=1.0, log=True)) for name in ("a", "b")}
    result = compare(train, arms=drawn, seeds=(1, 2), folder=tmp_path, draws=3, sampler="random", quiet=True)
    assert len(result["runs"]) == 2 * 3 * 2
    assert "no test function" in result["facts"][0]


def test_scores_that_are_not_finite_are_out(tmp_path):
    def train(criterion, seed, folder):
        return float("nan") if criterion.temperature < 0.2 else 0.5

    plain = {name: Arm(SimpleNamespace, temperature=GRID) for name in ("a", "b")}
    result = compare(train, arms=plain, seeds=(1, 2), folder=tmp_path, quiet=True)
    assert {row["settings"]["temperature"] for row in result["rows"]} == {0.3}
    assert any("diverged" in text for text in result["warnings"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": {}}, "arms"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "names a seed twice"),
        ({"confirm_seeds": (1,)}, "must be others"),
        ({"reference": "none"}, "none of the arms"),
        ({"select_by": "none"}, "`select_by`"),
        ({"settings": {"x": object()}}, "`settings`"),
        (
            {"arms": {"a": Arm(InfoNCELoss, temperature=[0.1]), "b": Arm(InfoNCELoss, temperature=[])}},
            "without a value",
        ),
        ({"arms": {"a b": Arm(InfoNCELoss)}}, "a b"),
        ({"arms": {"a": Arm(InfoNCELoss, heat=0.1)}}, "makes no criterion"),
        ({"arms": {"a": Arm(InfoNCELoss, temperature=-1.0)}}, "makes no criterion"),
        ({"metrics": {"other": "other"}}, "should return the scores"),
        ({"sampler": "grid"}, "sampler"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_sentence(change, says, tmp_path):
    def train(criterion, seed, folder):
        return {"score": 0.5}

    with pytest.raises(UserError) as refused:
        compare(train, **{"arms": arms(), "seeds": (1, 2), "folder": tmp_path / "own", "quiet": True, **change})
    assert says in str(refused.value)


def test_a_folder_of_other_settings_is_refused(tmp_path):
    def train(criterion, seed, folder):
        return 0.5

    options = {"arms": arms(), "seeds": (1, 2), "folder": tmp_path, "quiet": True}
    compare(train, settings={"epochs": 3}, **options)
    with pytest.raises(UserError, match="epochs: 3 there, 4 now"):
        compare(train, settings={"epochs": 4}, **options)


def test_the_example_with_lightly_runs_and_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("lightly")
    example = load("compare_own_loop")
    monkeypatch.setattr(example, "STEPS", 2)
    first = example.main(str(tmp_path), (0.3,))
    assert [row["arm"] for row in first["rows"]] == ["InfoNCE", "WEINCE"]
    assert all(0.2 < row["mean"]["knn"] < 1 for row in first["rows"])
    monkeypatch.setattr(example, "train", None)  # nothing is trained again
    assert example.main(str(tmp_path), (0.3,)) == first


FORMS = {
    "list": list, "array": np.asarray, "tensor": torch.tensor, "list of tensors": lambda hits: [*torch.tensor(hits)],
    "with a graph": lambda hits: torch.tensor(hits, dtype=torch.bfloat16, requires_grad=True),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_number_for_each_example_gives_intervals_a_floor(form, tmp_path):
    """Two seeds that agree to the digit are no certainty of 40 examples."""
    hits = {"InfoNCE": [1.0] * 20 + [0.0] * 20, "WEINCE": [1.0] * 22 + [0.0] * 18}

    def train(criterion, seed, folder):
        return 0.5

    def test(criterion, seed, folder):
        return {"score": form(hits[folder.name.split("-")[0]])}

    options = {"seeds": (1, 2), "quiet": True, "arms": {"InfoNCE": Arm(InfoNCELoss), "WEINCE": Arm(WEINCELoss)}}
    result = compare(train, test=test, folder=tmp_path / "floor", **options)
    (one,) = result["differences"]
    error = np.std([1.0] * 2 + [0.0] * 38, ddof=1) / np.sqrt(40)
    assert one["by_seed"] == pytest.approx([0.05, 0.05])
    assert one["sampling_error"] == pytest.approx(error)
    assert one["low"] == pytest.approx(0.05 - 1.96 * error, abs=1e-3)

    def mean(criterion, seed, folder):
        return float(np.mean(hits[folder.name.split("-")[0]]))

    bare = compare(train, test=mean, folder=tmp_path / "bare", **options)
    (one,) = bare["differences"]
    assert one["sampling_error"] is None
    assert one["low"] == pytest.approx(0.05)


@pytest.mark.parametrize(("score", "says"), [([[1.0]], r"\(1, 1\)"), ([], r"\(0,\)"), (["x"], "return numbers")])
def test_a_score_that_is_no_number_and_no_row_of_numbers_is_refused(score, says, tmp_path):
    with pytest.raises(UserError, match=says):
        compare(lambda *of: score, arms={"InfoNCE": Arm(InfoNCELoss)}, seeds=(1,), folder=tmp_path, quiet=True)


def test_seeds_of_other_examples_have_no_common_sampling_error():
    assert sampling_error([np.ones(3), np.ones(4)], [np.zeros(3), np.zeros(4)]) == 0.0
    assert sampling_error([np.ones(1)], [np.zeros(1)]) == 0.0


def test_scores_are_kept_to_the_last_digit_and_examples_without_a_test_function_give_a_floor_too(tmp_path):
    options = {"seeds": (1, 2), "quiet": True, "arms": {"InfoNCE": Arm(InfoNCELoss), "WEINCE": Arm(WEINCELoss)}}
    kept = compare(lambda *of: 0.8, folder=tmp_path / "digit", **options)
    assert kept["rows"][0]["by_seed"]["score"] == [0.8, 0.8]
    found = compare(lambda c, seed, folder: [1.0, 0.0, 1.0, seed % 2], folder=tmp_path / "examples", **options)
    assert found["rows"][0]["by_seed"]["score"] == [0.75, 0.5]
    assert found["differences"][0]["sampling_error"] is None  # the same outcomes: no error
