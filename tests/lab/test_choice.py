"""What a comparison says of finished runs: choice, pairing, intervals, sentences, warnings."""

import json

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from weince.lab.engine.choice import Record, chosen, wanted
from weince.lab.engine.conclusion import concluded
from weince.lab.engine.outcomes import packed_all
from weince.lab.engine.plan import Arm, Plan, Point, Range
from weince.lab.intervals import Interval, p_value, paired, sampling_error, sentence
from weince.lab.tasks.recipe.images import METRICS, ImagesRecipe
from weince.shell.errors import UserError

RECIPE = ImagesRecipe(temperatures=(0.1, 0.2, 0.5), seeds=(1, 2, 3))
PLAN = RECIPE.plan()
MADE = {"commit": "a", "device": "b", "torch": "c"}
VALIDATION = {
    ("infonce", 0.1): 0.5, ("infonce", 0.2): 0.6, ("infonce", 0.5): 0.4,
    ("weince", 0.1): 0.7, ("weince", 0.2): 0.6, ("weince", 0.5): 0.5,
}  # fmt: skip
TEST = {("infonce", 0.5): 0.4, ("infonce", 0.2): 0.6, ("weince", 0.1): 0.65}


def record(arm, settings, seed, validation, test=None, diverged=False, metrics=METRICS):
    key = json.dumps(settings, sort_keys=True)
    found = {"scores": dict.fromkeys(metrics, validation + 0.01 * seed), "diverged": diverged, "seconds": 1.0}
    scored = None if test is None else {"scores": dict.fromkeys(metrics, test + 0.01 * seed)}
    return Record(
        Point(arm, key, (seed,), "test" if test is not None else ""), settings, seed, {**found, "made": MADE}, scored
    )


def records(validation=VALIDATION, test=TEST, plan=PLAN, diverged=(), metrics=METRICS):
    """Scores by (arm, temperature), the same for every metric, plus a little of the seed."""
    tried = [
        record(arm, {"temperature": t}, seed, score, diverged=(arm, t, seed) in diverged, metrics=metrics)
        for (arm, t), score in validation.items()
        for seed in plan.seeds
    ]
    reported = [
        record(arm, {"temperature": t}, seed, validation[arm, t], score, metrics=metrics)
        for (arm, t), score in test.items()
        for seed in plan.reported
    ]
    return tried + reported


def test_each_loss_gets_its_own_best_validation_temperature_beside_the_papers():
    result = concluded(PLAN, records(), METRICS)
    assert [row["label"] for row in result["rows"]] == [
        "InfoNCE at 0.5 (the paper's temperature)", "InfoNCE at 0.2 (tuned)", "WEINCE at 0.1 (tuned)",
    ]  # fmt: skip
    assert [(p.arm, json.loads(p.settings)["temperature"]) for p in wanted(PLAN, records()) if p.tested][:3] == [
        ("infonce", 0.2), ("weince", 0.1), ("infonce", 0.5),
    ]  # fmt: skip


def test_of_equal_settings_the_first_of_the_grid_is_taken_in_whatever_order_they_ended():
    same = records(dict.fromkeys(VALIDATION, 0.5), {})
    for order in (same, same[::-1]):
        assert chosen(PLAN, order) == dict.fromkeys(("infonce", "weince"), '{"temperature": 0.1}')


def test_judgement_pairs_seeds_and_warns_of_the_edge():
    result = concluded(PLAN, records(), METRICS)
    main = next(d for d in result["differences"] if d["metric"] == "recall_at_1" and d["arm"] == "weince")
    assert (main["of"], main["minus"], main["to"]) == ("WEINCE at 0.1 (tuned)", "InfoNCE at 0.2 (tuned)", "reference")
    assert main["by_seed"] == pytest.approx([0.05, 0.05, 0.05])
    assert result["sentences"][0].startswith("WEINCE is better")
    assert len(result["sentences"]) == 1
    assert [w for w in result["warnings"] if "WEINCE was best at temperature 0.1, an end" in w]
    assert not [w for w in result["warnings"] if "InfoNCE was best" in w]
    assert [row["mean"]["recall_at_1"] for row in result["rows"]] == pytest.approx([0.42, 0.62, 0.67])
    assert [row["sd"]["recall_at_1"] for row in result["rows"]] == pytest.approx([0.01] * 3)
    assert {d["to"] for d in result["differences"]} == {"reference", "usual"}
    assert len(result["runs"]) == 18  # one that is reported is counted once


