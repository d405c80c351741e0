"""From a picture's bytes to what the network sees of it, the same in training, in test and when served.

Travels inside saved models (see `imagenette.network.export`): imports nothing of ours but `images`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from .images import MAX_PIXELS, decode

Pixels = npt.NDArray[np.uint8]


def prepare(data: bytes, name: str, *, side: int, size: int, max_pixels: int = MAX_PIXELS) -> Pixels:
    """uint8 [size, size, 3]: decoded and squashed to the side that the data set was stored at, then resized
    to the network's resolution, px, as every test image was. Raises InputError, which begins with `name`."""
    return resize(torch.from_numpy(decode(data, name, side, max_pixels=max_pixels)), size)


def resize(picture: torch.Tensor, size: int) -> Pixels:
    """uint8 [h, w, 3] to [size, size, 3], bilinear, antialiased, torchvision's native uint8 kernel.

    The crop is copied by numpy, in this thread. torch would copy it with an OpenMP team of this thread's own,
    and with more such threads than cores libgomp makes every team sleep while it waits, the training step's
    too: 11 % of a step."""
    if picture.shape[0] == size and picture.shape[1] == size:
        return picture.numpy()
    whole = torch.from_numpy(np.ascontiguousarray(picture.numpy()))
    channels_last = whole.permute(2, 0, 1)[None]
    resized = F.interpolate(channels_last, size=(size, size), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
