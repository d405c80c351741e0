"""Which differences are real. Exact tests, scipy underneath; knows neither runs nor models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

LEVEL = 0.05
"""A difference is called significant below this p."""


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


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """McNemar's exact test. first, second: [n], whether each classifier has each image right."""
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} images cannot be paired")
    better, worse = int((first & ~second).sum()), int((second & ~first).sum())
    p = float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0
    return McNemar(better, worse, p)
