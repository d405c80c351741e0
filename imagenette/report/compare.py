"""Every arm against the baseline, and what may be said of it.

A difference must hold for other test images and for other seeds. So two tests are made where there are seeds:
McNemar's on the stored predictions, pooled over seeds, for the images; a t-test over the runs' accuracies,
for the seeds. The larger p counts, Holm's correction goes over the table, and 5 % decides.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from imagenette.report.runs import TrackedRun
from imagenette.report.study import Arm, Study
from imagenette.stats import (
    LEVEL,
    Answers,
    Difference,
    Interval,
    McNemar,
    holm,
    mcnemar,
    over_seeds,
    paired_shares,
    unpaired_shares,
)

Verdict = Literal["better", "worse", "open"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An arm against the baseline, by one accuracy."""

    arm: str
    baseline: str
    value: float
    """Arm minus baseline, of the means over their runs."""
    interval: Interval | None
    """95 %, for this pair alone: over seeds, or of one run each over test images."""
    runs: tuple[int, int]
    """How many the arm and the baseline have."""
    pairs: int
    """Pairs of runs whose stored predictions were compared."""
    images: McNemar | None
    """On those predictions; None where there are none."""
    p_images: float | None
    """McNemar's; Fisher's, unpaired, without predictions; None where not even their number is known."""
    p_seeds: float | None
    """Over the runs' accuracies; None of one run each."""
    p: float | None
    """The larger of the two; None of a pair that could not be tested."""
    p_corrected: float | None
    """Holm's, over all pairs that were tested."""

    @property
    def verdict(self) -> Verdict:
        if self.p_corrected is None or self.p_corrected >= LEVEL or self.value * self.surplus < 0:
            return "open"
        return "better" if self.value > 0 else "worse"

    @property
    def surplus(self) -> int:
        """Images that the arm alone has right, minus those that the baseline alone has right."""
        return self.images.better - self.images.worse if self.images else 0

    @property
    def one_run_each(self) -> bool:
        return self.runs == (1, 1)


def compare(study: Study) -> list[Comparison]:
    """Each arm that has the study's metric against the baseline, in the study's order."""
    base = study.baseline
    if base is None or not base.shares(study.metric):
        return []
    others = [arm for arm in study.arms if arm is not base and arm.shares(study.metric)]
    found = [_compare(arm, base, study.metric) for arm in others]
    corrected = iter(holm([each.p for each in found if each.p is not None]))
    return [each if each.p is None else replace(each, p_corrected=next(corrected)) for each in found]


def _compare(arm: Arm, base: Arm, metric: str) -> Comparison:
    ours, theirs = ([run for run in side.runs if run.share(metric) is not None] for side in (arm, base))
    pairs = _paired(ours, theirs, metric)
    images = mcnemar(*pairs) if pairs else None
    over_images = _over_images(ours, theirs, pairs, images, metric)
    seeds = _over_seeds(arm, base, metric)
    shown = seeds or over_images
    ps = [difference.p for difference in (seeds, over_images) if difference]
    return Comparison(
        arm=arm.name,
        baseline=base.name,
        value=statistics.fmean(arm.shares(metric)) - statistics.fmean(base.shares(metric)),
        interval=shown.interval if shown else None,
        runs=(len(ours), len(theirs)),
        pairs=len(pairs[0]) if pairs else 0,
        images=images,
        p_images=over_images.p if over_images else None,
        p_seeds=seeds.p if seeds else None,
        p=max(ps, default=None),
        p_corrected=None,
    )


def _over_seeds(arm: Arm, base: Arm, metric: str) -> Difference | None:
    ours, theirs = arm.shares(metric), base.shares(metric)
    if len(ours) == len(theirs) == 1:
        return None
    return over_seeds(ours, theirs, step=max(arm.step, base.step))


def _paired(
    ours: Sequence[TrackedRun], theirs: Sequence[TrackedRun], metric: str
) -> tuple[Answers, Answers] | None:
    """[pairs, images] each: runs of the same seed, then others in the order of their seeds, of those whose
    predictions are there and are of the images that most are of."""
    usable = [run for run in (*ours, *theirs) if run.right(metric) is not None]
    if not usable:
        return None
    most = Counter(run.images for run in usable).most_common(1)[0][0]
    left, right = (
        {run.seed: run.right(metric) for run in side if run in usable and run.images == most}
        for side in (ours, theirs)
    )
    same = [seed for seed in left if seed in right]
    rest = zip([s for s in left if s not in same], [s for s in right if s not in same], strict=False)
    matched = [*((seed, seed) for seed in same), *rest]
    if not matched:
        return None
    return np.array([left[one] for one, _ in matched]), np.array([right[other] for _, other in matched])


def _over_images(
    ours: Sequence[TrackedRun],
    theirs: Sequence[TrackedRun],
    pairs: tuple[Answers, Answers] | None,
    images: McNemar | None,
    metric: str,
) -> Difference | None:
    """For other test images: paired where possible. Without predictions each image counts once, however many
    seeds saw it."""
    if pairs and images:
        return paired_shares(images, pairs[0].size)
    n, m = (min((run.test_images or 0 for run in side), default=0) for side in (ours, theirs))
    if not n or not m:
        return None
    share, rival = (
        statistics.fmean(s for run in side if (s := run.share(metric)) is not None) for side in (ours, theirs)
    )
    return unpaired_shares(round(share * n), n, round(rival * m), m)
