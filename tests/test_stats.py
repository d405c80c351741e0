"""Laws of the tests, and worked examples."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binom, t, ttest_ind

from imagenette.stats import (
    McNemar,
    Scores,
    Spread,
    TwoLevel,
    holm,
    mcnemar,
    over_seeds,
    paired_shares,
    t_interval,
    two_level,
    unpaired_shares,
    wilson,
)


def pair(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(
    ("better", "worse", "p"), [(1, 9, 0.0215), (9, 1, 0.0215), (5, 5, 1.0), (0, 5, 0.0625)]
)
def test_mcnemar_is_the_sign_test_of_the_discordant_pairs(better, worse, p):
    test = mcnemar(*pair(50, better, worse, 7))
    assert (test.better, test.worse) == (better, worse)
    assert test.p == pytest.approx(p, abs=5e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_doubles_the_smaller_tail_and_knows_no_order(both, better, worse):
    first, second = pair(both + 1, better, worse, 3)
    test, mirrored = mcnemar(first, second), mcnemar(second, first)
    tail = binom.cdf(min(better, worse), better + worse, 0.5)
    assert test.p == pytest.approx(min(1.0, 2 * tail))
    assert mirrored.p == pytest.approx(test.p)
    assert (mirrored.better, mirrored.worse) == (test.worse, test.better)
    assert not (test.significantly_better and test.significantly_worse)


def test_images_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="3 and 4 images"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))


def test_mcnemar_gives_the_published_p():
    """Bentur et al. 2009 as worked by Fagerland, Lydersen and Laake 2013: 1, 1, 7, 12 of 21 children."""
    test = mcnemar(*pair(1, 1, 7, 12))
    assert round(test.p, 4) == 0.0703
    # ... and by Bonett and Price's interval (2012) for the same table.
    interval = paired_shares(test, 21).interval
    assert (round(interval.low, 4), round(interval.high, 4)) == (-0.5084, -0.0134)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(right, n, low, high):
    """Newcombe 1998, Two-sided confidence intervals for the single proportion, table I, method 3."""
    interval = wilson(right, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_newcombes_interval_of_a_difference_is_the_published_one():
    """Newcombe 1998, Interval estimation for the difference: 56/70 against 48/80, method 10."""
    difference = unpaired_shares(56, 70, 48, 80)
    assert (round(difference.interval.low, 4), round(difference.interval.high, 4)) == (0.0524, 0.3339)
    assert difference.value == pytest.approx(0.2)


SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
"""Student's own example (1908): hours of sleep gained with two drugs."""


def test_welch_and_student_give_what_r_prints_for_students_sleep_data():
    difference = over_seeds(*SLEEP)
    assert round(difference.p, 5) == 0.07939
    assert (round(difference.interval.low, 4), round(difference.interval.high, 4)) == (-3.3655, 0.2055)
    gained = t_interval([b - a for a, b in zip(*SLEEP, strict=True)])
    assert (round(gained.low, 4), round(gained.high, 4)) == (0.7001, 2.4599)


@pytest.mark.parametrize(
    ("ps", "adjusted"),
    [
        ([0.50, 0.003, 0.32, 0.054, 0.0003], [0.64, 0.012, 0.64, 0.162, 0.0015]),  # pingouin's manual
        ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),  # stdlib's manual
        ([], []),
    ],
)
def test_holm_gives_the_published_corrections(ps, adjusted):
    assert holm(ps) == pytest.approx(adjusted, abs=5e-4)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_the_ps_and_bonferronis(ps):
    adjusted = holm(ps)
    assert all(p <= q <= min(1, len(ps) * p) + 1e-12 for p, q in zip(ps, adjusted, strict=True))
    for (p, q), (other, theirs) in itertools.product(zip(ps, adjusted, strict=True), repeat=2):
        assert p > other or q <= theirs


def test_seeds_without_any_spread_are_no_division_by_zero():
    assert over_seeds([0.9, 0.9], [0.9, 0.9]).p == 1
    apart = over_seeds([0.9, 0.9], [0.8, 0.8])
    assert apart.p == 0
    assert apart.value == pytest.approx(0.1)
    assert 0 < over_seeds([0.9, 0.9], [0.8, 0.81]).p < 0.1
    for alone in (lambda: t_interval([0.9]), lambda: over_seeds([0.9], [0.8])):
        with pytest.raises(ValueError, match="no spread"):
            alone()


