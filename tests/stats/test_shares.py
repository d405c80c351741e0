"""Laws of the tests, and worked examples."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binom

from imagenette.stats import (
    McNemar,
    holm,
    mcnemar,
    one_more_seed,
    paired_shares,
    t_interval,
    unpaired_shares,
    wilson,
)
from imagenette.stats.shares import fisher, quantile


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


def test_a_spread_of_nothing_is_no_division_by_zero_and_one_value_has_none():
    assert one_more_seed(0.9, [0.9, 0.9]).p == 1
    assert one_more_seed(0.8, [0.9, 0.9]).p == 0
    for alone in (lambda: t_interval([0.9]), lambda: one_more_seed(0.9, [0.8])):
        with pytest.raises(ValueError, match="no spread"):
            alone()


def test_a_tie_of_seeds_is_no_certainty_where_accuracies_are_multiples_of_an_image():
    interval = t_interval([0.9, 0.9], step=1 / 100)
    assert interval.high - interval.low > 0.04
    assert one_more_seed(0.9, [0.89, 0.89], step=1 / 100).p > 0.05
    assert t_interval([0.9, 0.8], step=1 / 1000) == t_interval([0.9, 0.8])  # the measured spread is larger


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


# -- scipy.stats, whose import takes longer than a report's whole arithmetic, says the same ----------------


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 4000), st.integers(1, 4000))
def test_intervals_and_exact_tests_are_those_of_scipy(data, n, m):
    right, other = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    interval = wilson(right, n)
    theirs = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    exact = stats.fisher_exact([[right, n - right], [other, m - other]]).pvalue
    assert fisher(right, n, other, m) == pytest.approx(exact, rel=1e-6, abs=1e-300)
    assert quantile(n / 7) == pytest.approx(stats.t.ppf(0.975, n / 7), rel=1e-9)


def test_statistics_import_no_scipy_stats():
    code = "import sys, imagenette.stats; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
