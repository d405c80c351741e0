"""What so many runs can find: the smallest difference, and the runs for one of a given size. Of studies that
are planned, and of those that are done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import optimize, special

from imagenette.stats.arms import weight
from imagenette.stats.shares import LEVEL

POWER = 0.8
"""A difference counts as one that can be found if four of five studies like this one find it."""
_MOST = 200  # runs an arm that are tried


@dataclass(frozen=True)
class Precision:
    """Of a difference between an arm and the baseline."""

    error: float
    """Standard error, over new seeds and new images."""
    freedom: float


def expected(*, runs: int, baseline_runs: int, arms: int, variance: float, images: float) -> Precision:
    """What a study of so many arms, the baseline among them, will have: arms of `runs` runs each, the
    baseline of its own number, each of them scattering by the same variance over seeds.

    images: variance of a difference over new images. ValueError where every arm would be a single run.
    """
    freedoms = [runs - 1] * (arms - 1) + [baseline_runs - 1]
    if not any(freedoms):
        raise ValueError("single runs have no spread to plan with")
    drawn = weight([each for each in freedoms if each])
    of_seeds, ours, theirs = 1 / runs + 1 / baseline_runs, drawn + runs - 1, drawn + baseline_runs - 1
    freedom = max(ours, theirs)
    if ours and theirs:
        freedom = of_seeds**2 / (1 / runs**2 / ours + 1 / baseline_runs**2 / theirs)
    return Precision(math.sqrt(variance * of_seeds + images), min(freedom, sum(freedoms)))


def smallest_difference(precision: Precision, *, comparisons: int = 1) -> float:
    """The true difference that is found in POWER of studies, where the correction is over so many comparisons
    and no other arm differs (Holm's first step is Bonferroni's)."""
    if precision.error == 0:
        return 0.0
    freedom = min(precision.freedom, 1e6)  # beyond, Student's t is the normal distribution
    critical = float(special.stdtrit(freedom, 1 - LEVEL / comparisons / 2))

    def missed(size: float) -> float:
        return 1.0 - POWER - float(special.ncfdtr(1, freedom, size**2, critical**2))  # t squared is F

    top = critical + 10.0
    while missed(top) < 0:
        top *= 2
    return precision.error * float(optimize.brentq(missed, 0.0, top))


def runs_needed(
    size: float, *, arms: int, variance: float, images: float, comparisons: int | None = None
) -> int | None:
    """The fewest runs of each arm, the baseline's as many, with which a difference of this size is found in
    POWER of studies; None where not even 200 do, as where the test images are too few."""
    for runs in range(2, _MOST + 1):
        precision = expected(runs=runs, baseline_runs=runs, arms=arms, variance=variance, images=images)
        if smallest_difference(precision, comparisons=comparisons or arms - 1) <= size:
            return runs
    return None
