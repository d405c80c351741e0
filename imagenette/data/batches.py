"""Batches of uint8 pictures: rows of the epoch's plan, in order. Draws no random number itself, and does not
know where pictures are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from imagenette.data.augment import AUGMENTATIONS, augment
from imagenette.data.dataset import Dataset, Split
from imagenette.data.pictures import Made, Pictures, ThreadedPictures
from imagenette.data.plan import Ints, epoch_plan

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """This process's part of one global batch; b images."""

    images: torch.Tensor
    """uint8 [b, 3, size, size], channels last in memory."""
    labels: torch.Tensor
    """int64 [b]; where pictures are mixed, float32 [b, classes], each class's share of the target."""
    global_size: int
    """Images of this batch over all processes."""


def shard(count: int, rank: int, world_size: int) -> slice:
    """Rank's contiguous part of `count` rows; parts differ by one row at most and cover each row once."""
    return slice(count * rank // world_size, count * (rank + 1) // world_size)


class TrainBatches:
    """Epochs of training batches, this rank's rows of each."""

    def __init__(
        self,
        split: Split,
        positions: Ints,
        pictures: Pictures,
        *,
        seed: int,
        batch_size: int,
        drop_last: bool,
        sizes: Sequence[int],
        crop_scale: float,
        flip: bool,
        cutmix: float = 0.0,
        augmentations: Mapping[str, float] = {},
        classes: int = 0,
        rank: int = 0,
        world_size: int = 1,
        ahead: int = 0,
    ) -> None:
        """positions: of the split, those to train on; pictures: the split's. batch_size: global. sizes:
        training resolution of each epoch, px; the last one's also of those that come after. cutmix: share of
        pictures with a patch; it needs the number of classes. augmentations: name -> amount. ahead: batches
        made while one is in use: a gain beside a GPU; on a CPU they would disturb the step's threads."""
        self._split, self._positions, self._pictures = split, positions, pictures
        self._seed, self._scale, self._flip, self._sizes = seed, crop_scale, flip, sizes
        self._cutmix, self._augmentations, self._classes = cutmix, augmentations, classes
        self._rank, self._world_size, self._ahead = rank, world_size, ahead
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
            cutmix=self._cutmix,
            draws={name: AUGMENTATIONS[name].draws for name in self._augmentations},
        )
        device = self._pictures.device  # once an epoch: each copy to a GPU waits for it
        patches = torch.from_numpy(plan.patches).to(device)
        draws = {name: torch.from_numpy(drawn).to(device) for name, drawn in plan.draws.items()}
        size = self._sizes[min(epoch, len(self._sizes)) - 1]
        make = self._pictures.rows(plan.order, plan.boxes, plan.flips)
        under_way: deque[Callable[[], Batch]] = deque()
        for first, last in self._bounds[start:]:
            part = shard(last - first, self._rank, self._world_size)
            lead = min(part.start, 1) if self._cutmix else 0  # another rank's row may show in the first patch
            rows = slice(first + part.start - lead, first + part.stop)
            own = {name: drawn[rows] for name, drawn in draws.items()}
            batch = partial(self._batch, make(rows, size), patches[rows], own)
            under_way.append(partial(batch, lead=lead, global_size=last - first))
            if len(under_way) > self._ahead:
                yield under_way.popleft()()
        while under_way:
            yield under_way.popleft()()

    def _batch(
        self,
        made: Made,
        patches: torch.Tensor,
        draws: Mapping[str, torch.Tensor],
        *,
        lead: int,
        global_size: int,
    ) -> Batch:
        """lead: rows at the start that are there for the next one's patch only."""
        images, labels = made()
        images = augment(images, draws, self._augmentations)
        if self._cutmix:
            images, labels = patched(images, labels, patches, classes=self._classes)
        return Batch(images[lead:], labels[lead:], global_size)


def patched(
    images: torch.Tensor, labels: torch.Tensor, patches: torch.Tensor, *, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [b, 3, size, size] and int64 [b] to the same pictures with the one before in each one's patch
    (EpochPlan has them; float64 [b, 4]; the first stays as it is), and float32 [b, classes]: each target, the
    classes by their share of the pixels."""
    size = images.shape[-1]
    top, left, bottom, right = (patches * size).round().T[:, :, None]
    place = torch.arange(size, device=images.device)
    down, across = (top <= place) & (place < bottom), (left <= place) & (place < right)
    inside = down[:, :, None] & across[:, None, :]
    before = (torch.arange(len(images), device=images.device) - 1).clamp_min(0)
    mixed = torch.where(inside[:, None], images[before], images)
    share = inside.float().mean((1, 2))[:, None]
    own, other = (F.one_hot(each, classes) for each in (labels, labels[before]))
    return mixed.contiguous(memory_format=torch.channels_last), torch.lerp(own.float(), other.float(), share)


def batch_bounds(images: int, batch_size: int, *, drop_last: bool) -> list[tuple[int, int]]:
    """[first, last) rows of each global batch. The last partial one stays unless drop_last says otherwise;
    an epoch of one partial batch keeps it."""
    bounds = [(i, min(i + batch_size, images)) for i in range(0, images, batch_size)]
    return bounds[:-1] if drop_last and len(bounds) > 1 and images % batch_size else bounds


class EvalBatches:
    """A split to be evaluated, this rank's shard of it, unpadded: over all ranks each image comes once.

    Its pictures are made on the CPU whatever trains, to the level what a saved model makes of the same files,
    and then stay on the device."""

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
        device: torch.device = CPU,
    ) -> None:
        """batch_size: per rank; it changes nothing but speed."""
        part = shard(len(positions), rank, world_size)
        self.images = len(positions)
        order = positions[part]
        side = split.images.shape[1]
        whole = np.tile([0, 0, side, side], (len(order), 1))
        pictures = ThreadedPictures(split, threads=threads)
        self._make = pictures.rows(order, whole, np.zeros(len(order), dtype=bool))
        self._size, self._batch_size, self._device = size, batch_size, device
        self._steps = -(-max(-(-len(positions) // world_size), 1) // batch_size)
        self._made: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(uint8 [b, 3, size, size], int64 [b]); as many batches on every rank, the last may be empty.
        Made once: the whole Imagenette test set at 128 px is 190 MB."""
        for step in range(self._steps):
            if step == len(self._made):
                rows = slice(step * self._batch_size, (step + 1) * self._batch_size)
                images, labels = self._make(rows, self._size)()
                self._made.append((images.to(self._device), labels.to(self._device)))
            yield self._made[step]


class Normalizer:
    """uint8 [b, 3, h, w] to float32 of the data set's mean 0 and standard deviation 1, memory format kept."""

    def __init__(self, dataset: Dataset, device: torch.device = CPU) -> None:
        # Sent to the device here, once: each sending waits for it.
        moments = (dataset.mean, dataset.std)
        self._mean, self._std = (torch.tensor(m, device=device)[:, None, None] * 255 for m in moments)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self._mean) / self._std
