"""A split in a GPU's memory, and its pictures made there: crop, antialiased resize and mirroring are two
small matrix products a picture, with the triangle filter's weights in the matrices. Runs on the CPU too,
slowly, so that the arithmetic can be held against torchvision's kernel anywhere.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from imagenette.data.dataset import Split
from imagenette.data.pictures import Flips, Made, Pictures, Start, ThreadedPictures
from imagenette.data.plan import Ints

CHUNK = 1024  # images sent to the device at once
SHARE = 0.5  # of the device's free memory that pictures may take; the rest is the training's


class ResidentPictures:
    """Every picture of a batch at once, with nothing that waits for the device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        n, side = split.images.shape[:2]
        self.device = device
        self._images = torch.empty((n, 3, side, side), dtype=torch.uint8, device=device)
        self._labels = torch.from_numpy(split.labels).to(device)
        for first in range(0, n, CHUNK):
            chunk = torch.from_numpy(split.images[first : first + CHUNK].copy()).to(device)
            self._images[first : first + CHUNK] = chunk.permute(0, 3, 1, 2)

    def rows(self, order: Ints, boxes: Ints, flips: Flips) -> Start:
        places, windows, mirrored = (torch.from_numpy(c).to(self.device) for c in (order, boxes, flips))

        def start(rows: slice, size: int) -> Made:
            chosen = places[rows]
            made = cropped(self._images[chosen], windows[rows], mirrored[rows], size), self._labels[chosen]
            return lambda: made

        return start


def cropped(
    images: Tensor, boxes: Tensor, flips: Tensor, size: int, dtype: torch.dtype | None = None
) -> Tensor:
    """uint8 [b, 3, h, w] to [b, 3, size, size], channels last in memory: the boxes (int64 [b, 4]: top, left,
    height, width, px), resized, and mirrored where flips (bool [b]). Within one level of torchvision's native
    kernel, which also rounds between its two passes: by half a level at most, so the rounded ends differ by
    one at most.

    dtype: of the products; None = float16 on a GPU, whose eleven bits hold 0 to 255 to an eighth."""
    dtype = dtype or (torch.float16 if images.is_cuda else torch.float32)
    b, _, height, width = images.shape
    across = filters(boxes[:, 1], boxes[:, 3], size=size, side=width)
    across = torch.where(flips[:, None, None], across.flip(1), across).to(dtype)
    down = filters(boxes[:, 0], boxes[:, 2], size=size, side=height).to(dtype)
    wide = images.flatten(1, 2).to(dtype) @ across.mT  # [b, 3 h, size]
    small = down[:, None] @ wide.view(b, 3, height, size)
    return small.round().clamp(0, 255).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def filters(start: Tensor, length: Tensor, *, size: int, side: int) -> Tensor:
    """float32 [b, size, side]: row i holds what each of `side` pixels gives to pixel i of the `length` pixels
    from `start` (int64 [b] both) seen at `size`. The triangle filter, widened where pictures shrink."""
    scale = (length / size)[:, None, None]  # [b, 1, 1]
    rows = torch.arange(size, device=start.device)[None, :, None]
    pixels = torch.arange(side, device=start.device)[None, None, :] - start[:, None, None]  # [b, 1, side]
    away = (pixels + 0.5 - (rows + 0.5) * scale).abs() / scale.clamp_min(1)
    inside = (pixels >= 0) & (pixels < length[:, None, None])
    weights = (1 - away).clamp_min(0) * inside
    return weights / weights.sum(2, keepdim=True)


def pictures(split: Split, device: torch.device, *, threads: int) -> Pictures:
    """In a GPU's memory if the split fits there; else on the CPU's threads, with a message where it did not
    fit."""
    if device.type == "cpu":
        return ThreadedPictures(split, threads=threads)
    free, _ = torch.cuda.mem_get_info(device)
    if split.images.nbytes <= SHARE * free:
        try:
            return ResidentPictures(split, device)
        except torch.OutOfMemoryError:  # another training saw the same memory free
            torch.cuda.empty_cache()
    print(
        f"imagenette: {split.images.nbytes / 1e9:.1f} GB of pictures do not fit beside a training in the "
        f"{free / 1e9:.1f} GB that the GPU has free: they are prepared on the CPU",
        file=sys.stderr,
    )
    return ThreadedPictures(split, threads=threads)
