"""A saved model in use: loaded without unpickling, and proved before anyone relies on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from imagenette.data.images import MAX_PIXELS
from imagenette.data.prepare import Pixels, prepare
from imagenette.errors import InputError
from imagenette.proof import Proof
from imagenette.pyfunc import load_graph
from imagenette.tracking.client import first_line

_GRAPH = "data/model.pt2"
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".joblib", ".bin")


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier with all it takes to use it."""

    module: nn.Module
    """float32 [n, 3, size, size], RGB in [0, 1], to probabilities [n, classes]."""
    classes: tuple[str, ...]
    """Folder names in the order of the outputs (WordNet ids for Imagenette)."""
    labels: tuple[str, ...]
    """Readable names in the same order."""
    side: int
    """Pixels to which a picture is squashed first, as the training data were."""
    size: int
    """Pixels per side of what the network sees."""
    proof: Proof

    def preprocess(self, data: bytes, name: str = "image", *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """A picture file's bytes to uint8 [size, size, 3]. Raises InputError, which begins with `name`."""
        return prepare(data, name, side=self.side, size=self.size, max_pixels=max_pixels)

    def shares(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities [n, classes] for preprocessed pictures uint8 [n, size, size, 3]."""
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            said: npt.NDArray[np.float32] = self.module(batch.contiguous()).numpy()
        return said

    def prove(self) -> float:
        """Show it its proof pictures; the largest difference to what it said in training. InputError if that
        is not the same answer."""
        return self.proof.compare(self.shares(self.proof.pictures))


def open_folder(folder: Path) -> Model:
    """Load the model that `imagenette.export.save_model` wrote, and prove it. InputError says what is wrong,
    with no name in front."""
    from mlflow.models import Model as Description

    if not (folder / "MLmodel").is_file():
        raise InputError("it holds no MLmodel")
    described = Description.load(str(folder / "MLmodel"))
    _refuse_code(folder, described.flavors)
    about = described.metadata or {}
    missing = [key for key in ("classes", "labels", "side", "size") if key not in about]
    if missing:
        raise InputError(f"it does not say its {', '.join(missing)}: not a model of this project's")
    model = Model(
        module=_load(folder),
        classes=tuple(about["classes"]),
        labels=tuple(about["labels"]),
        side=int(about["side"]),
        size=int(about["size"]),
        proof=Proof.load(folder),
    )
    model.prove()
    return model


def _refuse_code(folder: Path, flavors: dict[str, Any]) -> None:
    """Loading must run nothing that came with the model."""
    torch_flavor = flavors.get("pytorch") or {}
    if not (folder / _GRAPH).is_file():
        pickled = sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES)
        if pickled:
            raise InputError(f"it is stored as pickle ({pickled[0]}), which runs code when it is loaded")
        raise InputError(f"it holds no exported graph ({_GRAPH})")
    if torch_flavor.get("code") or torch_flavor.get("model_data") != "data":
        raise InputError("its pytorch flavor brings code of its own, which would run when it is loaded")


def _load(folder: Path) -> nn.Module:
    try:
        return load_graph(str(folder))
    except Exception as error:  # torch, zipfile and MLflow each have their own
        raise InputError(f"it does not load: {first_line(error)}") from None