def test_a_diverged_run_is_not_chosen_and_a_loss_that_always_diverges_is_said():
    lost = records(diverged={("weince", 0.1, 2)}, test={})
    assert chosen(PLAN, lost)["weince"] == '{"temperature": 0.2}'
    every = {("weince", t, seed) for t in (0.1, 0.2, 0.5) for seed in (1, 2, 3)}
    result = concluded(
        PLAN, records(test={k: v for k, v in TEST.items() if k[0] == "infonce"}, diverged=every), METRICS
    )
    assert {row["arm"] for row in result["rows"]} == {"infonce"}
    assert any("9 runs diverged" in text for text in result["warnings"])
    assert any("Without a setting that all seeds finished: WEINCE" in text for text in result["warnings"])
    with pytest.raises(UserError, match="InfoNCE diverged at every setting"):
        concluded(PLAN, records(diverged={("infonce", *key[1:]) for key in every}, test={}), METRICS)


def test_settings_without_all_seeds_are_not_chosen():
    some = [
        r
        for r in records(test={})
        if not (r.point.arm == "weince" and r.settings["temperature"] == 0.1 and r.seed == 3)
    ]
    assert chosen(PLAN, some)["weince"] == '{"temperature": 0.2}'
    assert not any(point.tested for point in wanted(PLAN, some))


def test_a_reference_tuned_to_the_papers_temperature_is_shown_once():
    validation = {(arm, t): t for arm, t in VALIDATION}
    test = {("infonce", 0.5): 0.4, ("weince", 0.5): 0.5}
    assert [row["kind"] for row in concluded(PLAN, records(validation, test), METRICS)["rows"]] == ["tuned", "tuned"]


def test_the_untrained_encoder_stands_beside_the_rows():
    untrained = {"name": "the untrained encoder", "validation": dict.fromkeys(METRICS, 0.9)}
    result = concluded(PLAN, records(), METRICS, {**untrained, "test": dict.fromkeys(METRICS, 0.8)})
    by_pair = {(d["of"], d["to"]): d["by_seed"] for d in result["differences"] if d["metric"] == "recall_at_1"}
    assert by_pair["WEINCE at 0.1 (tuned)", "untrained"] == pytest.approx([-0.14, -0.13, -0.12])
    assert result["sentences"][0].startswith("WEINCE is better")
    assert result["sentences"][-1].startswith("The untrained encoder is better")
    assert any("nothing is above the untrained encoder" in text for text in result["warnings"])


def test_an_arm_that_follows_takes_what_was_chosen_with_its_own_change():
    arms = {**PLAN.arms, "slope": Arm(loss="weince", follows="weince", tried={"gate.slope": ("unit",)})}
    plan = PLAN.model_copy(update={"arms": arms})
    settings = {"temperature": 0.1, "gate.slope": "unit"}
    found = [*records(), *(record("slope", settings, seed, 0.5, 0.7) for seed in plan.seeds)]
    result = concluded(plan, found, METRICS)
    assert result["rows"][-1]["label"] == "slope at 0.1, slope unit (follows WEINCE)"
    assert result["sentences"][-1].startswith("slope is better: slope at 0.1, slope unit (follows WEINCE) − WEINCE")
    assert {d["to"] for d in result["differences"] if d["arm"] == "slope"} == {"reference", "followed", "usual"}


