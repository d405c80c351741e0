"""A model's self-test: test pictures that travel with it, and the answers that it gave for them in training.

Whoever loads the model, on any machine and without the data set, shows them to it and compares its answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from imagenette.errors import InputError
from imagenette.records import Predictions

FILE = "proof.safetensors"
COUNT = 32
"""Pictures in a self-test: every class of Imagenette three times, 1.6 MB at 128 px."""
TOLERANCE = 1e-4
"""Largest difference of a share, float32 on another machine or with another batch size."""
_ANSWERS = ("label", "predicted", "share")


@dataclass(frozen=True, eq=False)
class SelfTest:
    """n test pictures as the network sees them, and its evaluation's answers."""

    names: tuple[str, ...]
    """Of the test images, as in predictions.csv."""
    pictures: npt.NDArray[np.uint8]
    """[n, size, size, 3]"""
    predictions: Predictions

    @classmethod
    def sample(
        cls, names: Sequence[str], pictures: npt.NDArray[np.uint8], predictions: Predictions
    ) -> SelfTest:
        """COUNT of the whole test set, evenly spread over it; it is sorted by class."""
        rows = np.unique(np.linspace(0, len(names) - 1, COUNT).round().astype(np.int64))
        answers = Predictions(predictions.label[rows], predictions.predicted[rows], predictions.share[rows])
        return cls(tuple(names[row] for row in rows), pictures[rows], answers)

    def save(self, folder: Path) -> None:
        arrays = {"pictures": self.pictures} | {name: getattr(self.predictions, name) for name in _ANSWERS}
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(contiguous, folder / FILE, metadata={"names": json.dumps(self.names)})

    @classmethod
    def load(cls, folder: Path) -> SelfTest:
        """InputError where there is none, or a damaged one."""
        try:
            with safe_open(folder / FILE, framework="numpy") as file:
                names = json.loads(file.metadata()["names"])
                pictures, *answers = (file.get_tensor(name) for name in ("pictures", *_ANSWERS))
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"its {FILE} is missing or damaged ({error})") from None
        count, *shape = pictures.shape
        square = len(shape) == 3 and shape[0] == shape[1] and shape[2] == 3 and pictures.dtype == np.uint8
        if not (square and count == len(names) > 0 and all(part.shape == (count,) for part in answers)):
            raise InputError(f"its {FILE} has parts of the wrong shape")
        return cls(tuple(names), pictures, Predictions(*answers))

    def compare(self, shares: npt.NDArray[np.float32]) -> float:
        """The largest difference between a share in training and that of the same class in `shares` [n,
        classes], the model's answers now. InputError if they are not the same answers."""
        predicted, share = self.predictions.predicted, self.predictions.share
        if not ((predicted >= 0) & (predicted < shares.shape[1])).all():
            raise InputError("its proof names classes that it has not")
        now = shares[np.arange(len(shares)), predicted]
        difference = float(np.abs(now - share).max())
        if not difference <= TOLERANCE:  # NaN is no answer either
            raise InputError(
                f"it does not say of its proof pictures what it said in training (shares differ by up to "
                f"{difference:.2g}, allowed are {TOLERANCE})"
            )
        return difference
