"""What runs scatter by: parts that add up, floors, and seeds that lie apart."""

from __future__ import annotations

import numpy as np
import pytest

from imagenette.stats import Scores, Spread, apart, parts
from tests.stats.simulated import FLIPS, study


def test_the_parts_are_those_that_were_drawn():
    rng = np.random.default_rng(0)
    (arm,) = study(rng, seeds=[60], sd=[0.006], effects=[0.0])
    found = parts(arm)
    assert found.flips == pytest.approx(FLIPS**0.5, rel=0.05)
    assert found.seeds == pytest.approx((0.006**2 - FLIPS) ** 0.5, rel=0.25)
    assert found.measured**2 == pytest.approx(found.flips**2 + found.seeds**2)
    assert found.images == pytest.approx((0.9 * 0.1 / 3925) ** 0.5, rel=0.25)
    assert not found.too_low


def test_three_runs_that_agree_by_luck_are_below_their_floor():
    rng = np.random.default_rng(1)
    right = rng.random((3, 3925)) < 0.9
    right[1:] = rng.permuted(right[:1].repeat(2, axis=0), axis=1)  # other images, the very same accuracy
    found = parts(Scores(right.mean(axis=1).tolist(), 3925, right))
    assert found.measured < 0.0001 < 0.002 < found.flips
    assert found.seeds == 0
    assert found.too_low


def test_what_is_not_known_is_none():
    single = parts(Scores([0.9], 400))
    assert (single.measured, single.flips, single.seeds, single.p_low) == (None, None, None, None)
    assert single.images == pytest.approx((0.09 / 400) ** 0.5)
    assert parts(Scores([0.9, 0.91], None)).images is None


def test_a_seed_far_from_its_siblings_is_named_and_even_ones_hardly_ever():
    rng = np.random.default_rng(2)
    arms = dict(enumerate(study(rng, seeds=[4] * 5, sd=[0.003] * 5, effects=[0.0] * 5)))
    odd = [*arms[2].accuracies]
    odd[3] -= 0.05
    found = apart(arms | {2: Scores(odd, 3925)}, Spread.of(list(arms.values())))
    assert [(arm, place) for arm, place, _ in found] == [(2, 3)]
    assert found[0][2] == pytest.approx(odd[3] - np.mean(odd[:3]))
    named = 0
    for _ in range(100):
        drawn = study(rng, seeds=[3] * 5, sd=[0.004] * 5, effects=[0.0] * 5)
        named += bool(apart(dict(enumerate(drawn)), Spread.of(drawn)))
    assert named <= 9
