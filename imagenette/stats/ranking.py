"""Which arms may be the best of a study: those that no other shows to be worse; and how often each would be
it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from imagenette.stats.arms import Scores, Spread, contrast, covariance
from imagenette.stats.shares import LEVEL

_Name = TypeVar("_Name")
_DRAWS = 20_000


def may_be_best(arms: Mapping[_Name, Scores], spread: Spread) -> list[_Name]:
    """Arms among which the best is, in 95 % of studies: those that no other arm shows to be worse, one-sided,
    each by Bonferroni's correction over the others.

    The best arm is left out only where some other seems better than it by that much, which is in at most 5 %
    of studies (multiple comparisons with the best; Hsu 1984 has it with Dunnett's quantile). Arms without a
    known number of images are kept: nothing tells them from the others.
    """

    def is_worse(arm: Scores, other: Scores) -> bool:
        found = contrast([other, arm], [1.0, -1.0], spread)
        return found is not None and found.p_below(0.0) * (len(arms) - 1) < LEVEL

    return [
        name
        for name, arm in arms.items()
        if not any(is_worse(arm, other) for other in arms.values() if other is not arm)
    ]


def shares_of_being_best(
    arms: Mapping[_Name, Scores], spread: Spread, *, seed: int = 0
) -> dict[_Name, float]:
    """Arm -> in what share of draws it is the best: means drawn anew for new seeds (Student's t around what
    was measured, with the moderated spread) and for new images (normal, as the arms' answers vary together).

    It is what the data say of each arm, not a p: of k equal arms each has about 1/k. Empty where there is
    nothing to draw from: no spread, or no number of images.
    """
    images = covariance(list(arms.values()))
    if images is None or not spread.freedom or len(arms) < 2:
        return {}
    values, vectors = np.linalg.eigh(images)
    images = (vectors * values.clip(0)) @ vectors.T
    rng = np.random.default_rng(seed)
    means = np.array([arm.mean for arm in arms.values()])
    drawn = means + rng.multivariate_normal(np.zeros(len(arms)), images, _DRAWS, check_valid="ignore")
    for place, arm in enumerate(arms.values()):
        variance, freedom = spread.moderated(arm) or (spread.variance, spread.freedom)
        drawn[:, place] += np.sqrt(variance / arm.runs) * rng.standard_t(freedom, _DRAWS)
    wins = np.bincount(drawn.argmax(axis=1), minlength=len(arms)) / _DRAWS
    return dict(zip(arms, wins.tolist(), strict=True))
