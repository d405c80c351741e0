"""Every arm against the baseline, and what may be said of it.

A difference must hold for other seeds and for other test images, so both are random in one test, the
two-level moderated Welch test of `imagenette.stats`; Holm's correction goes over the table, and 5 %
decides.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from imagenette.report.study import Arm, Study
from imagenette.stats import LEVEL, Contrast, Interval, Precision, Scores, Spread, holm, two_level

Verdict = Literal["better", "worse", "equal", "open"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm against the baseline, by one accuracy."""

    arm: str
    baseline: str
    value: float
    """Arm minus baseline, of the means over their runs."""
    interval: Interval | None
    """95 %, for this pair alone, for new seeds and new images; of a study of single runs for new images."""
    runs: tuple[int, int]
    """How many the arm and the baseline have."""
    told: tuple[int, int]
    """Of how many of them the predictions of the same images are stored."""
    seeds: float | None = None
    """Standard error of the difference over new seeds; None where they are not in the test."""
    images: float | None = None
    """Standard error of the difference over new images, likewise."""
    p: float | None = None
    """None of a pair that could not be tested."""
    p_corrected: float | None = None
    """Holm's, over all pairs that were tested."""
    freedom: float | None = None
    """Degrees of freedom of Student's t; None where seeds are not in the test."""
    p_beyond: float | None = None
    """Of a difference as large as the study's margin or larger, corrected likewise; None without a margin
    and where seeds are not in the test."""

    @property
    def verdict(self) -> Verdict:
        if self.p_corrected is not None and self.p_corrected < LEVEL:
            return "better" if self.value > 0 else "worse"
        return "equal" if self.within_margin else "open"

    @property
    def words(self) -> str:
        """The verdict as a table says it."""
        if self.p is None:
            return "not tested"
        return {"equal": "practically equal", "open": "no difference shown"}.get(self.verdict, self.verdict)

    @property
    def real(self) -> bool:
        return self.verdict in ("better", "worse")

    @property
    def within_margin(self) -> bool:
        """Whether the difference is shown to be smaller than the study's margin."""
        return self.p_beyond is not None and self.p_beyond < LEVEL

    @property
    def precision(self) -> Precision | None:
        if self.seeds is None or self.images is None or self.freedom is None:
            return None
        return Precision(math.hypot(self.seeds, self.images), self.freedom)

    @property
    def paired(self) -> bool:
        return all(self.told)


def compare(study: Study, *, spread: Spread | None = None) -> list[Comparison]:
    """Each arm that has the study's metric against the baseline, in the study's order. spread: of seeds,
    in place of the study's own."""
    base = study.baseline
    if base is None or not base.shares(study.metric):
        return []
    known = scores(study)
    spread = spread or Spread.of(list(known.values()))
    found = [_compare(name, base.name, known, spread, study.margin) for name in known if name != base.name]
    corrected = iter(holm([each.p for each in found if each.p is not None]))
    beyond = iter(holm([each.p_beyond for each in found if each.p_beyond is not None]))
    return [
        replace(
            each,
            p_corrected=None if each.p is None else next(corrected),
            p_beyond=None if each.p_beyond is None else next(beyond),
        )
        for each in found
    ]


def scores(study: Study) -> dict[str, Scores]:
    """Each arm that has the study's metric. Predictions count that are of the images most runs are of."""
    usable = [run for run in study.runs if run.right(study.metric) is not None]
    most = Counter(run.images for run in usable).most_common(1)[0][0] if usable else ""
    return {arm.name: _scores(arm, study.metric, most) for arm in study.arms if arm.shares(study.metric)}


def _scores(arm: Arm, metric: str, images: str) -> Scores:
    runs = [run for run in arm.runs if run.share(metric) is not None]
    told = [right for run in runs if run.images == images and (right := run.right(metric)) is not None]
    known = [run.test_images for run in runs]
    count = min(n for n in known if n) if all(known) else None
    return Scores(arm.shares(metric), count, np.array(told) if told else None)


def _compare(
    arm: str, base: str, known: dict[str, Scores], spread: Spread, margin: float | None
) -> Comparison:
    ours, theirs = known[arm], known[base]
    found = two_level(ours, theirs, spread)
    two = found if isinstance(found, Contrast) else None
    return Comparison(
        arm=arm,
        baseline=base,
        value=ours.mean - theirs.mean,
        interval=found.interval if found else None,
        runs=(ours.runs, theirs.runs),
        told=(ours.told, theirs.told),
        seeds=math.sqrt(two.seeds) if two else None,
        images=math.sqrt(two.images) if two else None,
        p=found.p if found else None,
        freedom=two.freedom if two else None,
        p_beyond=two.p_beyond(margin) if two and margin else None,
    )
