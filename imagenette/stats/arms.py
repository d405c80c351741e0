"""Arms of several runs: how far seeds lie apart, and what a difference or a trend between arms is worth when
both the seeds and the test images could have been others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from imagenette.stats.shares import (
    Answers,
    Difference,
    Interval,
    mcnemar,
    paired_shares,
    quantile,
    unpaired_shares,
    variance,
)

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
    def runs(self) -> int:
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracies))

    @property
    def told(self) -> int:
        """Runs whose predictions are known."""
        return 0 if self.right is None else len(self.right)

    @property
    def freedom(self) -> int:
        return self.runs - 1

    @property
    def variance(self) -> float:
        """Over seeds, of two runs or more. Not below that of rounding to whole images: a tie is no
        certainty."""
        return variance(self.accuracies, 1 / self.images if self.images else 0.0)

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
        pooled = sum(arm.freedom * arm.variance for arm in known) / freedom
        return cls(pooled, freedom, weight([arm.freedom for arm in known]))

    def moderated(self, arm: Scores) -> tuple[float, float] | None:
        """(variance, degrees of freedom) of an arm's seeds, drawn towards the common one; None of a single
        run where there is no common one to lean on."""
        if not self.weight + arm.freedom:
            return None
        own = arm.freedom * arm.variance if arm.freedom else 0.0
        freedom = self.weight + arm.freedom
        return (self.weight * self.variance + own) / freedom, freedom


def weight(freedoms: Sequence[int]) -> float:
    """Degrees of freedom that the common spread of arms with so many each counts as, beside an arm's own."""
    return (1 - OWN) / OWN * sum(freedoms) / len(freedoms) if len(freedoms) >= 4 else 0.0


@dataclass(frozen=True)
class Contrast(Difference):
    """A weighted sum of arms' means, such as a difference, where seeds and images are both random."""

    seeds: float
    """Its variance over new seeds; 0 where every arm is one run."""
    images: float
    """Its variance over new images."""
    freedom: float
    """Student's t; infinite where every arm is one run."""

    @property
    def error(self) -> float:
        """Its standard error."""
        return math.sqrt(self.seeds + self.images)

    def p_below(self, bound: float) -> float:
        """One-sided p of its being bound or less."""
        return _tail(self.value - bound, self.error, self.freedom)

    def p_beyond(self, margin: float) -> float:
        """p of its being as far from 0 as the margin, or farther: below a level, it is practically 0 (two
        one-sided tests, Schuirmann 1987)."""
        return _tail(margin - abs(self.value), self.error, self.freedom)


def contrast(arms: Sequence[Scores], weights: Sequence[float], spread: Spread) -> Contrast | None:
    """Weights times means, for new seeds and new images: one interval, one p.

    The moderated Welch test: an arm's spread over seeds is drawn towards the study's common one (Smyth
    2004), and the variance over images, which the arms share, is added to that over seeds (as in Sellam et
    al. 2022, "The MultiBERTs"); flips of single images between seeds are counted once (Jordan 2024). The
    degrees of freedom are Welch's (Satterthwaite's), and at most those of the study. A single run is taken
    to scatter as the others do (Crawford and Howell 1998). Where no arm of the study has two runs, only
    images are random. None where not even the number of images is known.
    """
    over = covariance(arms)
    if over is None:
        return None
    images = max(0.0, float(np.asarray(weights) @ over @ np.asarray(weights)))
    value = float(sum(c * arm.mean for c, arm in zip(weights, arms, strict=True)))
    seeds, freedom = _over_seeds(arms, weights, spread)
    error = math.sqrt(seeds + images)
    half = quantile(freedom) * error
    p = min(1.0, 2 * _tail(abs(value), error, freedom))
    return Contrast(value, Interval(value - half, value + half), p, seeds, images, freedom)


def two_level(first: Scores, second: Scores, spread: Spread) -> Difference | None:
    """First minus second, as a `contrast`; where no arm of the study has two runs, by McNemar's exact test,
    or Fisher's without predictions. None where not even the number of images is known."""
    if spread.freedom:
        return contrast([first, second], [1.0, -1.0], spread)
    if first.right is not None and second.right is not None:
        return paired_shares(mcnemar(first.right[0], second.right[0]), first.right.shape[1])
    if first.images is None or second.images is None:
        return None
    right = [round(arm.accuracies[0] * (arm.images or 0)) for arm in (first, second)]
    return unpaired_shares(right[0], first.images, right[1], second.images)


