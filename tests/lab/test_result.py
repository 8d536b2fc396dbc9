import numpy as np
import pytest
from scipy.stats import ttest_1samp

from weince.lab.engine.result import METRICS, choose, judge, tidy
from weince.lab.intervals import Interval, paired, sentence
from weince.lab.tasks.recipe import Recipe, Run
from weince.shell.errors import UserError

RECIPE = Recipe(temperatures=(0.1, 0.2, 0.5), seeds=(1, 2, 3))


def scored(table, recipe=RECIPE):
    """Scores by (loss, temperature), the same for every metric, plus a little of the seed."""
    return {
        Run(loss, t, seed): {
            "scores": dict.fromkeys(METRICS, score + 0.01 * seed),
            "probe": {"inverse_penalty": 1.0, "converged": True},
        }
        for (loss, t), score in table.items()
        for seed in recipe.seeds
    }


VALIDATION = scored(
    {("infonce", 0.1): 0.5, ("infonce", 0.2): 0.6, ("infonce", 0.5): 0.4}
    | {("weince", 0.1): 0.7, ("weince", 0.2): 0.6, ("weince", 0.5): 0.5}
)


def test_each_loss_gets_its_own_best_validation_temperature():
    rows = choose(RECIPE, VALIDATION)
    assert [tuple(row) for row in rows] == [
        ("infonce", 0.5, "published"),
        ("infonce", 0.2, "tuned"),
        ("weince", 0.1, "tuned"),
    ]


def test_the_grid_of_losses_is_the_same_and_every_run_counts():
    runs = {(loss, t, seed) for loss in RECIPE.losses for t in RECIPE.temperatures for seed in RECIPE.seeds}
    assert {tuple(run) for run in VALIDATION} == runs


def test_judgement_pairs_seeds_and_warns_of_the_edge():
    rows = choose(RECIPE, VALIDATION)
    tested = scored({("infonce", 0.5): 0.4, ("infonce", 0.2): 0.6, ("weince", 0.1): 0.65})
    result = judge(RECIPE, rows, VALIDATION, tested)
    main = next(d for d in result["differences"] if d["metric"] == "recall_at_1")
    assert main["label"] == "WEINCE at 0.1 (tuned) − InfoNCE at 0.2 (tuned)"
    assert main["by_seed"] == pytest.approx([0.05, 0.05, 0.05])
    assert result["sentences"][0].startswith("WEINCE is better")
    assert [w for w in result["warnings"] if "WEINCE was best at 0.1, an end" in w]
    assert not [w for w in result["warnings"] if "InfoNCE was best" in w]
    assert len(tidy(result)) == len(METRICS) * (18 + 9)
    assert [row["mean"]["recall_at_1"] for row in result["rows"]] == pytest.approx([0.42, 0.62, 0.67])


def test_a_diverged_run_is_not_chosen_and_a_loss_that_always_diverges_is_refused():
    lost = {run: dict(scored) for run, scored in VALIDATION.items()}
    for run, scores in lost.items():
        if run.loss == "weince" and run.temperature == 0.1:
            scores |= {"diverged": True, "scores": dict.fromkeys(METRICS, 0.0)}
    assert choose(RECIPE, lost)[-1] == ("weince", 0.2, "tuned")
    for run, scores in lost.items():
        if run.loss == "weince":
            scores |= {"diverged": True, "scores": dict.fromkeys(METRICS, 0.0)}
    with pytest.raises(UserError, match="WEINCE diverged"):
        choose(RECIPE, lost)


def test_a_reference_tuned_to_the_published_temperature_is_shown_once():
    validation = scored({(loss, t): t for loss in RECIPE.losses for t in RECIPE.temperatures})
    assert [row.kind for row in choose(RECIPE, validation)] == ["tuned", "tuned"]


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
