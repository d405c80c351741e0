"""Laws of the tests, and worked examples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from imagenette.stats import mcnemar


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
