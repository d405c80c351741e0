"""Batches of uint8 pictures on the CPU: rows of the epoch plan, cropped and resized. Draws nothing itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from imagenette.data.dataset import Split
from imagenette.data.plan import Ints, epoch_plan
from imagenette.data.prepare import Pixels, resize


@dataclass(frozen=True)
class Batch:
    """This process's part of one global batch; b images."""

    images: torch.Tensor
    """uint8 [b, 3, size, size], channels last in memory."""
    labels: torch.Tensor
    """int64 [b]."""
    global_size: int
    """Images of this batch over all processes."""


class Resizer:
    """Crops, resizes (bilinear, antialiased, torchvision's native uint8 kernel) and mirrors, on threads."""

    def __init__(self, split: Split, *, threads: int) -> None:
        self._images = torch.from_numpy(split.images)  # [n, side, side, 3], a memory map
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resize")

    def start(
        self, order: Ints, boxes: Ints, flips: npt.NDArray[np.bool_], *, size: int
    ) -> tuple[Pixels, list[Future[None]]]:
        """[b, size, size, 3] that is whole once the futures are done."""
        out = np.empty((len(order), size, size, 3), dtype=np.uint8)
        shares = [slice(t, None, self._threads) for t in range(self._threads)]
        return out, [self._pool.submit(self._fill, out[s], order[s], boxes[s], flips[s]) for s in shares]

    def _fill(self, out: Pixels, order: Ints, boxes: Ints, flips: npt.NDArray[np.bool_]) -> None:
        for row, index, (top, left, height, width), flip in zip(
            out, order, boxes.tolist(), flips, strict=True
        ):
            crop = self._images[index, top : top + height, left : left + width]
            picture = resize(crop, len(out[0]))
            row[:] = picture[:, ::-1] if flip else picture


def shard(count: int, rank: int, world_size: int) -> slice:
    """Rank's contiguous part of `count` rows; parts differ by one row at most and cover each row once."""
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


class TrainBatches:
    """Epochs of training batches, this rank's rows of each."""

    def __init__(
        self,
        split: Split,
        positions: Ints,
        *,
        seed: int,
        batch_size: int,
        drop_last: bool,
        sizes: Sequence[int],
        crop_scale: float,
        flip: bool,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
        ahead: int = 0,
    ) -> None:
        """batch_size: global. positions: of the split, those to train on. sizes: training resolution of each
        epoch, px; the last one's also of those that come after. ahead: batches made while one is in
        use; worth it beside a GPU, while on the CPU it would only disturb the step's own threads."""
        self._split, self._positions = split, positions
        self._labels = torch.from_numpy(split.labels)
        self._seed, self._scale, self._flip = seed, crop_scale, flip
        self._rank, self._world_size, self._ahead = rank, world_size, ahead
        self._sizes, self._resizer = sizes, Resizer(split, threads=threads)
        self._bounds = batch_bounds(len(positions), batch_size, drop_last=drop_last)

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return len(self._bounds)

    @property
    def images(self) -> int:
        """Images per epoch, summed over ranks."""
        return self._bounds[-1][1]

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """Batches of an epoch (1-based) from step `start` on."""
        plan = epoch_plan(
            self._positions,
            self._split.sizes,
            side=self._split.images.shape[1],
            seed=self._seed,
            epoch=epoch,
            scale=self._scale,
            flip=self._flip,
        )
        size = self._sizes[min(epoch, len(self._sizes)) - 1]
        made: deque[tuple[Pixels, list[Future[None]], Ints, int]] = deque()
        for first, last in self._bounds[start:]:
            part = shard(last - first, self._rank, self._world_size)
            rows = slice(first + part.start, first + part.stop)
            order = plan.order[rows]
            pixels, futures = self._resizer.start(order, plan.boxes[rows], plan.flips[rows], size=size)
            made.append((pixels, futures, order, last - first))
            if len(made) > self._ahead:
                yield self._finish(*made.popleft())
        while made:
            yield self._finish(*made.popleft())

    def _finish(self, pixels: Pixels, futures: list[Future[None]], order: Ints, global_size: int) -> Batch:
        for future in futures:
            future.result()
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), self._labels[order], global_size)


def batch_bounds(images: int, batch_size: int, *, drop_last: bool) -> list[tuple[int, int]]:
    """[first, last) rows of each global batch. The last partial one stays unless drop_last says otherwise;
    an epoch of one partial batch keeps it."""
    bounds = [(i, min(i + batch_size, images)) for i in range(0, images, batch_size)]
    return bounds[:-1] if drop_last and len(bounds) > 1 and images % batch_size else bounds


class EvalBatches:
    """A split to be evaluated, this rank's shard of it, unpadded: over all ranks each image comes once."""

    def __init__(
        self,
        split: Split,
        positions: Ints,
        *,
        size: int,
        batch_size: int = 128,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
    ) -> None:
        """batch_size: per rank; it changes nothing but speed."""
        part = shard(len(positions), rank, world_size)
        self.images = len(positions)
        self._positions = positions[part]
        self._labels = torch.from_numpy(split.labels[self._positions])
        self._resizer, self._size = Resizer(split, threads=threads), size
        self._side, self._batch_size = split.images.shape[1], batch_size
        self._steps = -(-max(-(-len(positions) // world_size), 1) // batch_size)
        self._pixels: list[Pixels] = []

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(uint8 [b, 3, size, size], int64 [b]); as many batches on every rank, the last may be empty.
        Resized once: the whole Imagenette test set at 128 px is 190 MB."""
        for step in range(self._steps):
            rows = slice(step * self._batch_size, (step + 1) * self._batch_size)
            if step == len(self._pixels):
                self._pixels.append(self._make(self._positions[rows]))
            yield torch.from_numpy(self._pixels[step]).permute(0, 3, 1, 2), self._labels[rows]

    def _make(self, order: Ints) -> Pixels:
        whole = np.tile([0, 0, self._side, self._side], (len(order), 1))
        pixels, futures = self._resizer.start(order, whole, np.zeros(len(order), dtype=bool), size=self._size)
        for future in futures:
            future.result()
        return pixels
