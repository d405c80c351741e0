"""Which images an epoch shows, in which order and how changed: a pure function of (seed, epoch).

Ranks, threads, batch splits and resumed runs only index the table made here. So the global batch is the same
whatever the number of processes, and `(epoch, step)` is all that a resumed run needs to know.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

RATIO = (3 / 4, 4 / 3)  # of width to height of a crop, torchvision's RandomResizedCrop
SIZE_STEP = 16  # px; sizes between would be slower, not better: a ResNet's stages halve them four times
GROWN = 0.8  # of the epochs, after which the training resolution is the last one
TRIES = 10  # crops drawn until one fits inside the image, as there


@dataclass(frozen=True)
class EpochPlan:
    """Row k is the k-th image that the epoch shows; n images."""

    order: Ints
    """[n] positions in the split."""
    boxes: Ints
    """[n, 4] top, left, height, width of the crop, px of the stored image."""
    flips: npt.NDArray[np.bool_]
    """[n] whether the crop is mirrored."""
    patches: Floats
    """[n, 4] top, left, bottom, right of the box that shows the row before, in shares of the side; all 0
    where there is none."""
    draws: Mapping[str, Floats]
    """Augmentation -> [n, draws] uniform in [0, 1)."""


def epoch_plan(
    positions: Ints,
    sizes: npt.NDArray[np.integer],
    *,
    side: int,
    seed: int,
    epoch: int,
    scale: float,
    flip: bool,
    cutmix: float = 0.0,
    draws: Mapping[str, int] = {},
) -> EpochPlan:
    """The plan of one epoch over `positions` of a split whose images are stored side x side px.

    sizes: [whole split, 2] original height and width, px; crops obey the original aspect ratio.
    epoch: 1-based. scale: smallest share of the area; 1 = the whole image. cutmix: share of rows
    that get a patch. draws: augmentation -> random numbers that it wants for each row; each has a
    generator of its own, so that one more changes nothing else.
    """
    rng = np.random.default_rng([seed, epoch])
    order = positions[rng.permutation(len(positions))]
    boxes = crop_boxes(sizes[order], rng, scale=scale)
    flips = rng.random(len(order)) < 0.5
    patches = patch_boxes(len(order), rng, share=cutmix)
    drawn = {
        name: np.random.default_rng([seed, epoch, zlib.crc32(name.encode())]).random((len(order), count))
        for name, count in draws.items()
    }
    return EpochPlan(order, to_stored(boxes, sizes[order], side), flips & flip, patches, drawn)


def patch_boxes(n: int, rng: np.random.Generator, *, share: float) -> Floats:
    """[n, 4] boxes for EpochPlan.patches, by CutMix's rule: the picture's shape, an area uniform in [0, 1], a
    centre anywhere, cut at the border."""
    laid = rng.random((n, 1)) < share
    half = np.sqrt(rng.random((n, 1))) / 2
    centre = rng.random((n, 2))
    corners = np.concatenate([centre - half, centre + half], axis=1).clip(0, 1)
    return np.where(laid, corners, 0.0)


def crop_boxes(sizes: npt.NDArray[np.integer], rng: np.random.Generator, *, scale: float) -> Ints:
    """[n, 4] top, left, height, width in original px, by the rule of torchvision's RandomResizedCrop:
    area uniform in [scale, 1], ratio log-uniform, the first of ten tries that fits, else the centre."""
    n = len(sizes)
    full_height, full_width = sizes[:, :1].astype(np.int64), sizes[:, 1:].astype(np.int64)  # [n, 1]
    area = full_height * full_width * rng.uniform(scale, 1, (n, TRIES))
    ratio = np.exp(rng.uniform(np.log(RATIO[0]), np.log(RATIO[1]), (n, TRIES)))
    width, height = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits: npt.NDArray[np.bool_] = (width > 0) & (width <= full_width) & (height > 0) & (height <= full_height)
    first = fits.argmax(axis=1)
    rows = np.arange(n)
    size = np.stack([height[rows, first], width[rows, first]], axis=1).astype(np.int64)
    room = np.stack([full_height[:, 0], full_width[:, 0]], axis=1)
    corner = (rng.random((n, 2)) * (room - size + 1)).astype(np.int64)
    if scale == 1:  # asks for the whole image; a crop of the same area and another ratio would not be it
        return np.concatenate([np.zeros_like(room), room], axis=1)
    centred = _centre(room)
    return np.where(fits.any(axis=1, keepdims=True), np.concatenate([corner, size], axis=1), centred)


def _centre(room: Ints) -> Ints:
    """The largest centred crop whose ratio is within bounds."""
    height, width = room[:, 0], room[:, 1]
    low, high = RATIO
    cut_height = np.where(width / height < low, np.rint(width / low), height)
    cut_width = np.where(width / height > high, np.rint(height * high), width)
    size = np.stack([cut_height, cut_width], axis=1).astype(np.int64)
    return np.concatenate([(room - size) // 2, size], axis=1)


def to_stored(boxes: Ints, sizes: npt.NDArray[np.integer], side: int) -> Ints:
    """Boxes of the original images as boxes of their squashed side x side copies, at least 1 px wide."""
    unit = side / sizes  # [n, 2] stored px per original px
    start = np.minimum(np.rint(boxes[:, :2] * unit), side - 1).astype(np.int64)
    stop = np.rint((boxes[:, :2] + boxes[:, 2:]) * unit).astype(np.int64)
    return np.concatenate([start, np.maximum(stop - start, 1)], axis=1)


def epoch_sizes(epochs: int, *, first: int, last: int) -> list[int]:
    """Training resolution of each epoch, px: from first to last in equal shares of the first 80 % of the
    epochs, a step being 16 px; last from there on, and in the last epoch of few. Never beyond last; first = 0
    means last."""
    steps = max(-(-(last - first) // SIZE_STEP), 0) if first else 0
    grown = [first + SIZE_STEP * int(steps * epoch / (GROWN * epochs) + 1e-9) for epoch in range(epochs)]
    return [*(min(size, last) if steps else last for size in grown[:-1]), last]


def stratified(labels: Ints, count: int, *, seed: int, each: bool = False) -> Ints:
    """Sorted positions of `count` images, each class in its share (largest remainders), rounded up to one
    image where count allows; each: before the largest classes have theirs. The same for the same labels,
    count and seed."""
    rng = np.random.default_rng([seed, len(labels)])
    classes, sizes = np.unique(labels, return_counts=True)
    quota = count * sizes / len(labels)
    take = np.floor(quota).astype(np.int64)
    if count >= len(classes):
        take = np.maximum(take, 1)
    while take.sum() > count:
        take[np.argmax(np.where(take > each, take - quota, -np.inf))] -= 1
    for i in np.argsort(-(quota - take), kind="stable")[: count - take.sum()]:
        take[i] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in zip(classes, take, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def split_positions(labels: Ints, *, holdout: float, limit: int) -> tuple[Ints, Ints]:
    """(training positions, holdout positions). The holdout comes first and from the whole set, so it is the
    same for every seed and every limit: holdout accuracies compare across runs. It takes no class whole: what
    is never trained cannot be selected by."""
    everything = np.arange(len(labels), dtype=np.int64)
    held = stratified(labels, round(holdout * len(labels)), seed=0) if holdout else everything[:0]
    classes, first, taken = np.unique(labels[held], return_index=True, return_counts=True)
    held = np.delete(held, first[taken == np.bincount(labels)[classes]])
    rest = np.setdiff1d(everything, held)
    if 0 < limit < len(rest):
        rest = rest[stratified(labels[rest], limit, seed=1, each=True)]
    return rest, held
