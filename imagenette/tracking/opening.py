"""A tracker whose run is still being found or made, while the training that it belongs to has begun.

MLflow's import alone takes about as long as torch's, and a training's first steps need nothing of it: it
happens in a thread. The first record waits for it, so that everything after is as if it had come first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from imagenette.records import Epoch
from imagenette.tracking import Tracker


class OpeningTracker:
    """See `imagenette.tracking.Tracker`. Each call waits for the run, and raises what kept it from being had;
    `lost` alone never waits."""

    def __init__(self, open_run: Callable[[], Tracker]) -> None:
        thread = ThreadPoolExecutor(1, thread_name_prefix="imagenette-opening")
        self._opening = thread.submit(open_run)
        thread.shutdown(wait=False)  # takes no more work; the thread ends with its one

    @property
    def lost(self) -> bool:
        return self._opening.done() and self._opening.exception() is not None

    @property
    def run_id(self) -> str | None:
        return self._opening.result().run_id

    def log(self, epoch: Epoch) -> None:
        self._opening.result().log(epoch)

    def tag(self, **tags: str) -> None:
        self._opening.result().tag(**tags)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._opening.result().artifact(path, folder)

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        self._opening.result().model(name, path, step=step, metrics=metrics)

    def result(self, metrics: dict[str, float], step: int) -> None:
        self._opening.result().result(metrics, step)

    def close(self, status: str, description: str | None = None) -> int:
        return self._opening.result().close(status, description)
