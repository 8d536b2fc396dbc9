"""The store, without training: who gets which trial, what comes back, and what is never lost."""

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from weince.lab.engine.choice import wanted
from weince.lab.engine.conclusion import concluded
from weince.lab.engine.database import Patience
from weince.lab.engine.plan import Arm, Plan, Range
from weince.lab.engine.store import ATTEMPTS, Store
from weince.shell.errors import UserError

PLAN = Plan(
    arms={"infonce": Arm(loss="infonce", tried={"temperature": (0.1, 0.2)})}, reference="infonce", select_by="recall",
    seeds=(1, 2),
)  # fmt: skip
DRAWN = PLAN.model_copy(
    update={
        "arms": {"infonce": Arm(loss="infonce", tried={"temperature": Range(low=0.02, high=1.0, log=True)})},
        "sampler": "random",
        "draws": 3,
    }
)
MADE = {"commit": "c", "device": "d", "torch": "t"}
METRICS = {"recall": "recall@1"}


def run(score, diverged=False, tested=True):
    return {
        "validation": {"scores": {"recall": score}, "diverged": diverged, "seconds": 1.0, "made": MADE},
        "test": {"scores": {"recall": score / 2}} if tested else None,
    }


def origin(held):
    return {}


def published(url, plan=PLAN, name="s", patience=Patience()):
    store = Store(url, name, patience)
    store.publish(plan, origin, lambda held: [])
    return store


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 's.db'}"


def test_drawn_settings_are_as_many_as_asked_and_come_back_as_they_were(url):
    with closing(published(url, DRAWN)) as store:
        first, _ = store.claim(DRAWN)
        store.give_up(first, "an error")
        seen = []
        while (claim := store.claim(DRAWN)[0]) is not None and not claim.point.tested:
            assert 0.02 <= claim.settings["temperature"] <= 1.0
            assert store.tell(claim, {str(seed): run(0.5) for seed in claim.point.seeds}, 0.5)
            seen.append(claim)
        assert len(seen) == 3
        again = next(claim for claim in seen if claim.point == first.point)
        assert again.settings == first.settings
        assert len(store.records(DRAWN)) == 3 * 2


def test_a_silent_worker_loses_its_trial_and_cannot_commit_it_afterwards(url):
    quick = Patience(beat=1, dead=1)
    with closing(published(url, patience=quick)) as silent, closing(Store(url, "s", quick)) as other:
        lost, _ = silent.claim(PLAN)
        assert other.claim(PLAN)[0].point != lost.point
        time.sleep(2.5)  # the database counts whole seconds
        assert other.claim(PLAN)[0].point == lost.point
        assert not silent.tell(lost, {"1": run(0.5)}, 0.5)


