"""What keeps a GPU busy: a training step recorded once and replayed, and readings that do not wait for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EAGER = 3  # steps of one shape before it is recorded: the first ones allocate, choose kernels, fill momentum


class Recorded:
    """learn(images, labels) as a CUDA graph: one launch a step instead of some hundreds, for which small
    networks at small batches would otherwise wait. learn must be device work alone.

    Steps before the recording are steps like any other. A batch of another shape (an epoch's last one) is
    learned without the graph; once EAGER of them come in a row (a new resolution), the graph is recorded
    anew.
    """

    def __init__(self, learn: Callable[[Tensor, Tensor], None]) -> None:
        self._learn = learn
        self._graph: torch.cuda.CUDAGraph | None = None
        self._images = self._labels = torch.empty(0)
        self._stream = torch.cuda.Stream()
        self._shape: torch.Size | None = None
        self._in_a_row = 0

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        if self._graph is None or images.shape != self._images.shape:
            self._in_a_row = self._in_a_row + 1 if images.shape == self._shape else 1
            self._shape = images.shape
            if self._in_a_row <= EAGER:
                self._run(images, labels)
                return
            self._record(images, labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        assert self._graph is not None
        self._graph.replay()
        self._in_a_row = 0

    def _run(self, images: Tensor, labels: Tensor) -> None:
        """A step on the stream that recording uses: what is allocated there can be recorded."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._learn(images, labels)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _record(self, images: Tensor, labels: Tensor) -> None:
        """Note what learn() launches; nothing is computed."""
        self._graph = None  # frees the last one's memory before the next is made
        self._images, self._labels = images.clone(), labels.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._learn(self._images, self._labels)
        self._graph = graph


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
