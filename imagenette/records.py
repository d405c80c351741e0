"""What a training run says about itself: plain frozen records, no tensors, no MLflow."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt


def now_ms() -> int:
    """Milliseconds since 1970, in which MLflow's times and all timestamps of records are."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch. A field's name is its metric's name, the first `_` standing for `/`."""

    index: int
    """1-based; the metric's step."""
    timestamp: int
    """Milliseconds since 1970 at the epoch's end. Fixed here once: MLflow stores a metric sent twice
    with the same timestamp once."""
    train_loss: float
    """Mean loss over the epoch's training images as they were trained on (augmented, smoothed)."""
    train_accuracy: float
    """Share in [0, 1] of those images classified rightly, before each update."""
    holdout_loss: float | None = None
    holdout_accuracy: float | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    lr: float
    """Learning rate of the epoch's last step."""
    speed_images_per_second: float
    """Training images per second, evaluation left out."""
    speed_epoch_seconds: float
    """Training and evaluation."""
    system: dict[str, float] = field(default_factory=dict)
    """Machine readings over the epoch, named as MLflow's system metrics: `cpu_utilization_percentage`..."""

    def metrics(self) -> dict[str, float]:
        """`{"train/loss": 1.2, ..., "lr": 0.1, "system/cpu_utilization_percentage": 97.0}`."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _NOT_METRICS}
        measured = {name.replace("_", "/", 1): value for name, value in named.items() if value is not None}
        return measured | {f"system/{name}": value for name, value in self.system.items()}


_NOT_METRICS = {"index", "timestamp", "system"}


@dataclass(frozen=True)
class Predictions:
    """What a model says of every image of a split, in the split's order; n images."""

    label: npt.NDArray[np.int64]
    """[n] true classes."""
    predicted: npt.NDArray[np.int64]
    """[n] classes with the highest probability."""
    share: npt.NDArray[np.float32]
    """[n] probability of the predicted class."""

    @property
    def accuracy(self) -> float:
        return float((self.label == self.predicted).mean())
