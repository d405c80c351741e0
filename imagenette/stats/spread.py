"""What an arm's runs scatter by: the tosses of single images, what seeds add, and what other images would."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import special

from imagenette.stats.arms import Scores, Spread, covariance
from imagenette.stats.shares import LEVEL, holm

_Name = TypeVar("_Name")


@dataclass(frozen=True)
class Parts:
    """Of an arm's accuracies, as standard deviations."""

    measured: float | None
    """Of its runs, over seeds; None of one run."""
    flips: float | None
    """What tosses of single images alone would give: the floor of the above. None without the predictions of
    two runs."""
    seeds: float | None
    """What is left: seeds that are better or worse throughout. None where one of the two is not known."""
    images: float | None
    """Of the arm's mean, over new images; None where their number is not known."""
    p_low: float | None
    """p of a spread as small as measured, were it the floor: below a level, it is luck."""

    @property
    def too_low(self) -> bool:
        return self.p_low is not None and self.p_low < LEVEL


def parts(arm: Scores) -> Parts:
    """What an arm's accuracies scatter by."""
    measured = arm.variance if arm.freedom > 0 else None
    flips = arm.flips
    p_low = None
    if measured is not None and flips:
        p_low = float(special.chdtr(arm.freedom, arm.freedom * measured / flips))
    over = covariance([arm])
    return Parts(
        measured=_root(measured),
        flips=_root(flips),
        seeds=None if measured is None or flips is None else _root(measured - flips),
        images=None if over is None else _root(float(over[0, 0])),
        p_low=p_low,
    )


def apart(arms: Mapping[_Name, Scores], spread: Spread) -> list[tuple[_Name, int, float]]:
    """Runs that lie far from their siblings: (arm, place among its runs, accuracy minus the siblings' mean),
    by Crawford and Howell's test against the siblings, whose spread is drawn towards that of all the others;
    Holm's correction goes over every run of the study."""
    tested: list[tuple[_Name, int, float]] = []
    ps = []
    for name, arm in arms.items():
        for place in range(arm.runs) if arm.runs > 2 else ():
            rest = [*arm.accuracies[:place], *arm.accuracies[place + 1 :]]
            siblings = Scores(rest, arm.images)
            others = Spread.of([siblings, *(other for key, other in arms.items() if key != name)])
            variance, freedom = others.moderated(siblings) or (spread.variance, float(spread.freedom))
            error = math.sqrt(variance * (1 + 1 / len(rest)))
            value = arm.accuracies[place] - float(np.mean(rest))
            tested.append((name, place, value))
            tail = float(special.stdtr(freedom, -abs(value) / error)) if error else float(not value)
            ps.append(min(1.0, 2 * tail))
    return [each for each, p in zip(tested, holm(ps), strict=True) if p < LEVEL]


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(max(0.0, value))
