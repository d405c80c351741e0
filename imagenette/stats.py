"""Which differences are real. Intervals and tests, scipy underneath; knows neither runs nor models.

Shares are in [0, 1]. An interval is for 95 % unless told otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.05
"""A difference is called significant below this p."""
CONFIDENCE = 0.95

Answers = npt.NDArray[np.bool_]
"""[n] whether a classifier has each image right, or [runs, n] for several trainings of one recipe."""


@dataclass(frozen=True)
class Interval:
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Difference:
    """First minus second."""

    value: float
    interval: Interval
    p: float
    """Two-sided, of no difference."""


# -- one arm -------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float], *, step: float = 0.0) -> Interval:
    """For the mean that ever more seeds would have, from two or more: Student's t.

    It says nothing of other test images: all seeds saw the same ones. step: what values are multiples of (one
    image's share); a spread is taken to be at least that of rounding to it, so that a tie is no certainty.
    """
    half = _quantile(len(values) - 1) * math.sqrt(_variance(values, step) / len(values))
    mean = float(np.mean(values))
    return Interval(mean - half, mean + half)


def wilson(right: int, n: int) -> Interval:
    """For the share right on ever more images of the kind, from `right` of n: Wilson (1927).

    It says nothing of other seeds.
    """
    found = stats.binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


# -- two classifiers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same images, by the images on which one of them alone is right."""

    better: int
    """Images that only the first has right."""
    worse: int
    """Images that only the second has right."""
    p: float
    """Two-sided exact p: were both equally good, each such image would be a fair coin's toss."""

    @property
    def significantly_better(self) -> bool:
        return self.better > self.worse and self.p < LEVEL

    @property
    def significantly_worse(self) -> bool:
        return self.better < self.worse and self.p < LEVEL

    def __str__(self) -> str:
        return f"right alone on {self.better} test images, wrong alone on {self.worse}, p = {self.p:.2g}"


def mcnemar(first: Answers, second: Answers) -> McNemar:
    """McNemar's exact test of two classifiers, [n] each. It says nothing of other seeds."""
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} images cannot be paired")
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    p = 2 * float(stats.binom.cdf(min(better, worse), better + worse, 0.5))
    return McNemar(better, worse, min(1.0, p))


def paired_shares(test: McNemar, n: int) -> Difference:
    """Of two classifiers on the same n images: McNemar's p, and the adjusted Wald interval of Bonett and
    Price (2012), which stays near its 95 % with few discordant images too."""
    if test.better + test.worse > n:
        raise ValueError(f"{test.better + test.worse} of {n} images cannot differ")
    better, worse = (test.better + 1) / (n + 2), (test.worse + 1) / (n + 2)
    half = _NORMAL * math.sqrt((better + worse - (better - worse) ** 2) / (n + 2))
    middle = better - worse
    interval = Interval(max(-1.0, middle - half), min(1.0, middle + half))
    return Difference((test.better - test.worse) / n, interval, test.p)


def unpaired_shares(first: int, first_n: int, second: int, second_n: int) -> Difference:
    """Of shares on images that cannot be paired: Fisher's exact test, and Newcombe's interval (1998, method
    10), made of two Wilson intervals. Has less power than a paired test on the same images."""
    table = [[first, first_n - first], [second, second_n - second]]
    p, q = first / first_n, second / second_n
    one, other = wilson(first, first_n), wilson(second, second_n)
    low = p - q - math.hypot(p - one.low, other.high - q)
    high = p - q + math.hypot(one.high - p, q - other.low)
    return Difference(p - q, Interval(low, high), float(stats.fisher_exact(table).pvalue))


_NORMAL = float(stats.norm.ppf((1 + CONFIDENCE) / 2))


# -- two arms ------------------------------------------------------------------------------------------

OWN = 0.6
"""Weight of an arm's own spread against the study's common one, where four arms or more have one: the
less, the more power, and the more false claims where one arm scatters more than the others
(`docs/report.md`)."""


@dataclass(frozen=True, eq=False)
class Scores:
    """An arm as a comparison sees it."""

    accuracies: Sequence[float]
    """Of its runs, each another seed."""
    images: int | None
    """Test images behind each; None where that is not known."""
    right: Answers | None = None
    """[runs, images] whether each image was right, of the runs that tell: the same images for all arms."""

    @property
    def told(self) -> int:
        """Runs whose predictions are known."""
        return 0 if self.right is None else len(self.right)

    @property
    def freedom(self) -> int:
        return len(self.accuracies) - 1

    @property
    def variance(self) -> float:
        """Over seeds, of two runs or more. Not below that of rounding to whole images: a tie is no
        certainty."""
        return _variance(self.accuracies, 1 / self.images if self.images else 0.0)

    @property
    def flips(self) -> float | None:
        """The part of that variance that comes from images which some seeds have right and others wrong:
        as if each image were a coin of its own. None without the predictions of two runs."""
        if self.right is None or self.told < 2:
            return None
        runs, images = self.right.shape
        share = self.right.mean(axis=0)
        return float(runs / (runs - 1) * (share * (1 - share)).sum() / images**2)


