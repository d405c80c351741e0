"""Micro-batching: while the network works, pictures gather, and the next pass takes all of them.

No picture waits for company: an idle network takes a single one at once. Knows models, not HTTP.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imagenette.data.prepare import Pixels
from imagenette.registry.model import Model

Row = npt.NDArray[np.float32]


class Busy(Exception):
    """Too many pictures wait already."""


@dataclass(frozen=True, eq=False)
class _Picture:
    model: Model
    """The one that it was prepared for; a champion that comes meanwhile may see at another resolution."""
    pixels: Pixels
    answer: Future[Row] = field(default_factory=Future)


class Batcher:
    """A thread that runs the network on whatever waits, `batch` pictures at a time."""

    def __init__(
        self, *, batch: int, waiting: int, observe: Callable[[int], None] = lambda pictures: None
    ) -> None:
        """observe: told the number of pictures of each pass."""
        self._batch, self._observe = batch, observe
        self._queue: queue.Queue[_Picture | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="imagenette-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def submit(self, model: Model, pixels: Pixels) -> Future[Row]:
        """The shares [classes] of a picture that model.preprocess made. Raises Busy."""
        picture = _Picture(model, pixels)
        try:
            self._queue.put_nowait(picture)
        except queue.Full:
            raise Busy from None
        return picture.answer

    def close(self) -> None:
        """After the pictures that wait."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        held: _Picture | None = None
        while (first := held or self._queue.get()) is not None:
            together, held, closing = self._gather(first)
            self._observe(len(together))
            self._answer(together)
            if closing:
                return

    def _gather(self, first: _Picture) -> tuple[list[_Picture], _Picture | None, bool]:
        """What waits for the same model as `first`, the next one for another, whether to close after it."""
        together = [first]
        while len(together) < self._batch:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return together, None, True
            if following.model is not first.model:
                return together, following, False
            together.append(following)
        return together, None, False

    def _answer(self, pictures: list[_Picture]) -> None:
        wanted = [picture for picture in pictures if picture.answer.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            shares = wanted[0].model.shares(np.stack([picture.pixels for picture in wanted]))
        except Exception as error:  # every caller learns of it; the thread goes on
            for picture in wanted:
                picture.answer.set_exception(error)
            return
        for picture, row in zip(wanted, shares, strict=True):
            picture.answer.set_result(row)
