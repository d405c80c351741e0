"""Arms of several runs: laws of the one test, and worked examples."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import t, ttest_ind

from imagenette.stats import (
    Contrast,
    Scores,
    Spread,
    mcnemar,
    off_the_line,
    one_more_seed,
    t_interval,
    trend,
    two_level,
    unpaired_shares,
)


def arm(*accuracies, images=None, right=None):
    return Scores(list(accuracies), images, right)


def drawn(rng, share, runs, images=400):
    right = rng.random((runs, images)) < share
    return Scores(right.mean(axis=1).tolist(), images, right)


def without_images(first, second, spread):
    """The seeds' part alone: so many images that theirs is nothing."""
    return two_level(replace(first, images=10**24), replace(second, images=10**24), spread)


SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
"""Student's own example (1908): hours of sleep gained with two drugs."""


def test_welch_and_student_give_what_r_prints_for_students_sleep_data():
    sides = [arm(*hours) for hours in SLEEP]
    difference = without_images(sides[0], sides[1], Spread.of(sides))
    assert round(difference.p, 5) == 0.07939
    assert (round(difference.interval.low, 4), round(difference.interval.high, 4)) == (-3.3655, 0.2055)
    gained = t_interval([b - a for a, b in zip(*SLEEP, strict=True)])
    assert (round(gained.low, 4), round(gained.high, 4)) == (0.7001, 2.4599)


def test_one_value_against_several_is_held_against_their_scatter():
    """Crawford and Howell: a case against controls of mean 100, sd 15: (70 - 100) / (15 sqrt(1.1)), 9 d.f."""
    controls = 100 + 15 * np.array([-1.2, -0.9, -0.6, -0.3, 0, 0, 0.3, 0.6, 0.9, 1.2]) / 0.81921
    controls = 100 + (controls - controls.mean()) * 15 / controls.std(ddof=1)
    difference = one_more_seed(70.0, controls.tolist())
    assert difference.p == pytest.approx(2 * t.sf(30 / (15 * 1.1**0.5), 9))
    assert difference.value == pytest.approx(-30)


shares_of = st.lists(st.floats(0.5, 0.9), min_size=2, max_size=6)


@given(shares_of, shares_of)
def test_of_two_arms_the_seeds_part_is_scipys_welch(one, other):
    assume(np.ptp(one) > 1e-4)
    assume(np.ptp(other) > 1e-4)
    first, second = arm(*one), arm(*other)
    found = without_images(first, second, Spread.of([first, second]))
    welch = ttest_ind(one, other, equal_var=False)
    span = welch.confidence_interval()
    assert found.p == pytest.approx(welch.pvalue, rel=1e-9)
    assert (found.interval.low, found.interval.high) == pytest.approx((span.low, span.high), abs=1e-9)
    assert found.freedom == pytest.approx(welch.df, rel=1e-9)


def test_one_run_against_several_of_a_pair_is_crawford_and_howells_test():
    one, several = arm(0.9), arm(0.8, 0.84, 0.82)
    found = without_images(one, several, Spread.of([one, several]))
    old = one_more_seed(0.9, [0.8, 0.84, 0.82])
    assert (found.p, found.interval.low) == pytest.approx((old.p, old.interval.low), rel=1e-6)


def test_from_four_arms_on_a_spread_is_drawn_towards_the_common_one():
    even, odd = [arm(0.90, 0.91, 0.92)] * 4, arm(0.80, 0.90, 1.0)
    spread = Spread.of([*even, odd])
    assert spread.variance == pytest.approx((4 * 1e-4 + 1e-2) / 5)
    assert spread.weight == pytest.approx(0.4 / 0.6 * 2)
    variance, freedom = spread.moderated(odd)
    assert (variance, freedom) == pytest.approx(
        ((spread.weight * spread.variance + 2e-2) / freedom, 2 + 4 / 3)
    )
    assert Spread.of([*even[:2], odd]).weight == 0
    assert spread.moderated(arm(0.9)) == pytest.approx((spread.variance, spread.weight))