@dataclass(frozen=True)
class Spread:
    """What the arms of a study have in common: how far seeds lie apart."""

    variance: float
    freedom: int
    """Degrees of freedom behind it; 0 where every arm is one run."""
    weight: float
    """Degrees of freedom that it counts as beside an arm's own; 0 where fewer than four arms have two
    runs."""

    @classmethod
    def of(cls, arms: Sequence[Scores]) -> Spread:
        known = [arm for arm in arms if arm.freedom > 0]
        freedom = sum(arm.freedom for arm in known)
        if not freedom:
            return cls(0.0, 0, 0.0)
        variance = sum(arm.freedom * arm.variance for arm in known) / freedom
        weight = (1 - OWN) / OWN * freedom / len(known) if len(known) >= 4 else 0.0
        return cls(variance, freedom, weight)

    def moderated(self, arm: Scores) -> tuple[float, float] | None:
        """(variance, degrees of freedom) of an arm's seeds, drawn towards the common one; None of a single
        run where there is no common one to lean on."""
        if not self.weight + arm.freedom:
            return None
        own = arm.freedom * arm.variance if arm.freedom else 0.0
        freedom = self.weight + arm.freedom
        return (self.weight * self.variance + own) / freedom, freedom


@dataclass(frozen=True)
class TwoLevel(Difference):
    """A difference of two arms: seeds and images are both random."""

    seeds: float
    """Variance of the difference over new seeds."""
    images: float
    """Variance of the difference over new images."""
    freedom: float


def two_level(first: Scores, second: Scores, spread: Spread) -> Difference | None:
    """The means of two arms, for new seeds and new images: one interval, one p.

    The moderated Welch test: an arm's spread over seeds is drawn towards the study's common one (Smyth
    2004), and the variance of the difference over images, which both arms share, is added to that over
    seeds (as in Sellam et al. 2022, "The MultiBERTs"); flips of single images between seeds are counted
    once (Jordan 2024). The degrees of freedom are Welch's, and at most those of the study. One run against
    several is taken to scatter as they do (Crawford and Howell 1998). Where no arm of the study has two
    runs, only images are random: McNemar's exact test, or Fisher's without predictions. None where not
    even the number of images is known.
    """
    images = _over_images(first, second)
    if images is None:
        return None
    if not spread.freedom:
        return _single_runs(first, second)
    counts = [len(arm.accuracies) for arm in (first, second)]
    own = [spread.moderated(arm) for arm in (first, second)]
    known = [each for each in own if each]
    if len(known) == 2:
        parts = [variance / n for (variance, _), n in zip(known, counts, strict=True)]
        seeds = sum(parts)
        freedom = seeds**2 / sum(part**2 / f for part, (_, f) in zip(parts, known, strict=True))
    else:
        variance, freedom = known[0] if known else (spread.variance, float(spread.freedom))
        seeds = variance * sum(1 / n for n in counts)
    freedom = min(freedom, spread.freedom)
    value = float(np.mean(first.accuracies) - np.mean(second.accuracies))
    error = math.sqrt(seeds + images)
    half = _quantile(freedom) * error
    p = min(1.0, 2 * float(stats.t.sf(abs(value) / error, freedom)))
    return TwoLevel(value, Interval(value - half, value + half), p, seeds, images, freedom)


def _over_images(first: Scores, second: Scores) -> float | None:
    """Variance of the difference over new images; unpaired without predictions."""
    if first.right is not None and second.right is not None:
        flips = [first.flips, second.flips]
        known = [each for each in flips if each is not None]
        rest = sum(
            (own if own is not None else known[0]) / len(arm)
            for own, arm in zip(flips, (first.right, second.right), strict=True)
            if known
        )
        apart = first.right.mean(axis=0) - second.right.mean(axis=0)
        return max(0.0, float(np.var(apart, ddof=1)) / len(apart) - rest)
    if first.images is None or second.images is None:
        return None
    shares = [(float(np.mean(arm.accuracies)), arm.images) for arm in (first, second)]
    return sum(share * (1 - share) / (n or 1) for share, n in shares)


def _single_runs(first: Scores, second: Scores) -> Difference:
    if first.right is not None and second.right is not None:
        return paired_shares(mcnemar(first.right[0], second.right[0]), first.right.shape[1])
    assert first.images is not None
    assert second.images is not None
    right = [round(arm.accuracies[0] * (arm.images or 0)) for arm in (first, second)]
    return unpaired_shares(right[0], first.images, right[1], second.images)


def over_seeds(first: Sequence[float], second: Sequence[float], *, step: float = 0.0) -> Difference:
    """Of the means over seeds. Two or more each: Welch's t-test, which lets spreads differ. One against two
    or more: that single value against the others' mean, as if its own seeds were spread like theirs (Crawford
    and Howell 1998). step: as in `t_interval`."""
    sides = [(len(values), _variance(values, step)) for values in (first, second) if len(values) > 1]
    if not sides:
        raise ValueError("one value against one has no spread")
    value = float(np.mean(first) - np.mean(second))
    if len(sides) == 2:
        parts = [variance / n for n, variance in sides]
        variance = sum(parts)
        freedom = sum(part**2 / (n - 1) for part, (n, _) in zip(parts, sides, strict=True))
        freedom = variance**2 / freedom if freedom else 1.0
    else:
        ((n, spread),) = sides
        variance, freedom = spread * (1 + 1 / n), n - 1
    if variance == 0:
        return Difference(value, Interval(value, value), 1.0 if value == 0 else 0.0)
    half = _quantile(freedom) * math.sqrt(variance)
    p = 2 * float(stats.t.sf(abs(value) / math.sqrt(variance), freedom))
    return Difference(value, Interval(value - half, value + half), min(1.0, p))


def _variance(values: Sequence[float], step: float) -> float:
    if len(values) < 2:
        raise ValueError(f"{len(values)} value has no spread")
    return max(float(np.var(values, ddof=1)), step**2 / 12)


def _quantile(freedom: float) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))


# -- many comparisons ----------------------------------------------------------------------------------


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p of each, in their order: below 5 % in all, the chance of any false claim among
    them is below 5 %, however they depend on each other."""
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"{ps}: each must be a p in [0, 1]")
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted
