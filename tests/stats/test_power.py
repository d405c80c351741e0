"""What so many runs can find: held against scipy, against simulated studies, and by its laws."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nct, norm, t

from imagenette.stats import Precision, Scores, Spread, expected, runs_needed, smallest_difference, two_level
from tests.stats.simulated import claims

SMALL, LARGE, IMAGES = 0.003, 0.006, 0.0015
few = settings(max_examples=40)
plans = st.fixed_dictionaries(
    {
        "runs": st.integers(2, 12),
        "baseline_runs": st.integers(12, 20),
        "arms": st.integers(2, 25),
        "variance": st.floats(1e-4, 0.02).map(lambda sd: sd**2),
        "images": st.floats(0, 0.01).map(lambda error: error**2),
    }
)


def smallest(**plan: Any) -> float:
    return smallest_difference(expected(**plan), comparisons=plan["arms"] - 1)


def test_a_difference_of_that_size_is_found_in_four_studies_of_five_by_the_noncentral_t():
    precision = Precision(error=0.004, freedom=8.0)
    critical = t.ppf(1 - 0.05 / 5 / 2, 8)  # Bonferroni over five comparisons
    size = smallest_difference(precision, comparisons=5) / 0.004
    assert nct.sf(critical, 8, size) == pytest.approx(0.8, abs=1e-6)
    many = smallest_difference(Precision(error=1.0, freedom=float("inf")))
    assert many == pytest.approx(norm.ppf(0.975) + norm.ppf(0.8), abs=1e-4)  # 2.80, as every textbook has it


@few
@given(plans)
def test_any_plan_has_a_smallest_difference_and_one_more_run_of_every_arm_makes_it_smaller(plan):
    more = {which: plan[which] + 1 for which in ("runs", "baseline_runs")}
    assert 0 < smallest(**plan | more) < smallest(**plan)


@pytest.mark.parametrize("sd", [SMALL, LARGE])
@pytest.mark.parametrize("arms", [5, 9, 25])
def test_six_seeds_of_the_baseline_find_less_than_three(arms, sd):
    plan = {"runs": 3, "arms": arms, "variance": sd**2, "images": IMAGES**2}
    assert smallest(baseline_runs=6, **plan) < 0.95 * smallest(baseline_runs=3, **plan)


@few
@given(plans)
def test_wider_scatter_fewer_images_and_more_comparisons_make_it_larger(plan):
    least, precision = smallest(**plan), expected(**plan)
    assert smallest(**plan | {"variance": 2 * plan["variance"]}) > least
    assert smallest(**plan | {"images": plan["images"] + 1e-6}) > least
    assert smallest_difference(precision, comparisons=plan["arms"]) > least


@pytest.mark.parametrize(("runs", "baseline", "arms"), [(3, 3, 6), (3, 6, 6), (2, 4, 2), (1, 5, 3)])
def test_precision_is_that_of_a_study_whose_arms_scatter_just_so(runs, baseline, arms):
    def arm(count: int) -> Scores:  # variance 1e-4 whatever the count
        step = (12 / (count * (count + 1))) ** 0.5 * 0.01
        return Scores([0.9 + step * (place - (count - 1) / 2) for place in range(count)], 10**15)

    study = [arm(baseline), *[arm(runs)] * (arms - 1)]
    found = two_level(study[1], study[0], Spread.of(study))
    plan = expected(runs=runs, baseline_runs=baseline, arms=arms, variance=1e-4, images=0.0)
    assert (plan.error, plan.freedom) == pytest.approx((found.error, found.freedom), rel=1e-5)


@pytest.mark.parametrize(("runs", "baseline", "sd"), [(3, 6, SMALL), (3, 6, LARGE)])
def test_simulated_studies_find_it_as_often_as_it_says(runs, baseline, sd):
    size = smallest(runs=runs, baseline_runs=baseline, arms=6, variance=sd**2, images=IMAGES**2)
    found = claims(250, seeds=[baseline] + [runs] * 5, sd=[sd] * 6, effects=[0, -size, 0, 0, 0, 0])[:, 0]
    assert found.mean() == pytest.approx(0.8, abs=0.09)  # Monte Carlo: three standard errors are 0.076


@few
@given(st.floats(0.008, 0.05), st.integers(2, 8), st.sampled_from([SMALL, LARGE]))
def test_runs_needed_is_the_least(size, arms, sd):
    study = {"arms": arms, "variance": sd**2, "images": IMAGES**2}
    runs = runs_needed(size, **study)
    assert runs is not None
    assert smallest(runs=runs, baseline_runs=runs, **study) <= size
    if runs > 2:
        assert smallest(runs=runs - 1, baseline_runs=runs - 1, **study) > size


def test_where_images_alone_hide_it_no_number_of_runs_will_do():
    assert runs_needed(0.003, arms=6, variance=SMALL**2, images=IMAGES**2) is None


def test_single_runs_have_no_spread_to_plan_with():
    with pytest.raises(ValueError, match="single runs"):
        expected(runs=1, baseline_runs=1, arms=3, variance=1e-4, images=1e-6)
