"""A saved model as MLflow's python_function: pictures in whatever form, a share for each class out.

This file and those of ours that it imports are copied into every saved model as the package
`imagenette_model`, so that it loads where none of our code is; hence the relative imports.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..errors import InputError
from .inputs import index_of, pictures, seen

_BATCH = 64
_SWITCH = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


class Network(torch.nn.Module):
    """The exported graph as a module like others: float32 [n, 3, size, size], RGB in [0, 1], to shares
    [n, classes]. It has one mode, so `eval()` and `train()`, which the bare graph refuses, do nothing."""

    def __init__(self, graph: torch.nn.Module, *, size: int) -> None:
        super().__init__()
        self.graph, self._size = graph, size

    def train(self, mode: bool = True) -> Network:
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        wanted = (3, self._size, self._size)
        if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != torch.float32 or not len(images):
            given = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            raise InputError(f"{given}: allowed are float32 [n, 3, {self._size}, {self._size}] in [0, 1]")
        shares: torch.Tensor = self.graph(images)
        return shares


class PictureModel:
    """What `mlflow.pyfunc.load_model` gives, and `mlflow models serve` serves."""

    def __init__(self, graph: torch.nn.Module, about: dict[str, Any]) -> None:
        self._network, self._about = Network(graph, size=about["size"]), about

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row a picture, a column a class, shares that add up to 1.

        data: a path, a folder, a file as bytes or base64 text, a PIL picture, uint8 pixels, or a list, an
        array or a table of these; of a table with several columns, the one named `image`. Rows are called as
        the table's or the files. InputError for what is no picture.
        """
        names: list[str] = []
        shares: list[np.ndarray[Any, Any]] = []
        each = pictures(data)
        while batch := list(islice(each, _BATCH)):
            shares.append(self._shares([seen(item, name, **self._sizes) for name, item in batch]))
            names += [name for name, _ in batch]
        return pd.DataFrame(
            np.concatenate(shares), columns=self._about["labels"], index=index_of(data, names)
        )

    def get_raw_model(self) -> Network:
        """For MLflow's method of the same name: the network as a module of torch."""
        return self._network

    @property
    def _sizes(self) -> dict[str, int]:
        return {"side": self._about["side"], "size": self._about["size"]}

    def _shares(self, seen: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        batch = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            shares: np.ndarray[Any, Any] = self._network(batch.contiguous()).numpy()
        return shares


def _load_pyfunc(path: str) -> PictureModel:
    """Called by MLflow with the model's folder. MLflow refuses what would be unpickled."""
    import mlflow

    described = mlflow.models.Model.load(str(Path(path) / "MLmodel"))
    before = os.environ.get(_SWITCH)
    os.environ[_SWITCH] = "false"
    try:
        return PictureModel(mlflow.pytorch.load_model(path), described.metadata or {})
    finally:  # whatever else this process loads is its own affair
        del os.environ[_SWITCH]
        if before is not None:
            os.environ[_SWITCH] = before
