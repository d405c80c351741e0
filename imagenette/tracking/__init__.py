"""What a run tells the world: the Tracker protocol, the null tracker, and what a run is opened with.

Importing this imports neither MLflow nor torch. Rank 0 opens an MLflow tracker, every other rank
holds a NullTracker, so that no caller ever asks which rank it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagenette.records import Epoch


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The data a run was trained on, as MLflow's one data set input."""

    name: str
    digest: str
    """64 hex digits. MLflow shows the first 8; the tag `data_digest` keeps them all."""
    source: str
    """Where it came from: a path or an address."""
    train_images: int
    test_images: int
    classes: int
    side: int
    """Pixels along one side of the decoded pictures."""


@dataclass(frozen=True, kw_only=True)
class RunHeader:
    """Everything known of a run before its first step."""

    experiment: str
    run_name: str
    params: dict[str, str]
    """Canonical text of every knob. Under `mlflow run` the raw text logged there stays."""
    tags: dict[str, str]
    dataset: DatasetInfo
    parent_run_id: str | None = None


class Tracker(Protocol):
    """Where a run's records go. Once the run is found or made, nothing here raises for a dead server, or
    waits for it, but `close`."""

    @property
    def run_id(self) -> str | None:
        """None while no server knows the run (offline)."""

    @property
    def lost(self) -> bool:
        """Whether the run turned out not to be had: whoever trains should stop, and every call here raises
        why."""

    def begin(self) -> None:
        """Told at each step that training is under way: what takes long may go on beside it from now on."""

    def log(self, epoch: Epoch) -> None:
        """Record an epoch, the first time its index comes; again is a no-op."""

    def tag(self, **tags: str) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file (or a folder of files), shown under `folder`."""

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        """Record the MLflow model folder that `imagenette.network.export.save_model` wrote at `path`."""

    def result(self, metrics: dict[str, float], step: int) -> None:
        """Record `best/...` and `final/...`; the last call wins."""

    def close(self, status: str, description: str | None = None) -> int:
        """End the run with a status word (finished, preempted, failed, diverged, ...) and flush.

        Returns how many records the server still lacks, those it refused included; 0 is all.
        """


class NullTracker:
    """Tracks nothing: every rank but 0."""

    run_id: str | None = None
    lost = False

    def begin(self) -> None:
        pass

    def log(self, epoch: Epoch) -> None:
        pass

    def tag(self, **tags: str) -> None:
        pass

    def artifact(self, path: Path, folder: str = "") -> None:
        pass

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        pass

    def result(self, metrics: dict[str, float], step: int) -> None:
        pass

    def close(self, status: str, description: str | None = None) -> int:
        return 0


def null_tracker() -> NullTracker:
    """For ranks other than 0: forgets MLFLOW_RUN_ID too, so that no fluent call adopts that run."""
    os.environ.pop("MLFLOW_RUN_ID", None)
    return NullTracker()


def open_tracker(
    output: Path, header: RunHeader, *, tracking_uri: str | None, offline: bool, resume: bool
) -> Tracker:
    """Open or go on with the run that the folder `output` belongs to.

    Raises RunError, in one line and within 10 s, if the server is dead; InputError if the folder
    belongs to another run (and not `resume`) or to a process that still trains.
    """
    return begin_tracker(output, header, tracking_uri=tracking_uri, offline=offline, resume=resume)()


def begin_tracker(
    output: Path, header: RunHeader, *, tracking_uri: str | None, offline: bool, resume: bool
) -> Callable[[], Tracker]:
    """`open_tracker` in two: what it refuses at once, and then the rest, to be called once, which imports
    MLflow and finds or makes the run."""
    from imagenette.tracking.mlflow_tracker import open_mlflow_tracker

    return open_mlflow_tracker(output, header, tracking_uri=tracking_uri, offline=offline, resume=resume)
