"""Studies whose truth is known, as seeds and images make them: an image has a difficulty, an arm images
that suit it, a run a level of its own, and each image of a run a toss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imagenette.stats import LEVEL, Difference, Scores, Spread, holm, two_level

IMAGES = 3925
TOSS, SUITS, MEAN, SLOPE = 0.32, 0.18, 1.365, 0.1648
"""In units of the difficulties' sd. Nine images in ten are right, two seeds of an arm disagree on 6 % of
them, an arm's own images make 0.15 points of a difference, and a shift by one unit makes 16.48 points at
first."""
FLIPS = 0.06 / 2 / IMAGES
"""Variance of a run's accuracy by tosses alone: 0.28 points."""


def study(
    rng: np.random.Generator, *, seeds: Sequence[int], sd: Sequence[float], effects: Sequence[float]
) -> list[Scores]:
    """seeds: runs of each arm, the baseline first; sd: what their accuracies scatter by, tosses included;
    effects: what ever more seeds and images would tell of the arm against an even one. Shares of all
    images."""
    difficulty = rng.standard_normal(IMAGES, np.float32)
    arms = []
    for runs, spread, effect in zip(seeds, sd, effects, strict=True):
        level = np.sqrt(max(0.0, spread**2 - FLIPS)) * rng.standard_normal((runs, 1)) + effect
        mean = MEAN + difficulty + SUITS * rng.standard_normal(IMAGES, np.float32)
        right = mean + level / SLOPE + TOSS * rng.standard_normal((runs, IMAGES), np.float32) > 0
        arms.append(Scores(right.mean(axis=1).tolist(), IMAGES, right))
    return arms


def judge(arms: Sequence[Scores]) -> tuple[list[Difference], list[float]]:
    """Each arm against the first, and Holm's corrected ps."""
    spread = Spread.of(arms)
    found = [two_level(arm, arms[0], spread) for arm in arms[1:]]
    known = [each for each in found if each is not None]
    assert len(known) == len(found)
    return known, holm([each.p for each in known])


def claims(times: int, *, arms: int = 6, seed: int = 1, **how: Sequence[float]) -> np.ndarray:
    """[times, arms - 1] whether each arm is called different from the baseline."""
    rng = np.random.default_rng(seed)
    return np.array([[p < LEVEL for p in judge(study(rng, **how))[1]] for _ in range(times)])  # type: ignore[arg-type]