def test_the_trial_of_a_process_that_is_gone_comes_back_at_once(url):
    """A real process that claims and is killed: the same command need not wait until silence proves it."""
    program = (
        "import os, sys\nsys.path[:0] = [sys.argv[2]]\nfrom test_store import PLAN, Store\n"
        "claim, _ = Store(sys.argv[1], 's').claim(PLAN)\nprint(claim.point.seeds[0], flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    with closing(published(url)) as store:
        words = [sys.executable, "-W", "ignore", "-c", program, url, str(Path(__file__).parent)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)
        assert ran.returncode == -9, ran.stderr
        mine = store.claim(PLAN)[0]
        assert mine.point.seeds == (int(ran.stdout),)
        # One that lives keeps its own, as does one of another machine, of which nothing is known here.
        assert store.claim(PLAN)[0].point != mine.point
        store.storage.set_trial_user_attr(mine.trial_id, "worker", ["another boot", 2**22 + 1])
        assert store.claim(PLAN)[0].point != mine.point


def test_a_worker_that_shows_life_keeps_its_trial_however_long_it_takes(url):
    quick = Patience(beat=0.3, dead=2)
    with closing(published(url, patience=quick)) as busy, closing(Store(url, "s", quick)) as other:
        mine, _ = busy.claim(PLAN)
        with busy.beating(mine, lambda: 0.25):
            time.sleep(4)
            assert other.claim(PLAN)[0].point != mine.point
            done, whole = other.done(PLAN)
        assert (done, whole) == (0.25, 4)
        assert busy.tell(mine, {"1": run(0.5)}, 0.5)


def test_a_point_that_always_fails_is_given_up_and_stopping_by_hand_is_no_failure(url):
    plan = PLAN.model_copy(update={"arms": {"infonce": Arm(loss="infonce", tried={"temperature": (0.1,)})}})
    with closing(published(url, plan)) as store:
        for _ in range(2 * ATTEMPTS):
            store.give_back(store.claim(plan)[0])
        attempts = 0
        while (claim := store.claim(plan)[0]) is not None:
            store.give_up(claim, "an error")
            attempts += 1
        assert attempts == ATTEMPTS * 2
        with pytest.raises(UserError, match="no complete setting"):
            concluded(plan, store.records(plan), METRICS)


def test_test_data_are_asked_for_the_chosen_settings_alone_and_after_all_have_been_tried(url):
    arms = {name: Arm(loss=name, tried={"temperature": (0.1, 0.2)}) for name in ("infonce", "weince")}
    arms["dcl"] = Arm(loss="dcl", follows="infonce")
    plan = PLAN.model_copy(update={"arms": arms, "confirm_seeds": (8, 9)})
    score = {("infonce", 0.1): 0.6, ("infonce", 0.2): 0.5, ("weince", 0.1): 0.3, ("weince", 0.2): 0.7, ("dcl", 0.2): 0}
    with closing(published(url, plan)) as store:
        order = []
        while (claim := store.claim(plan)[0]) is not None:
            (seed,) = claim.point.seeds
            key = (claim.point.arm, claim.settings["temperature"])
            # The best of InfoNCE diverges from one seed: it is not eligible.
            diverged = key == ("infonce", 0.1) and seed == 2
            store.tell(claim, {str(seed): run(score[key] + seed / 1000, diverged, claim.point.tested)}, score[key])
            order.append((seed, claim.point.tested, key[0]))
        records = store.records(plan)
    assert [seed for seed, *_ in order] == [1] * 4 + [2] * 4 + [8] * 2 + [9] * 2 + [8, 9]
    assert [bool(tested) for _, tested, _ in order] == [False] * 8 + [True] * 6
    assert [arm for *_, arm in order[-2:]] == ["dcl", "dcl"]
    result = concluded(plan, records, METRICS)
    assert result["seeds"] == [8, 9]
    rows = {row["arm"]: row for row in result["rows"]}
    assert rows["infonce"]["settings"] == rows["weince"]["settings"] == rows["dcl"]["settings"] == {"temperature": 0.2}
    assert rows["weince"]["mean"]["recall"] == pytest.approx((0.7 + 0.0085) / 2)
    difference = next(d for d in result["differences"] if d["arm"] == "weince")
    assert difference["by_seed"] == pytest.approx([0.1, 0.1])
    assert any("diverged" in text for text in result["warnings"])
    assert {(r["arm"], r["seed"]) for r in result["runs"] if r["test"] is not None} == {
        (arm, seed) for arm in arms for seed in (8, 9)
    }


def test_a_comparison_grows_keeps_what_is_done_and_refuses_another_origin(url):
    def other(held):
        return ["batch_size: 64 there, 32 now"] if held["batch"] != 32 else []

    with closing(published(url)) as store, closing(Store(url, "s")) as worker:
        claim, left = store.claim(PLAN)
        assert left == len(PLAN.points()) == 4
        more = PLAN.model_copy(update={"seeds": (*PLAN.seeds, 9)})
        store.publish(more, origin, lambda held: [])
        seen = {claim.point}
        while (taken := worker.claim(more))[0] is not None:
            assert taken[0].point not in seen
            seen.add(taken[0].point)
        assert seen == set(more.points()) == set(wanted(more, []))
        with pytest.raises(UserError, match="batch_size"):
            store.publish(more, origin, lambda held: other({"batch": 64}))
        changed = {"infonce": Arm(loss="dcl", tried={"temperature": (0.1, 0.2)})}
        with pytest.raises(UserError, match="another loss"):
            store.publish(PLAN.model_copy(update={"arms": changed}), origin, lambda held: [])


@pytest.mark.parametrize("name", ["run 50%41", "why?", 'it\'s "this"', "a#b&c=d", "{x}", "%", "ünïcode"])
def test_any_folder_that_can_be_made_holds_a_store(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    with closing(published(f"sqlite:///{folder / 'trials.db'}")) as store:
        claim, _ = store.claim(PLAN)
        store.tell(claim, {"1": run(0.5)}, 0.5)
    assert {path.name for path in folder.iterdir()} == {"trials.db", ".trials.db.lock"}
    assert list(tmp_path.iterdir()) == [folder]
    with closing(Store(f"sqlite:///{folder / 'trials.db'}", "s")) as again:
        assert len(again.records(PLAN)) == 1


def test_what_is_no_store_is_said_and_no_password_is(tmp_path):
    (tmp_path / "text.db").write_text("no database at all " * 100)
    with pytest.raises(UserError, match="not a database of trials"):
        Store(f"sqlite:///{tmp_path / 'text.db'}", "s")
    with pytest.raises(UserError) as away:
        Store("postgresql://me:secret@127.0.0.1:9/none", "s", Patience(away=0.5))
    assert "could not be reached for 0.5 s" in str(away.value)
    assert "secret" not in str(away.value)
