"""Laws of the tests, and worked examples."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, t, ttest_ind

from imagenette.stats import (
    McNemar,
    holm,
    mcnemar,
    over_seeds,
    paired_shares,
    t_interval,
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


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_pooled_mcnemar_counts_every_way_to_flip_whole_images(surplus):
    """Against all 2^n sign patterns, one by one."""
    first = np.array([[number > place for number in surplus] for place in range(3)])
    second = np.array([[-number > place for number in surplus] for place in range(3)])
    flips = [
        sum(s * n for s, n in zip(signs, surplus, strict=True))
        for signs in itertools.product((1, -1), repeat=len(surplus))
    ]
    share = np.mean([abs(total) >= abs(sum(surplus)) for total in flips])
    assert mcnemar(first, second).p == pytest.approx(share)


def test_the_same_images_seen_by_more_seeds_are_no_new_evidence():
    first, second = pair(50, 14, 4, 7)
    assert mcnemar(np.tile(first, (5, 1)), np.tile(second, (5, 1))).p == pytest.approx(
        mcnemar(first, second).p
    )


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