def test_nothing_is_called_tuned_that_tried_one_setting():
    plan = ImagesRecipe(temperatures=(0.2,), seeds=(1, 2)).plan()
    table = {("infonce", 0.2): 0.5, ("weince", 0.2): 0.6}
    result = concluded(plan, records(table, table, plan), METRICS)
    assert [row["label"] for row in result["rows"]] == ["InfoNCE at 0.2", "WEINCE at 0.2"]
    assert any("none is tuned" in text for text in result["warnings"])


def test_drawn_settings_are_chosen_as_grids_are():
    arms = {name: Arm(loss=name, tried={"temperature": Range(low=0.1, high=1)}) for name in ("infonce", "weince")}
    plan = Plan(arms=arms, reference="infonce", select_by="recall_at_1", seeds=(1, 2), draws=2)
    found = [
        Record(Point(arm, f"draw {n}", (1, 2)), {"temperature": t}, seed,
               {"scores": dict.fromkeys(METRICS, t), "diverged": False, "seconds": 1.0, "made": MADE}, None)
        for arm in arms for n, t in enumerate((0.3, 0.4)) for seed in (1, 2)
    ]  # fmt: skip
    assert chosen(plan, found) == dict.fromkeys(arms, '{"temperature": 0.4}')


def test_interval_is_that_of_the_paired_t_test():
    values = np.random.default_rng(0).normal(0.01, 0.02, 7)
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert paired(values) == pytest.approx((values.mean(), expected.low, expected.high), rel=1e-12)


def test_interval_covers_as_often_as_it_says():
    """5,000 draws of five normal differences: coverage 0.95 within four standard errors, 4 * 0.0031."""
    draws = np.random.default_rng(1).normal(0.3, 1.0, (5000, 5))
    covered = np.mean([low <= 0.3 <= high for _, low, high in map(paired, draws)])
    assert abs(covered - 0.95) < 0.0124


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(0.02, 0.01, 0.03), "WEINCE is better"),
        (Interval(0.02, -0.01, 0.05), "No difference shown"),
        (Interval(0.02, 0.0, 0.04), "No difference shown"),
        (Interval(-0.02, -0.03, -0.01), "InfoNCE is better"),
        (Interval(0.02, None, None), "Nothing can be said"),
    ],
)
def test_the_sentence_says_no_more_than_the_interval(interval, verdict):
    assert sentence("WEINCE at 0.1", "InfoNCE at 0.2", "recall@1", interval, 3).startswith(verdict)


def _widening():
    arm = Arm(loss="infonce", tried={"temperature": (0.1, 0.2)}, reserve={"temperature": (0.02, 0.05, 0.5, 1.0)})
    plan = Plan(arms={"infonce": arm}, reference="infonce", select_by="recall_at_1", seeds=(1, 2), widen=2)
    best_at = {0.1: 0.5, 0.2: 0.4, 0.05: 0.6, 0.02: 0.7}
    return plan, lambda *temperatures: [
        record("infonce", {"temperature": t}, seed, best_at[t]) for t in temperatures for seed in plan.seeds
    ]


def test_a_grid_is_widened_while_its_best_setting_lies_at_an_end_and_no_further_than_asked():
    plan, some = _widening()

    def asked(*temperatures):
        found = {json.loads(p.settings)["temperature"] for p in wanted(plan, some(*temperatures)) if not p.tested}
        return sorted(found)

    assert asked() == asked(0.1) == [0.1, 0.2]
    assert asked(0.1, 0.2) == [0.05, 0.1, 0.2]
    assert asked(0.1, 0.2, 0.05) == asked(0.1, 0.2, 0.05, 0.02) == [0.02, 0.05, 0.1, 0.2]
    assert not any(p.tested for p in wanted(plan, some(0.1, 0.2, 0.05)))
    reported = [p for p in wanted(plan, some(0.1, 0.2, 0.05, 0.02)) if p.tested]
    assert {json.loads(p.settings)["temperature"] for p in reported} == {0.02}
    tested = [record("infonce", {"temperature": 0.02}, seed, 0.7, 0.7) for seed in plan.seeds]
    result = concluded(plan, some(0.1, 0.2, 0.05, 0.02) + tested, METRICS)
    assert result["rows"][0]["tried"] == 4
    assert any("was best at temperature 0.02, an end of its grid" in text for text in result["warnings"])


