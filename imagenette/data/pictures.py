"""Rows of an epoch's plan to uint8 pictures, on the CPU's threads. `resident` does the same on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imagenette.data.dataset import Split
from imagenette.data.plan import Ints
from imagenette.data.prepare import Pixels, resize

Flips = npt.NDArray[np.bool_]
Made = Callable[[], tuple[Tensor, Tensor]]
"""Waits, and returns uint8 [b, 3, size, size], channels last in memory, and int64 [b], the labels."""
Start = Callable[[slice, int], Made]
"""Begins to make the pictures of some rows at a size, px."""


class Pictures(Protocol):
    """Crops, resizes (bilinear, antialiased) and mirrors the images of one split."""

    device: torch.device
    """Where the pictures are when they are made."""

    def rows(self, order: Ints, boxes: Ints, flips: Flips) -> Start:
        """order: positions in the split; boxes: top, left, height, width, px of the stored image."""


class ThreadedPictures:
    """By torchvision's native uint8 kernel, image by image."""

    device = torch.device("cpu")

    def __init__(self, split: Split, *, threads: int) -> None:
        self._images = torch.from_numpy(split.images)  # [n, side, side, 3], a memory map
        self._labels = torch.from_numpy(split.labels)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resize")

    def rows(self, order: Ints, boxes: Ints, flips: Flips) -> Start:
        def start(rows: slice, size: int) -> Made:
            chosen = order[rows]
            out = np.empty((len(chosen), size, size, 3), dtype=np.uint8)
            shares = [slice(t, None, self._threads) for t in range(self._threads)]
            futures = [
                self._pool.submit(self._fill, out[s], chosen[s], boxes[rows][s], flips[rows][s])
                for s in shares
            ]

            def made() -> tuple[Tensor, Tensor]:
                for future in futures:
                    future.result()
                return torch.from_numpy(out).permute(0, 3, 1, 2), self._labels[chosen]

            return made

        return start

    def _fill(self, out: Pixels, order: Ints, boxes: Ints, flips: Flips) -> None:
        for row, index, (top, left, height, width), flip in zip(
            out, order, boxes.tolist(), flips, strict=True
        ):
            picture = resize(self._images[index, top : top + height, left : left + width], len(row))
            row[:] = picture[:, ::-1] if flip else picture
