"""A tracked run, and a whole study, as a report sees them: plain records, checked one value at a time. They
know no MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imagenette.results import TEST_ACCURACIES, Status
from imagenette.tracking.study_plan import StudyPlan

CURVES = ("train/accuracy", "test/accuracy", "train/loss", "test/loss")
Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
"""Epochs and values, both [n], by epoch; no value is NaN."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedRun:
    """One training run."""

    run_id: str
    name: str
    arm: str
    seed: int | None
    state: str = Status.FINISHED
    """`finished`; else how it stands: `running`, `failed: loss not finite at epoch 3`, ..."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, float] = field(default_factory=dict)
    """Accuracies as they were logged, sound or not."""
    test_images: int | None = None
    seconds: float | None = None
    """Of training and evaluation, summed over all epochs."""
    images_per_second: float | None = None
    """Median over the epochs."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Those of CURVES that it has."""
    elapsed: Curve | None = None
    """Seconds of training and evaluation up to the end of each epoch; None where an epoch's are not known."""
    answers: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    """Accuracy's name -> [n] whether each test image was right, as the stored predictions say."""
    images: str = ""
    """Digest of those images and their classes in their order: runs with the same one can be paired."""
    flaws: tuple[str, ...] = ()
    """What could not be read of it, in words that follow its name."""

    @property
    def finished(self) -> bool:
        return self.state == Status.FINISHED

    @property
    def data_digest(self) -> str:
        return self.tags.get("data_digest", "")

    def share(self, metric: str) -> float | None:
        """An accuracy; None if it is missing or no share."""
        value = self.claims.get(metric)
        return value if value is not None and 0 <= value <= 1 else None

    def right(self, metric: str) -> npt.NDArray[np.bool_] | None:
        """[n] whether it has each test image right, where its predictions bear out the accuracy."""
        right, share = self.answers.get(metric), self.share(metric)
        if right is None or share is None or abs(share - right.mean()) > 1e-6:
            return None
        return right

    def complaints(self) -> list[str]:
        """What is wrong with it, in words that follow its name."""
        wrong = list(self.flaws)
        for metric in TEST_ACCURACIES:
            value = self.claims.get(metric)
            if value is None:
                wrong.append(f"has no {metric}")
            elif self.share(metric) is None:
                text = "inf" if abs(value) >= 1e300 else f"{value:.4g}"  # MLflow has 1.8e308 for inf
                wrong.append(f"claims {metric}={text}, which is no share in [0, 1]")
            elif metric in self.answers and self.right(metric) is None:
                stored = self.answers[metric].mean()
                wrong.append(f"claims {metric}={value:.4f}, its predictions say {stored:.4f}")
        return wrong


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracked:
    """All that the server has of a study."""

    experiment_id: str
    experiment: str
    others: tuple[str, ...]
    """Experiments that have an older study of this name."""
    parents: tuple[str, ...]
    """Ids of the runs that it is shown under, the newest first; several where a study was made anew."""
    status: str
    """How the newest of them stands; empty without one."""
    plan: StudyPlan | None
    """None where no parent run says what was planned."""
    problem: str
    """Why there is no plan."""
    runs: tuple[TrackedRun, ...]
    """The oldest first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Champion:
    """What the registered best model says of every test image."""

    name: str
    """Of the registered model."""
    version: str
    run_id: str
    study: str
    data_digest: str
    classes: tuple[str, ...]
    """Readable, in the order of their numbers."""
    counts: npt.NDArray[np.int64]
    """[classes, classes]: row is the true class, column the predicted one."""


def number(text: object) -> float | None:
    """None of what is no finite number."""
    try:
        value = float(text) if isinstance(text, str | int | float) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e300 else None
