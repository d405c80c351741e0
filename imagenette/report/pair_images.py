"""Which test images two sides answer differently, and what each says of them. Pure functions of stored
predictions; a side is one run, or several of one arm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
import numpy.typing as npt

from imagenette.artifacts import Answers
from imagenette.drawing import shortened


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a side says of an image."""

    right: float
    """Share of its runs that have it right."""
    predicted: str
    """The class that most of its runs give it: a folder's name."""
    votes: int
    """How many do."""
    runs: int
    share: float | None
    """The probability that those give it, on average; None where it is not stored."""

    def words(self, labels: Mapping[str, str], *, limit: int | None = None) -> str:
        """`gas pump 98 %`; of several runs `gas pump 2 of 3`."""
        label = labels.get(self.predicted, self.predicted)
        label = shortened(label, limit=limit) if limit else label
        if self.runs > 1:
            return f"{label} {self.votes} of {self.runs}"
        return label if self.share is None else f"{label} {100 * self.share:.0f} %"


@dataclass(frozen=True, kw_only=True)
class Differing:
    """A test image that one side has right more often than the other."""

    name: str
    """`val/n01440764/x.JPEG`"""
    label: str
    """Its class: a folder's name."""
    a: Said
    b: Said


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """The test images of a pair. A side has an image right if more than half of its runs have."""

    both: int
    only_a: int
    only_b: int
    neither: int
    differing: tuple[Differing, ...]
    """Where most of one side's runs, and fewest of the other's, are right first; of those, the surest answers
    first."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Folder's name -> class's readable name."""

    @property
    def total(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither


def images_of(a: Sequence[Answers], b: Sequence[Answers], metric: str, labels: Mapping[str, str]) -> Images:
    """metric: SELECTED or FINAL. All answers are of the same images in the same order; one or more a side."""
    rights = [_right(side, metric) for side in (a, b)]
    has_a, has_b = (right > 0.5 for right in rights)
    differing = [
        Differing(
            name=a[0].names[i],
            label=a[0].labels[i],
            a=_said(a, metric, i, float(rights[0][i])),
            b=_said(b, metric, i, float(rights[1][i])),
        )
        for i in np.flatnonzero(rights[0] != rights[1]).tolist()
    ]
    differing.sort(key=lambda image: (-abs(image.a.right - image.b.right), -_sureness(image)))
    return Images(
        both=int((has_a & has_b).sum()),
        only_a=int((has_a & ~has_b).sum()),
        only_b=int((~has_a & has_b).sum()),
        neither=int((~has_a & ~has_b).sum()),
        differing=tuple(differing),
        labels=labels,
    )


def _right(side: Sequence[Answers], metric: str) -> npt.NDArray[np.float64]:
    return np.asarray(np.mean([answers.right(metric) for answers in side], axis=0))


def _said(side: Sequence[Answers], metric: str, image: int, right: float) -> Said:
    predicted, votes = Counter(answers.predicted[metric][image] for answers in side).most_common(1)[0]
    shares = [
        answers.shares[metric][image]
        for answers in side
        if metric in answers.shares and answers.predicted[metric][image] == predicted
    ]
    share = fmean(shares) if len(shares) == votes else None
    return Said(right=right, predicted=predicted, votes=votes, runs=len(side), share=share)


def _sureness(image: Differing) -> float:
    return (image.a.share or 0.0) + (image.b.share or 0.0)
