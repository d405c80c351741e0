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
"""[n] whether a classifier has each image right, or [seeds, n] for several trainings of one recipe."""


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


# -- two arms ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same images, by the images on which one of them alone is right."""

    better: int
    """Images that only the first has right, summed over the pairs of trainings."""
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
    """McNemar's exact test, of two classifiers or pooled over pairs of trainings. [n] or [seeds, n] each.

    Pooled, an image counts once, by how many more trainings of the first have it right: the same image seen
    by several seeds is no new evidence (clustered pairs, Durkalski et al. 2003; here exact, by flipping the
    signs of whole images). With one training each this is the usual test.
    """
    if first.shape != second.shape:
        raise ValueError(f"{_shape(first)} and {_shape(second)} images cannot be paired")
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    surplus = first.sum(axis=0, dtype=int) - second.sum(axis=0, dtype=int)
    return McNemar(better, worse, _sign_flips(surplus))


def _sign_flips(surplus: npt.NDArray[np.int_]) -> float:
    """The share of all ways to give each number a sign whose sum is at least as far from 0 as this one."""
    # Numbers of one size k, m of them, sum to k (2 Binomial(m, 1/2) - m); sizes are independent.
    total = np.ones(1)
    for size, count in enumerate(np.bincount(np.abs(surplus))):
        if size and count:
            spread = np.zeros(2 * size * count + 1)
            spread[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
            total = _convolve(total, spread)
    middle, distance = len(total) // 2, abs(int(surplus.sum()))
    if distance == 0:
        return 1.0
    return float(min(1.0, 2 * total[middle + distance :].sum()))


def _convolve(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if min(len(one), len(other)) < 2000:
        return np.convolve(one, other)
    from scipy.signal import fftconvolve  # a million images: seconds, not half a minute

    return np.asarray(np.maximum(fftconvolve(one, other), 0.0))


def _shape(answers: Answers) -> str:
    return " x ".join(map(str, answers.shape))


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


# -- many comparisons ----------------------------------------------------------------------------------


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p of each, in their order: below 5 % in all, the chance of any false claim among
    them is below 5 %, however they depend on each other."""
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted
