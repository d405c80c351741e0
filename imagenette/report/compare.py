"""Every arm against the baseline, and what may be said of it.

A difference must hold for other test images and for other seeds. So two tests are made where there are seeds:
McNemar's on the stored predictions, pooled over seeds, for the images; Welch's over the runs' accuracies, for
the seeds. The larger p counts, Holm's correction goes over the table, and 5 % decides.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from imagenette.report.runs import TrackedRun
from imagenette.report.study import Arm, Study
from imagenette.stats import (
    LEVEL,
    Difference,
    Interval,
    McNemar,
    holm,
    mcnemar,
    paired_shares,
    unpaired_shares,
    welch,
)

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm against the baseline, by one accuracy."""

    arm: str
    baseline: str
    value: float
    """Arm minus baseline."""
    interval: Interval | None
    """95 %, for this pair alone: over seeds, or over test images where an arm has one run."""
    seeds: int
    """Runs of the arm with fewer."""
    images: McNemar | None
    """On the stored predictions; None where they cannot be paired."""
    p_images: float | None
    """McNemar's; Fisher's, unpaired, without predictions; None where not even their number is known."""
    p_seeds: float | None
    """Welch's; None where an arm has one run."""
    p: float
    """The larger of the two."""
    p_corrected: float
    """Holm's, over the table."""

    @property
    def verdict(self) -> Verdict:
        if self.p_corrected >= LEVEL or (self.images and self.value * self.surplus < 0):
            return "open"
        return "better" if self.value > 0 else "worse"

    @property
    def surplus(self) -> int:
        """Images that the arm alone has right, minus those that the baseline alone has right."""
        return self.images.better - self.images.worse if self.images else 0


def compare(study: Study) -> list[Comparison]:
    """Each arm that has the study's metric against the baseline, in the study's order."""
    base = study.baseline
    if base is None or not base.shares(study.metric):
        return []
    others = [arm for arm in study.arms if arm is not base and arm.shares(study.metric)]
    found = [_compare(arm, base, study.metric) for arm in others]
    corrected = holm([each.p for each in found])
    return [replace(each, p_corrected=p) for each, p in zip(found, corrected, strict=True)]


def _compare(arm: Arm, base: Arm, metric: str) -> Comparison:
    ours, theirs = arm.shares(metric), base.shares(metric)
    seeds = min(len(ours), len(theirs))
    pairs = _pairs(arm, base, metric)
    images = _paired(pairs, metric)
    over_images = _over_images(pairs, images, metric)
    over_seeds = welch(ours, theirs) if seeds > 1 else None
    shown = over_seeds or over_images
    ps = [difference.p for difference in (over_seeds, over_images) if difference]
    return Comparison(
        arm=arm.name,
        baseline=base.name,
        value=shown.value if shown else statistics.fmean(ours) - statistics.fmean(theirs),
        interval=shown.interval if shown else None,
        seeds=seeds,
        images=images,
        p_images=over_images.p if over_images else None,
        p_seeds=over_seeds.p if over_seeds else None,
        p=max(ps, default=1.0),
        p_corrected=1.0,
    )


def _pairs(arm: Arm, base: Arm, metric: str) -> list[tuple[TrackedRun, TrackedRun]]:
    """Runs of the same seed; where there are none, in the order of their seeds."""
    ours = [run for run in arm.runs if run.share(metric) is not None]
    theirs = [run for run in base.runs if run.share(metric) is not None]
    by_seed = {run.seed: run for run in theirs}
    same = [(run, by_seed[run.seed]) for run in ours if run.seed in by_seed]
    return same or list(zip(ours, theirs, strict=False))


def _paired(pairs: Sequence[tuple[TrackedRun, TrackedRun]], metric: str) -> McNemar | None:
    """Over the pairs whose predictions are there and are of the same images."""
    ours, theirs = [], []
    wanted = next((run.answers.images for pair in pairs for run in pair if run.answers), None)
    for one, other in pairs:
        right, left = one.right(metric), other.right(metric)
        if right is None or left is None or one.answers is None or other.answers is None:
            continue
        if one.answers.images == other.answers.images == wanted:
            ours.append(right)
            theirs.append(left)
    return mcnemar(np.array(ours), np.array(theirs)) if ours else None


def _over_images(
    pairs: Sequence[tuple[TrackedRun, TrackedRun]], images: McNemar | None, metric: str
) -> Difference | None:
    """For other test images: paired where possible. Without predictions each image counts once, however many
    seeds saw it."""
    if images is not None:
        count = next(len(right) for pair in pairs if (right := pair[0].right(metric)) is not None)
        return paired_shares(images, count)
    one, other = ([pair[side] for pair in pairs] for side in (0, 1))
    n, m = (min((run.test_images or 0 for run in runs), default=0) for runs in (one, other))
    if not n or not m:
        return None
    share, rival = (
        statistics.fmean(s for run in runs if (s := run.share(metric)) is not None) for runs in (one, other)
    )
    return unpaired_shares(round(share * n), n, round(rival * m), m)
