"""The best of a study: laws, and studies whose best arm is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagenette.stats import Scores, Spread, may_be_best, shares_of_being_best
from tests.stats.simulated import study


def ranked(arms: list[Scores]) -> tuple[list[int], dict[int, float]]:
    named, spread = dict(enumerate(arms)), Spread.of(arms)
    return may_be_best(named, spread), shares_of_being_best(named, spread)


def test_the_best_arm_is_left_out_of_one_study_in_twenty_at_most():
    rng = np.random.default_rng(0)
    effects = [0.0, 0.004, -0.01, -0.02, 0.0, -0.05]  # the second is the best
    missed, kept = [], []
    for _ in range(150):
        best, _ = ranked(study(rng, seeds=[3] * 6, sd=[0.004] * 6, effects=effects))
        missed.append(1 not in best)
        kept.append(5 in best)
    assert np.mean(missed) <= 0.05
    assert np.mean(kept) <= 0.05  # five points below: told apart


def test_equal_arms_have_equal_shares_on_average_and_a_clear_best_has_nearly_all():
    rng = np.random.default_rng(1)
    equal = [ranked(study(rng, seeds=[3] * 4, sd=[0.005] * 4, effects=[0.0] * 4))[1] for _ in range(60)]
    means = np.mean([list(shares.values()) for shares in equal], axis=0)
    assert means == pytest.approx([0.25] * 4, abs=0.1)
    _, clear = ranked(study(rng, seeds=[5] * 4, sd=[0.003] * 4, effects=[0.0, 0.03, 0.0, 0.0]))
    assert clear[1] > 0.95


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 3), min_size=2, max_size=5), st.booleans())
def test_shares_sum_to_one_and_the_highest_mean_may_always_be_the_best(seed, runs, told):
    rng = np.random.default_rng(seed)
    answers = [rng.random((n, 300)) < rng.uniform(0.5, 0.95) for n in runs]
    arms = [Scores(right.mean(axis=1).tolist(), 300, right if told else None) for right in answers]
    best, shares = ranked(arms)
    assert max(range(len(arms)), key=lambda n: arms[n].mean) in best
    assert not shares or sum(shares.values()) == pytest.approx(1)
    assert bool(shares) == any(n > 1 for n in runs)


def test_nothing_is_known_of_arms_without_a_number_of_images():
    arms = [Scores([0.9, 0.91], None), Scores([0.5, 0.51], None)]
    assert ranked(arms) == ([0, 1], {})