def test_images_part_is_what_is_left_of_the_pairs_without_their_tosses():
    rng = np.random.default_rng(1)
    alike = [drawn(rng, 0.9, 50, 4000) for _ in range(2)]  # each image of each run its own toss
    found = two_level(alike[0], alike[1], Spread.of(alike))
    assert found.images < 2e-7  # no image is any arm's own
    own = np.array([np.arange(4000) % 10 != k for k in (0, 1)])  # whole images are, and no toss at all
    apart = [Scores([0.9] * 3, 4000, np.tile(each, (3, 1))) for each in own]
    assert two_level(apart[0], apart[1], Spread.of(apart)).images == pytest.approx(0.2 / 4000, rel=1e-3)


def test_without_predictions_each_arm_has_images_of_its_own_and_without_their_number_there_is_no_test():
    sides = arm(0.9, 0.91, images=400), arm(0.8, 0.81, images=400)
    found = two_level(sides[0], sides[1], Spread.of(sides))
    assert found.images == pytest.approx((0.905 * 0.095 + 0.805 * 0.195) / 400)
    assert two_level(arm(0.9, 0.91), sides[1], Spread.of(sides)) is None


def test_single_runs_alone_are_tested_over_images():
    rng = np.random.default_rng(2)
    one, other = drawn(rng, 0.95, 1), drawn(rng, 0.8, 1)
    none = Spread.of([one, other])
    assert none.freedom == 0
    assert two_level(one, other, none).p == mcnemar(one.right[0], other.right[0]).p
    bare = [replace(side, right=None) for side in (one, other)]
    right = [round(400 * side.accuracies[0]) for side in bare]
    assert two_level(bare[0], bare[1], none).p == unpaired_shares(right[0], 400, right[1], 400).p


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 4), min_size=2, max_size=6))
def test_a_difference_is_odd_in_its_arms_and_its_p_and_interval_agree(seed, runs):
    rng = np.random.default_rng(seed)
    arms = [
        drawn(rng, share, n, 200) for n, share in zip(runs, rng.uniform(0.6, 0.95, len(runs)), strict=True)
    ]
    spread = Spread.of(arms)
    one, other = two_level(arms[0], arms[1], spread), two_level(arms[1], arms[0], spread)
    assert (one.value, one.p) == pytest.approx((-other.value, other.p))
    assert one.interval.low == pytest.approx(-other.interval.high)
    assert one.interval.low <= one.value <= one.interval.high
    if isinstance(one, Contrast):
        assert (one.p < 0.05) == (0 not in one.interval)
        assert one.freedom <= spread.freedom


@given(shares_of, shares_of, st.floats(0.001, 0.2))
def test_practically_equal_is_scipys_two_one_sided_welch_tests(one, other, margin):
    assume(np.ptp(one) > 1e-4)
    assume(np.ptp(other) > 1e-4)
    first, second = arm(*one), arm(*other)
    found = without_images(first, second, Spread.of([first, second]))
    above = ttest_ind(np.array(one) + margin, other, equal_var=False, alternative="greater").pvalue
    below = ttest_ind(np.array(one) - margin, other, equal_var=False, alternative="less").pvalue
    assert found.p_beyond(margin) == pytest.approx(max(above, below), rel=1e-9, abs=1e-12)


def test_a_trend_is_the_slope_of_a_straight_line_and_its_test_that_of_a_contrast():
    rng = np.random.default_rng(5)
    places = [0, 1, 2, 3, 4]
    arms = [drawn(rng, 0.7 + 0.04 * place, 3, 4000) for place in places]
    spread = Spread.of(arms)
    found = trend(arms, places, spread)
    assert found.value == pytest.approx(np.polyfit(places, [each.mean for each in arms], 1)[0])
    assert found.p < 1e-4
    ends = trend([arms[0], arms[4]], [0, 1], spread)  # of two arms it is their difference
    assert ends == pytest.approx(two_level(arms[4], arms[0], spread))
    with pytest.raises(ValueError, match="no slope"):
        trend(arms, [1] * 5, spread)


def test_one_arm_off_the_line_is_measured_against_the_line_of_the_others():
    rng = np.random.default_rng(6)
    shares = [0.80, 0.82, 0.84, 0.86, 0.70]
    arms = [drawn(rng, share, 4, 20_000) for share in shares]
    found = off_the_line(arms, range(5), 4, Spread.of(arms))
    line = np.poly1d(np.polyfit(range(4), [each.mean for each in arms[:4]], 1))
    assert found.value == pytest.approx(arms[4].mean - line(4))
    assert found.value == pytest.approx(-0.18, abs=0.02)
    assert found.p < 1e-4
