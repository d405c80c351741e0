"""A data set that is ready for use: frozen records over arrays. Knows nothing of files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MEAN = (0.4625, 0.4580, 0.4295)  # of Imagenette's training pixels; the reference's figures
STD = (0.2452, 0.2390, 0.2469)


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a data set; n images, sorted by class, then by file name."""

    images: npt.NDArray[np.uint8]
    """[n, side, side, 3] RGB, squashed to a square. A copy-on-write memory map (digits: memory), so
    that `torch.from_numpy` takes it without a warning and a stray write never reaches the cache."""
    labels: npt.NDArray[np.int64]
    """[n] indices into `Dataset.classes`."""
    sizes: npt.NDArray[np.int32]
    """[n, 2] height and width in pixels before squashing."""
    names: tuple[str, ...]
    """n relative paths with forward slashes: `val/n01440764/x.JPEG`."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split over the same classes."""

    name: str
    """`digits`, `imagenette-320px`, or the name of the user's folder or archive."""
    source: str
    """What to fetch or open to have it again: a URL or a path."""
    digest: str
    """64 hexadecimal digits over every image's name and bytes: the same set as folder, tar or zip has
    the same digest."""
    classes: tuple[str, ...]
    """Sorted names of the class folders (WordNet ids for Imagenette)."""
    labels: tuple[str, ...]
    """Readable names in the order of `classes`; the folder's name where no other is known."""
    train: Split
    test: Split
    mean: tuple[float, float, float] = MEAN
    """Of the training pixels in [0, 1], by channel (RGB): what networks are given is normalized by it."""
    std: tuple[float, float, float] = STD

    @property
    def side(self) -> int:
        """Pixels on each side of a stored image."""
        return int(self.train.images.shape[1])