def test_a_tie_of_seeds_is_no_certainty_where_accuracies_are_multiples_of_an_image():
    interval = t_interval([0.9, 0.9], step=1 / 100)
    assert interval.high - interval.low > 0.04
    assert over_seeds([0.9, 0.9], [0.89, 0.89], step=1 / 100).p > 0.05
    assert t_interval([0.9, 0.8], step=1 / 1000) == t_interval([0.9, 0.8])  # the measured spread is larger


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_over_seeds_is_scipys_welch(first, second):
    difference = over_seeds(first, second)
    if np.ptp(first) > 1e-6 and np.ptp(second) > 1e-6:
        theirs = ttest_ind(first, second, equal_var=False)
        found = theirs.confidence_interval(0.95)
        assert difference.p == pytest.approx(theirs.pvalue)
        assert (difference.interval.low, difference.interval.high) == pytest.approx((found.low, found.high))
    mirrored = over_seeds(second, first)
    assert (mirrored.value, mirrored.p) == pytest.approx((-difference.value, difference.p))


def test_one_value_against_several_is_held_against_their_scatter():
    """Crawford and Howell: a case against controls of mean 100, sd 15: (70 - 100) / (15 sqrt(1.1)), 9 d.f."""
    controls = 100 + 15 * np.array([-1.2, -0.9, -0.6, -0.3, 0, 0, 0.3, 0.6, 0.9, 1.2]) / 0.81921
    controls = 100 + (controls - controls.mean()) * 15 / controls.std(ddof=1)
    difference = over_seeds([70.0], controls.tolist())
    assert difference.p == pytest.approx(2 * t.sf(30 / (15 * 1.1**0.5), 9))
    assert difference.value == pytest.approx(-30)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_paired_interval_stays_within_what_shares_can_differ_by(better, worse, rest):
    n = better + worse + rest + 1
    difference = paired_shares(McNemar(better, worse, 1.0), n)
    assert -1 <= difference.interval.low <= difference.interval.high <= 1
    assert difference.value == pytest.approx((better - worse) / n)


def test_more_images_differ_than_there_are_is_refused():
    with pytest.raises(ValueError, match="30 of 20 images cannot differ"):
        paired_shares(McNemar(10, 20, 0.1), 20)


def test_a_p_that_is_none_is_refused():
    for odd in (math.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match="must be a p"):
            holm([0.01, odd, 0.02])


def arm(*accuracies, images=None, right=None):
    return Scores(list(accuracies), images, right)


def drawn(rng, share, runs, images=400):
    right = rng.random((runs, images)) < share
    return Scores(right.mean(axis=1).tolist(), images, right)


def without_images(first, second, spread):
    """The seeds' part alone: so many images that theirs is nothing."""
    return two_level(replace(first, images=10**15), replace(second, images=10**15), spread)


shares_of = st.lists(st.floats(0.5, 0.9), min_size=2, max_size=6)


@given(shares_of, shares_of)
def test_of_two_arms_the_seeds_part_is_scipys_welch(one, other):
    assume(np.ptp(one) > 1e-4)
    assume(np.ptp(other) > 1e-4)
    first, second = arm(*one), arm(*other)
    found = without_images(first, second, Spread.of([first, second]))
    welch = ttest_ind(one, other, equal_var=False)
    span = welch.confidence_interval()
    assert found.p == pytest.approx(welch.pvalue, rel=1e-6)
    assert (found.interval.low, found.interval.high) == pytest.approx((span.low, span.high), abs=1e-6)
    assert found.freedom == pytest.approx(welch.df)


def test_one_run_against_several_of_a_pair_is_crawford_and_howells_test():
    one, several = arm(0.9), arm(0.8, 0.84, 0.82)
    found = without_images(one, several, Spread.of([one, several]))
    old = over_seeds([0.9], [0.8, 0.84, 0.82])
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
    if isinstance(one, TwoLevel):
        assert (one.p < 0.05) == (0 not in one.interval)
        assert one.freedom <= spread.freedom
