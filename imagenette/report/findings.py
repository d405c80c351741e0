"""What a study tells beside the pairs: which arm may be the best, whether accuracy rises or falls along a
knob, what accuracy costs, what runs scatter by, and how small a difference so many runs can find. Numbers;
`conclusions` has the sentences and `tables` the tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from imagenette.report.compare import Comparison, scores
from imagenette.report.runs import TrackedRun
from imagenette.report.study import Arm, Study
from imagenette.stats import (
    LEVEL,
    Contrast,
    Parts,
    Scores,
    Spread,
    apart,
    holm,
    may_be_best,
    off_the_line,
    parts,
    runs_needed,
    shares_of_being_best,
    smallest_difference,
    trend,
)

SIZE = 0.01
"""The difference whose price in seeds is named, where the study names no margin."""
_SAME_COST = 1.1  # arms whose times lie within this factor cost the same: devices are not steadier


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Along a knob, one step to its next higher value."""

    knob: str
    values: int
    step: Contrast
    """What a step adds to the accuracy, on average."""
    p_corrected: float
    """Holm's, over the study's knobs."""
    odd: tuple[str, float] | None = None
    """The arm that lies farthest off the line through the others, more than chance (Holm's over the arms),
    and by how much; where one knob varies."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """The first epoch whose test accuracy is the target or more, of the runs that reach it."""

    runs: int
    """That reach it."""
    epochs: float | None = None
    """Mean over them."""
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Power:
    """Of a study of arms against a baseline."""

    detectable: float
    """The true difference that four of five such studies find; median over arms."""
    size: float
    """A difference of interest: the study's margin, else SIZE."""
    needed: int | None
    """Runs of each arm for that one; None where not even 200 find it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """Of one study; what it cannot tell is empty."""

    compared: tuple[str, ...] = ()
    """Arms that all of this is about."""
    trends: tuple[Trend, ...] = ()
    best: tuple[str, ...] = ()
    """Arms among which the best is, in 95 % of studies."""
    chances: Mapping[str, float] = field(default_factory=dict)
    """Arm -> in what share of draws it is the best."""
    front: tuple[str, ...] = ()
    """Arms that no other beats in both accuracy and time; empty where all cost the same."""
    target: float | None = None
    reached: Mapping[str, Reached] = field(default_factory=dict)
    spreads: Mapping[str, Parts] = field(default_factory=dict)
    apart: tuple[tuple[str, int | None, float], ...] = ()
    """(arm, seed, accuracy minus that of its siblings), of runs that lie far from these."""
    power: Power | None = None

    @classmethod
    def of(cls, study: Study, comparisons: Sequence[Comparison]) -> Self:
        known = scores(study)
        if study.search or len(known) < 2:
            return cls()
        spread = Spread.of(list(known.values()))
        best = may_be_best(known, spread) if all(arm.images for arm in known.values()) else []
        seeds = {
            arm.name: [run.seed for run in arm.runs if run.share(study.metric) is not None]
            for arm in study.arms
        }
        target = study.target or _common_target(study)
        return cls(
            compared=tuple(known),
            trends=_trends(study, known, spread),
            best=tuple(best),
            chances=shares_of_being_best(known, spread),
            front=front(study),
            target=target,
            reached={arm.name: _reached(arm, target) for arm in study.arms if arm.runs} if target else {},
            spreads={name: parts(arm) for name, arm in known.items()} if spread.freedom else {},
            apart=tuple((name, seeds[name][place], value) for name, place, value in apart(known, spread)),
            power=_power(study, comparisons, spread),
        )


def _trends(study: Study, known: Mapping[str, Scores], spread: Spread) -> tuple[Trend, ...]:
    ordered = study.ordered()
    steps = {
        knob: trend([known[arm] for arm in places], list(places.values()), spread)
        for knob, places in ordered.items()
    }
    found = {knob: step for knob, step in steps.items() if step is not None}
    corrected = holm([step.p for step in found.values()])
    return tuple(
        Trend(
            knob=knob,
            values=1 + max(ordered[knob].values()),
            step=step,
            p_corrected=p,
            odd=_off_the_line(ordered[knob], known, spread) if len(ordered) == 1 else None,
        )
        for (knob, step), p in zip(found.items(), corrected, strict=True)
    )


def _off_the_line(
    places: Mapping[str, int], known: Mapping[str, Scores], spread: Spread
) -> tuple[str, float] | None:
    if len(places) < 4:
        return None
    arms, at = [known[arm] for arm in places], list(places.values())
    found = [each for n in range(len(arms)) if (each := off_the_line(arms, at, n, spread)) is not None]
    if not found:
        return None
    p, value, arm = min(
        zip(holm([each.p for each in found]), [each.value for each in found], places, strict=True)
    )
    return (arm, value) if p < LEVEL else None


def _power(study: Study, comparisons: Sequence[Comparison], spread: Spread) -> Power | None:
    precise = [each.precision for each in comparisons if each.precision]
    if not precise:
        return None
    found = [smallest_difference(each, comparisons=len(precise)) for each in precise]
    images = statistics.median(each.images**2 for each in comparisons if each.images is not None)
    size = study.margin or SIZE
    arms = len(precise) + 1
    needed = runs_needed(size, arms=arms, variance=spread.variance, images=images)
    return Power(detectable=statistics.median(found), size=size, needed=needed)


def front(study: Study) -> tuple[str, ...]:
    """By the means; of arms whose time and accuracy are known."""
    cost = {arm.name: arm.mean("seconds") for arm in study.arms}
    means = {arm.name: arm.estimate(study.metric).mean for arm in study.arms}
    known = {
        name: (seconds, mean)
        for name, seconds in cost.items()
        if seconds and (mean := means[name]) is not None
    }
    times = [seconds for seconds, _ in known.values()]
    if len(known) < 2 or max(times) < _SAME_COST * min(times):
        return ()
    ranked = sorted(known, key=lambda name: (known[name][0], -known[name][1]))
    front, highest = [], -math.inf
    for name in ranked:
        if known[name][1] > highest:
            front.append(name)
            highest = known[name][1]
    return tuple(front)


def _common_target(study: Study) -> float | None:
    """The greatest whole per cent that every run's test accuracy reached."""
    tops = [run.curves["test/accuracy"][1].max() for run in study.runs if "test/accuracy" in run.curves]
    return math.floor(100 * min(tops) + 1e-9) / 100 or None if tops else None


def _reached(arm: Arm, target: float) -> Reached:
    first = [found for run in arm.runs if (found := _first_epoch(run, target)) is not None]
    times = [seconds for _, seconds in first if seconds is not None]
    return Reached(
        runs=len(first),
        epochs=statistics.fmean(epoch for epoch, _ in first) if first else None,
        seconds=statistics.fmean(times) if times and len(times) == len(first) else None,
    )


def _first_epoch(run: TrackedRun, target: float) -> tuple[float, float | None] | None:
    """The epoch, and the seconds up to its end."""
    epochs, shares = run.curves.get("test/accuracy", ((), ()))
    for epoch, share in zip(epochs, shares, strict=True):
        if share >= target:
            at = dict(zip(*run.elapsed, strict=True)) if run.elapsed else {}
            return float(epoch), at.get(epoch)
    return None
