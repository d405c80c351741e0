"""Accuracies as shares of images: of one arm, of two classifiers; and the correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special  # not scipy.stats, whose import takes twice as long as the rest of it

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
    half = quantile(len(values) - 1) * math.sqrt(variance(values, step) / len(values))
    mean = float(np.mean(values))
    return Interval(mean - half, mean + half)


def wilson(right: int, n: int) -> Interval:
    """For the share right on ever more images of the kind, from `right` of n: Wilson (1927).

    It says nothing of other seeds.
    """
    share, of_n = right / n, _NORMAL**2 / n
    middle = (share + of_n / 2) / (1 + of_n)
    half = math.sqrt(share * (1 - share) * of_n + of_n**2 / 4) / (1 + of_n)
    return Interval(middle - half if right else 0.0, middle + half if right < n else 1.0)


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
    p = 2 * float(special.bdtr(min(better, worse), better + worse, 0.5))
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
    p, q = first / first_n, second / second_n
    one, other = wilson(first, first_n), wilson(second, second_n)
    low = p - q - math.hypot(p - one.low, other.high - q)
    high = p - q + math.hypot(one.high - p, q - other.low)
    return Difference(p - q, Interval(low, high), fisher(first, first_n, second, second_n))


def fisher(first: int, first_n: int, second: int, second_n: int) -> float:
    """Two-sided exact p of Fisher (1934): of all ways to share out so many right answers, those at most as
    likely as this one."""
    right, n = first + second, first_n + second_n
    ways = np.arange(max(0, right - second_n), min(right, first_n) + 1)
    likely = _log_choose(first_n, ways) + _log_choose(second_n, right - ways) - _log_choose(n, right)
    chosen = likely <= likely[first - ways[0]] + 1e-7  # as likely, but for rounding
    return min(1.0, float(np.exp(likely[chosen]).sum()))


def _log_choose(n: int, k: Any) -> Any:
    return special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)


_NORMAL = float(special.ndtri((1 + CONFIDENCE) / 2))


def variance(values: Sequence[float], step: float = 0.0) -> float:
    """Unbiased; not below that of rounding to multiples of step. ValueError from a single value."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} value has no spread")
    return max(float(np.var(values, ddof=1)), step**2 / 12)


def quantile(freedom: float) -> float:
    """Of Student's t, for a two-sided interval."""
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


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
