"""The two-level test held against studies whose truth is known: false claims, power, coverage.

Five arms against a baseline, 3,925 images, seeds that scatter by 0.3 or 0.6 points. The short forms are in
the suite; `make test-slow` draws 6,000 studies a cell and holds them to the figures of docs/report.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.stats.simulated import claims, judge, study

SMALL, LARGE = 0.003, 0.006
FALSE = {
    (3, SMALL): (0.008, 0.041, 0.019),
    (3, LARGE): (0.017, 0.055, 0.030),
    (5, SMALL): (0.015, 0.043, 0.025),
    (5, LARGE): (0.025, 0.059, 0.028),
}
"""(seeds, sd) -> studies with a false claim, of equal arms; where the baseline scatters three times as
much; where an arm does."""
POWER = {
    (3, SMALL, 1): 0.44,
    (3, SMALL, 2): 0.99,
    (3, LARGE, 1): 0.10,
    (3, LARGE, 2): 0.58,
    (5, SMALL, 1): 0.83,
    (5, LARGE, 1): 0.30,
    (5, LARGE, 2): 0.95,
}
"""(seeds, sd, points) -> how often one arm that is so much worse is found."""


def spreads(sd: float, who: str) -> list[float]:
    odd = {"nobody": -1, "baseline": 0, "arm": 5}[who]
    return [3 * sd if place == odd else sd for place in range(6)]


def false_claims(times: int, seeds: int, sd: float, who: str) -> float:
    found = claims(times, seeds=[seeds] * 6, sd=spreads(sd, who), effects=[0.0] * 6)
    return float(found.any(axis=1).mean())


def power(times: int, seeds: int, sd: float, points: float) -> float:
    effects = [0.0, -points / 100, 0.0, 0.0, 0.0, 0.0]
    return float(claims(times, seeds=[seeds] * 6, sd=[sd] * 6, effects=effects)[:, 0].mean())


def covered(times: int, seeds: int, sd: float) -> float:
    rng = np.random.default_rng(3)
    drawn = (judge(study(rng, seeds=[seeds] * 6, sd=[sd] * 6, effects=[0.0] * 6))[0] for _ in range(times))
    return float(np.mean([0.0 in each.interval for found in drawn for each in found]))


def test_equal_arms_are_called_different_once_in_twenty_studies_at_most():
    assert false_claims(300, 3, LARGE, "nobody") <= 0.05


def test_a_baseline_that_scatters_three_times_as_much_makes_few_false_claims():
    assert false_claims(300, 3, LARGE, "baseline") <= 0.09  # 6 % and about two standard errors


def test_two_points_are_found_with_three_seeds_more_often_than_not():
    assert power(200, 3, LARGE, 2) >= 0.5


def test_intervals_cover_the_truth_nineteen_times_in_twenty():
    assert 0.93 <= covered(150, 3, LARGE) <= 0.985


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seeds", "sd"), list(FALSE))
def test_false_claims_are_as_published(seeds: int, sd: float):
    found = [false_claims(6000, seeds, sd, who) for who in ("nobody", "baseline", "arm")]
    print(f"{seeds} seeds, sd {100 * sd:.1f}: false claims", *(f"{share:.1%}" for share in found))
    assert all(ours <= theirs + 0.0085 for ours, theirs in zip(found, FALSE[seeds, sd], strict=True))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("seeds", "sd", "points"), list(POWER))
def test_power_is_as_published(seeds: int, sd: float, points: float):
    found = power(6000, seeds, sd, points)
    print(f"{seeds} seeds, sd {100 * sd:.1f}, {points} points: found {found:.1%}")
    assert found >= POWER[seeds, sd, points] - 0.02


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seeds", [10, 20])
def test_many_seeds_make_no_more_false_claims(seeds: int):
    found = false_claims(3000, seeds, LARGE, "nobody")
    print(f"{seeds} seeds: false claims {found:.1%}")
    assert found <= 0.055


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("sd", [SMALL, LARGE])
def test_coverage(seeds: int, sd: float):
    found = covered(1500, seeds, sd)
    print(f"{seeds} seeds, sd {100 * sd:.1f}: covered {found:.1%}")
    assert 0.94 <= found <= 0.99
