"""A tracker whose run is found or made only once the training that it belongs to is under way.

MLflow's import alone takes about as long as torch's, and a training's first steps need nothing of it: it
happens in a thread, after the first step, which would otherwise wait for Python's lock. The first record
waits for it, so that everything after is as if it had come first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from imagenette.records import Epoch
from imagenette.tracking import Tracker


class OpeningTracker:
    """See `imagenette.tracking.Tracker`. Each call waits for the run, and raises what kept it from being had;
    `begin` and `lost` alone never wait. Whichever thread asks first, the run is opened once: the watch over
    other hosts may have to say how it ended while the training's own thread hangs."""

    def __init__(self, open_run: Callable[[], Tracker]) -> None:
        self._open_run = open_run
        self._opening: Future[Tracker] | None = None
        self._asking = Lock()

    def begin(self) -> None:
        self._begun()

    def _begun(self) -> Future[Tracker]:
        with self._asking:
            if self._opening is None:
                thread = ThreadPoolExecutor(1, thread_name_prefix="imagenette-opening")
                self._opening = thread.submit(self._open_run)
                thread.shutdown(wait=False)  # takes no more work; the thread ends with its one
            return self._opening

    def _opened(self) -> Tracker:
        return self._begun().result()

    @property
    def lost(self) -> bool:
        begun = self._opening
        return begun is not None and begun.done() and begun.exception() is not None

    @property
    def run_id(self) -> str | None:
        return self._opened().run_id

    def log(self, epoch: Epoch) -> None:
        self._opened().log(epoch)

    def tag(self, **tags: str) -> None:
        self._opened().tag(**tags)

    def artifact(self, path: Path, folder: str = "") -> None:
        self._opened().artifact(path, folder)

    def model(self, name: str, path: Path, *, step: int, metrics: dict[str, float]) -> None:
        self._opened().model(name, path, step=step, metrics=metrics)

    def result(self, metrics: dict[str, float], step: int) -> None:
        self._opened().result(metrics, step)

    def close(self, status: str, description: str | None = None) -> int:
        return self._opened().close(status, description)
