"""A saved model in use: built by our code, given its weights, and tested before anyone relies on it.

Nothing that comes with a model is run: it is read as YAML (safely) and safetensors. Its exported graph, which
torch would execute in part while loading it, is only compared with its checksum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from imagenette.config import plugin as plugins
from imagenette.data.images import MAX_PIXELS
from imagenette.data.prepare import Pixels, prepare
from imagenette.errors import InputError, shown
from imagenette.network import models
from imagenette.network.export import CODE, GRAPH, WEIGHTS, Classifier, digest_of
from imagenette.network.self_test import FILE, SelfTest
from imagenette.tracking.client import first_line

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("MLmodel", WEIGHTS, FILE)
"""The files that a model is opened from."""
_PICKLES = (".pth", ".pt", ".pkl", ".pickle", ".joblib", ".bin")
_MOST_CLASSES, _MOST_PIXELS = 100_000, 4096


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
    self_test: SelfTest
    network: str
    """Its name, by which `network.models` builds it: `resnet18`, `timm/resnet26d`."""
    difference: float = math.nan
    """Of its shares on the self-test's pictures, to those of training, at most; measured when it was
    opened."""

    def preprocess(self, data: bytes, name: str = "image", *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """A picture file's bytes to uint8 [size, size, 3]. Raises InputError, which begins with `name`."""
        return prepare(data, name, side=self.side, size=self.size, max_pixels=max_pixels)

    def shares(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities [n, classes] for preprocessed pictures uint8 [n, size, size, 3]."""
        batch = as_input(pictures)
        with torch.inference_mode():
            shares: npt.NDArray[np.float32] = self.module(batch).numpy()
        return shares

    def classify(self, pictures: Any) -> pd.DataFrame:
        """A row a picture, a column a class, shares that add up to 1, as `mlflow.pyfunc` gives them.

        pictures: a path, a folder, a file as bytes or base64 text, a PIL picture, uint8 pixels, or a list, an
        array or a table of these. InputError for what is no picture.
        """
        from imagenette.network.pyfunc import PictureModel

        about = {"side": self.side, "size": self.size, "labels": list(self.labels)}
        return PictureModel(self.module, about).predict(pictures)


def as_input(pictures: npt.NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [n, size, size, 3] as a model takes them: float32 [n, 3, size, size] in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def open_folder(folder: Path) -> Model:
    """Load the model that `network.export.save_model` wrote, and run its self-test. InputError names what is
    wrong, with no name of the model in front."""
    about = _about(folder)
    classes, labels = (tuple(map(str, about[key])) for key in ("classes", "labels"))
    test = SelfTest.load(folder)
    model = Model(
        module=_network(folder, about, classes=len(classes)),
        classes=classes,
        labels=labels,
        side=about["side"],
        size=about["size"],
        self_test=test,
        network=about["architecture"],
    )
    if len(labels) != len(classes) or test.pictures.shape[1] != model.size:
        raise InputError("its classes, labels, size and proof do not go together")
    return replace(model, difference=test.compare(model.shares(test.pictures)))


def check_graph(folder: Path) -> None:
    """InputError if the graph that MLflow's users load is not the one that was saved."""
    pickled = sorted(path.name for path in folder.rglob("*") if path.suffix in _PICKLES)
    if pickled:
        raise InputError(f"it is stored as pickle ({pickled[0]}), which runs code when it is loaded")
    if not (folder / GRAPH).is_file():
        raise InputError(f"it holds no exported graph ({GRAPH})")
    if digest_of(folder / GRAPH) != _about(folder).get("graph_sha256"):
        raise InputError(f"its exported graph ({GRAPH}) is not the one that was saved")


def _about(folder: Path) -> dict[str, Any]:
    """The metadata of MLmodel, checked as far as it is used here."""
    try:
        described = yaml.safe_load((folder / "MLmodel").read_text("utf-8"))
        about = described["metadata"]
        sane = all(isinstance(about[key], list) for key in ("classes", "labels", "mean", "std"))
        sane &= 1 <= len(about["classes"]) <= _MOST_CLASSES and len(about["mean"]) == len(about["std"]) == 3
        sane &= all(isinstance(v, float) and v == v for v in (*about["mean"], *about["std"]))
        sane &= all(type(about[key]) is int and 1 <= about[key] <= _MOST_PIXELS for key in ("side", "size"))
        sane &= isinstance(about["architecture"], str)
    except FileNotFoundError:
        raise InputError("it holds no MLmodel") from None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        sane = False
    if not sane:
        raise InputError("its MLmodel does not describe a model of this project's")
    return dict(about)


def _network(folder: Path, about: dict[str, Any], *, classes: int) -> nn.Module:
    if isinstance(named := about.get("plugin"), str):
        _check_plugin(named)
    net = models.by_name(about["architecture"], classes=classes)
    try:
        net.load_state_dict(load_file(folder / WEIGHTS))
    except Exception as error:  # safetensors' own, OSError, or RuntimeError for other shapes
        raise InputError(f"it does not load: {WEIGHTS}: {first_line(error)}") from None
    return Classifier(net, about["mean"], about["std"]).eval().requires_grad_(False)


def _check_plugin(named: str) -> None:
    """InputError unless the plugin that builds the network, `parts.py#1a2b3c4d5e6f`, is loaded."""
    loaded = plugins.loaded()
    if loaded and loaded.hash == plugins.hash_of(named):
        return
    there = f", not by {loaded.file}#{loaded.hash}, which is loaded" if loaded else ""
    raise InputError(
        f"its network is built by the plugin {shown(named)}{there}: give that file with --plugin (the model "
        f"holds a copy, code/{CODE}/plugin/; nothing that comes with a model is run)"
    )