def trend(arms: Sequence[Scores], places: Sequence[float], spread: Spread) -> Contrast | None:
    """The slope of a straight line through the means over the arms' places in some order: what one step adds
    on average, in one test for all arms. None where the number of images is not known. ValueError where all
    places are one."""
    return contrast(arms, _slope(places).tolist(), spread)


def off_the_line(
    arms: Sequence[Scores], places: Sequence[float], which: int, spread: Spread
) -> Contrast | None:
    """What lies between an arm's mean and the straight line through the others' means, at its place. None and
    ValueError as in `trend`."""
    others = np.delete(np.asarray(places, dtype=float), which)
    line = 1 / len(others) + (places[which] - others.mean()) * _slope(others)
    return contrast(arms, np.insert(-line, which, 1.0).tolist(), spread)


def _slope(places: Sequence[float] | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[n] weights of the values at these places in the slope of their line."""
    centred = np.asarray(places) - np.mean(places)
    if not centred.any():
        raise ValueError("one place has no slope")
    return np.asarray(centred / (centred**2).sum())


def one_more_seed(value: float, others: Sequence[float], *, step: float = 0.0) -> Difference:
    """A single accuracy minus the mean of two or more: could it be one more of them? Crawford and Howell's
    (1998) t-test of a case against controls. step: as in `t_interval`. ValueError with fewer than two."""
    found = variance(others, step) * (1 + 1 / len(others))
    apart, freedom = value - float(np.mean(others)), len(others) - 1
    half = quantile(freedom) * math.sqrt(found)
    p = min(1.0, 2 * _tail(abs(apart), math.sqrt(found), freedom))
    return Difference(apart, Interval(apart - half, apart + half), p)


def _over_seeds(arms: Sequence[Scores], weights: Sequence[float], spread: Spread) -> tuple[float, float]:
    """(variance, degrees of freedom) of a contrast over new seeds."""
    if not spread.freedom:
        return 0.0, math.inf
    per_run = [c**2 / arm.runs for c, arm in zip(weights, arms, strict=True)]
    own = [spread.moderated(arm) for arm in arms]
    known = [each for each in own if each]
    if len(known) == len(arms):
        parts = [share * each for share, (each, _) in zip(per_run, known, strict=True)]
        freedom = sum(parts) ** 2 / sum(part**2 / f for part, (_, f) in zip(parts, known, strict=True))
        return sum(parts), min(freedom, spread.freedom)
    if not known:
        return spread.variance * sum(per_run), spread.freedom
    freedom = sum(f for _, f in known)
    pooled = sum(each * f for each, f in known) / freedom
    return pooled * sum(per_run), min(freedom, spread.freedom)


def covariance(arms: Sequence[Scores]) -> npt.NDArray[np.float64] | None:
    """[arms, arms] of the arms' means over new images, flips of single images between seeds left out; without
    predictions each arm has images of its own. None where their number is not known. Sampled, so a variance
    may come out below 0."""
    answers = [arm.right for arm in arms if arm.right is not None]
    if len(answers) == len(arms):
        shares = np.array([right.mean(axis=0) for right in answers])
        flips = [arm.flips for arm in arms]
        typical = float(np.mean([each for each in flips if each is not None] or [0.0]))
        own = [(typical if each is None else each) / arm.told for each, arm in zip(flips, arms, strict=True)]
        return np.asarray(np.atleast_2d(np.cov(shares)) / shares.shape[1] - np.diag(own))
    if any(arm.images is None for arm in arms):
        return None
    return np.diag([arm.mean * (1 - arm.mean) / (arm.images or 1) for arm in arms])


def _tail(value: float, error: float, freedom: float) -> float:
    """p of a value as large or larger, of Student's t with this standard error."""
    if error == 0:
        return 0.5 if value == 0 else float(value < 0)
    return float(special.stdtr(freedom, -value / error))
