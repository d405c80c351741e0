"""The handwritten digits that scikit-learn ships: real images, no network, no cache, milliseconds."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imagenette.data.dataset import Dataset, Split
from imagenette.data.images import squash
from imagenette.data.scan import digest_of

SIDE = 8
TEST_SHARE = 0.2
SPLIT_SEED = 2021


def open_digits(side: int = SIDE) -> Dataset:
    """1,797 images of 8 x 8 pixels in ten classes, split 80 to 20 within each class, always the same."""
    table = read_table()
    pixels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, SIDE, SIDE)
    labels = table[:, -1].astype(np.int64)
    images = np.repeat(pixels[..., None], 3, axis=3)
    # Raw generator output, sorted: NumPy promises PCG64's stream for good, but not its shuffles.
    keys = np.random.PCG64(SPLIT_SEED).random_raw(len(labels))
    ranked = [np.flatnonzero(labels == digit) for digit in range(10)]
    ranked = [rows[np.argsort(keys[rows], kind="stable")] for rows in ranked]
    test = np.concatenate([np.sort(rows[: round(TEST_SHARE * len(rows))]) for rows in ranked])
    train = np.concatenate([np.sort(rows[round(TEST_SHARE * len(rows)) :]) for rows in ranked])
    splits = {"train": train, "val": test}
    names = {split: [f"{split}/{labels[r]}/{r:04d}" for r in rows] for split, rows in splits.items()}
    digest = digest_of(
        (name, hashlib.sha256(images[row].tobytes()).hexdigest())
        for split, rows in splits.items()
        for name, row in zip(names[split], rows, strict=True)
    )
    classes = tuple(str(digit) for digit in range(10))
    train_split, test_split = (
        Split(
            images=_squash_all(images[rows], side),
            labels=labels[rows],
            sizes=np.full((len(rows), 2), SIDE, np.int32),
            names=tuple(names[split]),
        )
        for split, rows in splits.items()
    )
    source = "sklearn.datasets.load_digits"
    return Dataset("digits", source, digest, classes, classes, train_split, test_split)


def read_table() -> npt.NDArray[np.float64]:
    """[1797, 65]: 64 gray values 0 to 16, then the digit. Equal to scikit-learn's `load_digits`, without
    its import, which takes seconds, as long as its file is where it has been for years."""
    spec = find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or []:
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack([digits.data, digits.target]).astype(np.float64)


def _squash_all(images: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    if side >= SIDE:
        return images
    return np.stack([np.asarray(squash(Image.fromarray(image), side)) for image in images])
