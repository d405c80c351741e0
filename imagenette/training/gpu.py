"""What keeps a GPU busy: a training step recorded once and replayed, and readings that do not wait for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from imagenette.errors import as_line

EAGER = 3  # steps of one shape before it is recorded: the first ones allocate, choose kernels, fill momentum


class Turns:
    """What to do with the next batch, by the shapes of those before: nothing that needs a GPU.

    A batch of another shape (an epoch's last one) is learned plainly; once EAGER of them came in a row (a new
    resolution), the step is recorded anew. From the second on, the recording is of no more use: its memory is
    given back while the new shape warms up.
    """

    def __init__(self) -> None:
        self.recorded: torch.Size | None = None
        """The shape that can be replayed."""
        self.possible = True
        """Whether recording has not failed."""
        self._shape: torch.Size | None = None
        self._in_a_row = 0

    def next(self, shape: torch.Size) -> Literal["plain", "drop", "record", "replay"]:
        """drop: give up the recording, then learn plainly."""
        if shape == self.recorded:
            self._in_a_row = 0
            return "replay"
        self._in_a_row = self._in_a_row + 1 if shape == self._shape else 1
        self._shape = shape
        if self._in_a_row > EAGER and self.possible:
            self._in_a_row = 0
            self.recorded = shape
            return "record"
        if self._in_a_row > 1 and self.recorded is not None:
            self.recorded = None
            return "drop"
        return "plain"

    def failed(self) -> None:
        """The step cannot be recorded: from here on every batch is learned plainly."""
        self.recorded, self.possible = None, False


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """It there, without waiting for a GPU."""
    return staged(tensor, device).to(device, non_blocking=True)


def staged(tensor: Tensor, device: torch.device) -> Tensor:
    """In memory from which a copy to that device waits for nothing: from ordinary memory it waits for a
    GPU."""
    return tensor.pin_memory() if device.type == "cuda" and not tensor.is_cuda else tensor


class Recorded:
    """learn(images, labels) as a CUDA graph: one launch a step instead of some hundreds, for which small
    networks at small batches would otherwise wait. learn must be device work alone.

    Steps before the recording are steps like any other. A network whose step cannot be recorded (one that
    reads a number from the device) is trained by plain steps, which is said once. forget: what undoes a
    recording that broke off in the middle of a step.
    """

    def __init__(self, learn: Callable[[Tensor, Tensor], None], *, forget: Callable[[], None]) -> None:
        self._learn, self._forget = learn, forget
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = torch.empty(0)
        self._stream = torch.cuda.Stream()
        self._turns = Turns()

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        turn = self._turns.next(images.shape)
        if turn == "drop":
            self._graph = None
            self._images = self._labels = torch.empty(0)
        if turn == "record" and not self._record(images, labels):
            self._turns.failed()
            turn = "plain"
        if turn in ("plain", "drop"):
            self._run(images, labels)
            return
        self._images.copy_(images)
        self._labels.copy_(labels)
        assert self._graph is not None
        self._graph.replay()

    def _run(self, images: Tensor, labels: Tensor) -> None:
        """A step on the stream that recording uses: what is allocated there can be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._learn(images, labels)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _record(self, images: Tensor, labels: Tensor) -> bool:
        """Note what learn() launches; nothing is computed. False where that cannot be."""
        self._graph = None  # frees the last one's memory before the next is made
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._learn(self._images, self._labels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._forget()
            why = as_line(str(error).partition("\n")[0], limit=120)
            print(
                f"imagenette: the step cannot be recorded ({why}): plain steps, which are slower",
                file=sys.stderr,
            )
            return False
        self._graph = graph
        return True


class Reading:
    """A number on a device, fetched without waiting: requested now, there once the device gets that far."""

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._value = torch.zeros((), dtype=torch.float64, pin_memory=cuda)
        self._arrived = torch.cuda.Event() if cuda else None
        self._pending = False

    def request(self, value: Tensor) -> None:
        self._value.copy_(value, non_blocking=True)
        if self._arrived:
            self._arrived.record()
        self._pending = True

    def take(self) -> float | None:
        """The number requested last, once; None while it is under way."""
        if not self._pending or (self._arrived and not self._arrived.query()):
            return None
        self._pending = False
        return float(self._value)