def test_a_grid_whose_best_setting_lies_inside_is_not_widened_and_a_diverged_one_is_no_end():
    plan, some = _widening()
    inside = plan.model_copy(update={"arms": {"infonce": plan.arms["infonce"].model_copy(
        update={"tried": {"temperature": (0.05, 0.1, 0.2)}})}})  # fmt: skip
    high = [r._replace(validation={**r.validation, "scores": dict.fromkeys(METRICS, 0.9)}) for r in some(0.1)]
    assert len({p.settings for p in wanted(inside, [*some(0.05, 0.2), *high]) if not p.tested}) == 3
    lost = [r._replace(validation={**r.validation, "diverged": True}) for r in some(0.05)]
    found = {json.loads(p.settings)["temperature"] for p in wanted(plan, [*some(0.1, 0.2), *lost]) if not p.tested}
    assert found == {0.05, 0.1, 0.2}  # what lies beyond a setting that diverged is not tried


def test_seeds_that_agree_are_no_certainty_the_test_set_has_its_own_error():
    rng = np.random.default_rng(0)
    hits = {loss: [(rng.random(400) < share).astype(float) for _ in range(2)]
            for loss, share in (("infonce", 0.8), ("weince", 0.8))}  # fmt: skip
    for loss in hits:  # equal scores from both seeds
        hits[loss] = [hits[loss][0], hits[loss][0]]
    plan = Plan(arms={loss: Arm(loss=loss) for loss in hits}, reference="infonce", select_by="accuracy", seeds=(1, 2))
    runs = []
    for loss, by_seed in hits.items():
        for seed, one in zip(plan.seeds, by_seed, strict=True):
            run = record(loss, {}, seed, 0.5, metrics=["accuracy"])
            test = {"scores": {"accuracy": float(one.mean())}, "outcomes": packed_all({"accuracy": one})}
            runs += [run, run._replace(point=run.point._replace(tested="test"), test=test)]
    result = concluded(plan, runs, {"accuracy": "accuracy"})
    (found,) = result["differences"]
    by_example = hits["weince"][0] - hits["infonce"][0]
    error = by_example.std(ddof=1) / np.sqrt(400)
    assert found["sampling_error"] == pytest.approx(error)
    assert found["high"] - found["mean"] == pytest.approx(norm.ppf(0.975) * error)
    assert found["p"] == pytest.approx(2 * norm.sf(abs(found["mean"]) / error))
    assert "outcomes" not in json.dumps(result)
    narrow = paired([0.01, 0.01])
    assert narrow.low == narrow.high == 0.01  # what nothing is known of stays as it was
    assert p_value([0.01, 0.01]) is None
    assert p_value([0.01, 0.02, 0.03]) == pytest.approx(ttest_1samp([0.01, 0.02, 0.03], 0).pvalue)


def test_the_interval_with_a_floor_covers_what_new_seeds_and_a_new_test_set_would_show_about_as_often_as_it_says():
    # 400 examples, two losses of equal expected score, three seeds: hits agree between losses as much as between seeds.
    rng, covered, by_seeds_alone = np.random.default_rng(1), 0, 0
    for _ in range(1000):
        level = rng.normal(1.2, 1.0, 400)
        hits = (level[None, None] + rng.normal(0, 1.0, (2, 1, 400)) + rng.normal(0, 0.3, (2, 3, 400)) > 0).astype(float)
        ours, theirs = list(hits[0]), list(hits[1])
        differences = [float(a.mean() - b.mean()) for a, b in zip(ours, theirs, strict=True)]
        wide, narrow = paired(differences, sampling_error(ours, theirs)), paired(differences)
        covered += wide.low <= 0 <= wide.high
        by_seeds_alone += narrow.low <= 0 <= narrow.high
    assert covered / 1000 > 0.93
    assert by_seeds_alone / 1000 < 0.85
