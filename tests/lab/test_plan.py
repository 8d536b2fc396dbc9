"""Plans, and the trials that come of them, without training."""

from contextlib import closing
from pathlib import Path

import pytest

from weince.__main__ import main
from weince.lab.engine.plan import read_plan
from weince.lab.engine.result import METRICS
from weince.lab.engine.study import chosen, concluded, wanted
from weince.lab.engine.trials import ATTEMPTS, STOPPED, Patience, Trials
from weince.shell.errors import UserError

RUNS = Path(__file__).parents[2] / "runs"
HEAD = 'data = "digits"\nseeds = [1, 2]\n'
GRID = "[study.arms.infonce]\nloss = 'infonce'\ntemperature = [0.1, 0.2]\n"
RANGE = "[study]\ntrials = 3\nsampler = 'random'\n[study.arms.infonce]\nloss = 'infonce'\n"
RANGE += "temperature = {low = 0.02, high = 1.0, log = true}\n"


def plan_of(text, tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(HEAD + text)
    return read_plan(path, {"output": tmp_path})


def run(score, diverged=False):
    scores = dict.fromkeys(METRICS, score)
    made = {"commit": "c", "device": "d", "torch": "t"}
    return {
        "validation": {"scores": scores, "diverged": diverged, "train_seconds": 1.0, "made": made},
        "test": {"scores": {m: s / 2 for m, s in scores.items()}},
    }


def test_the_papers_grid_tries_as_many_settings_of_both_losses():
    plan = read_plan(RUNS / "paper_grid.toml", {})
    assert [plan.count(arm) for arm in plan.arms] == [27, 27]
    assert len(plan.points()) == len(set(plan.points())) == 2 * 27 * 4
    assert {point.seeds for point in plan.points()[:54]} == {(7,)}  # whole pairs first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "[study.arms.NAME]"),
        (GRID + "[study.arms.weince]\nloss = 'weince'\ntemperature = [0.1, 0.2, 0.3]\n", "equally many"),
        (GRID + "[study.arms.weince]\nloss = 'weince'\n'gate.kappa' = [1.0, 2.0]\n", "`gate.kappa` is unknown"),
        (
            GRID + "[study.arms.weince]\nloss = 'weince'\n'gate.quantile' = [0.5, 2.0]\n",
            "`quantile` should be in (0, 1]",
        ),
        (GRID + "[study.arms.weince]\nloss = 'weince'\nsubset = [100, 200]\n", "an arm varies temperature"),
        (GRID.replace("'infonce'", "'weince'"), 'must have loss "infonce"'),
        ("[study]\nconfirm_seeds = [2]\n" + GRID, "`confirm_seeds` must be others"),
        (GRID.replace("0.2", "-0.2"), "greater than 0"),
        (GRID + "[study.arms.dcl]\nloss = 'dcl'\nfollows = 'other'\n", "should follow an arm"),
        (GRID + "[study.arms.dcl]\nloss = 'dcl'\nfollows = 'infonce'\ntemperature = [0.1, 0.3]\n", "one value"),
        (GRID + "[study.arms.dcl]\nloss = 'dcl'\n'rivals.class_prior' = 2.0\n", "`class_prior` should be in"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(text, says, tmp_path):
    with pytest.raises(UserError) as refused:
        plan_of(text, tmp_path)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.toml"], "none.toml"),
        (["work", "runs/none"], "no study.db"),
        (["report", "runs/none", "--storage", "mysql://x"], "`--storage`"),
        (["report", ".", "--storage", "sqlite:///study.db", "--name", "other"], "no study 'other'"),
    ],
)
def test_the_command_refuses_in_one_sentence(words, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    assert says in capsys.readouterr().err


def test_drawn_settings_are_as_many_as_asked_and_come_back_as_they_were(tmp_path):
    plan = plan_of(RANGE, tmp_path)
    with closing(Trials(f"sqlite:///{tmp_path / 's.db'}", "s")) as trials:
        trials.publish(plan, "images")
        first, _ = trials.claim(plan, wanted)
        trials.give_up(first, "an error")
        seen = []
        while (claim := trials.claim(plan, wanted)[0]) is not None:
            assert 0.02 <= claim.settings["temperature"] <= 1.0
            assert trials.tell(claim, {str(seed): run(0.5) for seed in claim.point.seeds}, 0.5)
            seen.append(claim)
        assert len(seen) == 3
        again = next(claim for claim in seen if claim.point == first.point)
        assert again.settings == first.settings
        assert len(trials.records(plan)) == 3 * 2


def test_a_silent_worker_loses_its_trial_and_cannot_commit_it_afterwards(tmp_path):
    plan = plan_of(GRID, tmp_path)
    url = f"sqlite:///{tmp_path / 's.db'}"
    with closing(Trials(url, "s")) as silent, closing(Trials(url, "s", Patience(dead=0.0))) as other:
        silent.publish(plan, "images")
        lost, _ = silent.claim(plan, wanted)
        other.claim(plan, wanted)  # sees its beat
        taken = [other.claim(plan, wanted)[0] for _ in range(2)]  # and sees it again
        assert lost.point in [claim.point for claim in taken]
        assert not silent.tell(lost, {"1": run(0.5)}, 0.5)


def test_a_point_that_always_fails_is_given_up(tmp_path):
    plan = plan_of(GRID.replace(", 0.2", ""), tmp_path)
    with closing(Trials(f"sqlite:///{tmp_path / 's.db'}", "s")) as trials:
        trials.publish(plan, "images")
        for _ in range(2 * ATTEMPTS):  # stopping by hand is no error
            trials.give_up(trials.claim(plan, wanted)[0], STOPPED)
        attempts = 0
        while (claim := trials.claim(plan, wanted)[0]) is not None:
            trials.give_up(claim, "an error")
            attempts += 1
        assert attempts == ATTEMPTS * 2
        with pytest.raises(UserError, match="no complete setting"):
            concluded(plan, trials.records(plan))


def test_settings_are_chosen_on_validation_from_complete_seeds_and_reported_on_test(tmp_path):
    text = (
        "[study]\nconfirm_seeds = [8, 9]\n"
        + GRID
        + GRID.replace("arms.infonce", "arms.weince").replace("= 'infonce'", "= 'weince'")
    )
    plan = plan_of(text, tmp_path)
    score = {("infonce", 0.1): 0.6, ("infonce", 0.2): 0.5, ("weince", 0.1): 0.3, ("weince", 0.2): 0.7}
    with closing(Trials(f"sqlite:///{tmp_path / 's.db'}", "s")) as trials:
        trials.publish(plan, "images")
        order = []
        while (claim := trials.claim(plan, wanted)[0]) is not None:
            (seed,) = claim.point.seeds
            key = (claim.point.arm, claim.settings["temperature"])
            # The best of InfoNCE diverges from one seed: it is not eligible.
            diverged = key == ("infonce", 0.1) and seed == 2
            trials.tell(claim, {str(seed): run(score[key] + seed / 1000, diverged)}, score[key])
            order.append(seed)
        assert order == [1] * 4 + [2] * 4 + [8] * 2 + [9] * 2  # other seeds only when all have been tried
        records = trials.records(plan)
    assert chosen(plan, records) == {"infonce": '{"temperature": 0.2}', "weince": '{"temperature": 0.2}'}
    result = concluded(plan, records)
    assert result["seeds"] == [8, 9]
    assert result["rows"][1]["mean"]["recall_at_1"] == pytest.approx((0.7 + 0.0085) / 2)
    difference = next(d for d in result["differences"] if d["metric"] == "recall_at_1")
    assert difference["by_seed"] == pytest.approx([0.1, 0.1])
    assert any("diverged" in text for text in result["warnings"])
