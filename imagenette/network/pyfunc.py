"""A saved model as MLflow's python_function: picture files in, a share for each class out.

This file, `errors.py`, `data/images.py` and `data/prepare.py` are copied into every saved model as the
package `imagenette_model`, so that it loads where none of our code is; hence the relative imports.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.prepare import prepare
from ..errors import InputError

_BATCH = 64
_SWITCH = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


class PictureModel:
    """What `mlflow.pyfunc.load_model` gives, and `mlflow models serve` serves."""

    def __init__(self, module: torch.nn.Module, about: dict[str, Any]) -> None:
        self._module, self._about = module, about

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """One row a picture, a column a class, shares that add up to 1.

        data: a pandas DataFrame whose column `image` holds picture files as bytes (or base64 text), or a list
        of such. Raises InputError for what is no picture.
        """
        import pandas as pd

        files = data["image"].tolist() if isinstance(data, pd.DataFrame) else list(data)
        named = [(f"image {number}", file) for number, file in enumerate(files, 1)]
        shares = [self._shares(named[start : start + _BATCH]) for start in range(0, len(named), _BATCH)]
        return pd.DataFrame(np.concatenate(shares), columns=self._about["labels"])

    def _shares(self, files: Sequence[tuple[str, bytes | str]]) -> np.ndarray[Any, Any]:
        side, size = self._about["side"], self._about["size"]
        pictures = [prepare(_content(file, name), name, side=side, size=size) for name, file in files]
        batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            shares: np.ndarray[Any, Any] = self._module(batch.contiguous()).numpy()
        return shares


def _content(file: bytes | str, name: str) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        return base64.b64decode(file, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise InputError(f"{name}: neither bytes nor base64") from None


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
