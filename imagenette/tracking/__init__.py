"""What goes to MLflow, and never gets lost: a run's records lie in its output folder before they are sent.

Owns the tracker, the outbox on disk, the thread that empties it, runs that were there before (`mlflow run`'s,
a study's parent), `sync` and `doctor`. Never imports training, study or report. Importing it, or the tracker,
imports neither MLflow nor torch.
"""

from __future__ import annotations

from pathlib import Path

from imagenette.records import Epoch
from imagenette.results import Status
from imagenette.tracking.environment import take_outer_run


class Tracker:
    """Where a run's records go. This one keeps none: every rank but 0 holds it, so that no caller asks for
    its rank. Rank 0 holds the `MlflowTracker`, whose methods may raise what kept its run from being
    opened."""

    @property
    def run_id(self) -> str | None:
        """None while no server knows the run (offline)."""
        return None

    @property
    def pages(self) -> list[str]:
        """Addresses in MLflow's pages, once the run is open: the run, and the leaderboard. Waits for
        nothing."""
        return []

    @property
    def lost(self) -> bool:
        """Whether the run could not be opened: the training should stop, for every record would be
        refused."""
        return False

    def opened(self, *, within: float) -> bool:
        """Wait so many seconds for the run to be opened; raises what kept it from being."""
        return True

    def begin(self) -> None:
        """Called after each step: training is under way, and what takes long may go on beside it."""

    def log(self, epoch: Epoch) -> None:
        """Record an epoch, the first time its index comes; again is a no-op."""

    def tag(self, **tags: str) -> None: ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file (or a folder of files), shown under `folder`."""

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        """Record the MLflow model folder that `imagenette.network.export.save_model` wrote at `path`."""

    def result(self, metrics: dict[str, float]) -> None:
        """Record `best/...` and `final/...`; the last call wins."""

    def close(self, status: Status, description: str | None = None) -> int:
        """End the run and flush. Returns how many records the server still lacks, those it refused
        included."""
        return 0


def null_tracker() -> Tracker:
    """For ranks other than 0: forgets MLFLOW_RUN_ID too, so that no fluent call adopts that run."""
    take_outer_run()
    return Tracker()
