"""The trained network as a folder MLflow can load: no pickle in it, and no code of ours needed.

Pictures go in as they are; decoding, resizing, normalization and softmax are inside.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imagenette.config.plugin import Plugin
from imagenette.files import sync_folder, sync_tree
from imagenette.network.self_test import SelfTest
from imagenette.network.uncompiled import torchvision

WEIGHTS = "weights.safetensors"
"""The bare network's state_dict beside the exported graph: what the registry loads."""
GRAPH = "data/model.pt2"
"""The exported graph, for those who have none of our code. Loading one may run what it says (torch 2.15 runs
its guards as code), so we never do: its SHA-256 is compared."""
CODE = "imagenette_model"
"""The package inside a saved model that turns picture files into what its graph takes."""
TRAVELS = (
    *("network/pyfunc.py", "network/inputs.py", "errors.py"),
    *("data/images.py", "data/prepare.py", "data/walk.py"),
)
"""Our files that this package is made of."""


class Classifier(nn.Module):
    """Pictures `[n, 3, size, size]` float32 RGB in [0, 1] to probabilities `[n, classes]`."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.net((pictures - self.mean) / self.std)
        return logits.softmax(dim=1)


def save_model(
    net: nn.Module,
    path: Path,
    *,
    classes: Sequence[str],
    labels: Sequence[str],
    side: int,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    architecture: str | None = None,
    self_test: SelfTest | None = None,
    plugin: Plugin | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write `net` as an MLflow model folder at `path`, replacing what is there; returns `path`.

    `net` is the bare network (no DDP), on any device; it is copied, not changed. `classes` are the
    folder names in the order of the outputs, `labels` their readable names. A picture is decoded,
    squashed to `side` px and resized to `size` px. The registry needs `architecture`, by which
    `imagenette.network.models` builds the network again, and runs the model's `self_test`. The source of the
    `plugin` that it was trained with goes along, to be read: nothing runs it from there.

    Two flavors: `pytorch` is the graph (tensors in and out, any number of pictures from 1 up),
    `python_function` takes pictures in any form and names what it sees.
    """
    import mlflow

    model = Classifier(_plain_copy(net), mean, std).eval()
    about = {
        "classes": list(classes),
        "labels": list(labels),
        "architecture": architecture,
        "side": side,
        "size": size,
        "mean": list(mean),
        "std": list(std),
        "input": "float32 [n, 3, size, size], RGB, values in [0, 1]",
        "output": "float32 [n, classes], probabilities",
        **(metadata or {}),
    }
    # Named, not inferred: inference loads the model in another process (10 s).
    versions = {"mlflow": mlflow, "torch": torch, "torchvision": torchvision, "pillow": PIL}
    requirements = [f"{name}=={_public(module.__version__)}" for name, module in versions.items()]
    beside = path.with_name(path.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=beside.parent, prefix=".saving-") as temp:
        warnings.simplefilter("ignore")  # torch.export's and MLflow's own housekeeping
        logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
        package = _package(Path(temp), plugin)
        _save_pictures(beside, package, labels=labels, size=size, requirements=requirements, about=about)
        _add_graph(beside, Path(temp) / "graph", model, size=size, requirements=requirements)
    weights = {name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}
    save_file(weights, beside / WEIGHTS, metadata={"about": json.dumps(about)})
    if self_test is not None:
        self_test.save(beside)
    sync_tree(beside)  # once the run has ended, its weights are nowhere else
    shutil.rmtree(path, ignore_errors=True)
    beside.replace(path)
    sync_folder(path.parent)
    return path


def _package(folder: Path, plugin: Plugin | None) -> Path:
    """The code that travels with a model, made in this folder."""
    package = folder / CODE
    for name in TRAVELS:
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(__file__).parents[1] / name, package / name)
    for inside in {package, *((package / name).parent for name in TRAVELS)}:
        (inside / "__init__.py").touch()
    if plugin:
        (package / "plugin").mkdir()
        (package / "plugin" / plugin.file).write_bytes(plugin.source)
    return package


def _save_pictures(
    path: Path,
    package: Path,
    *,
    labels: Sequence[str],
    size: int,
    requirements: list[str],
    about: dict[str, Any],
) -> None:
    """The model folder with its python_function flavor, whose code travels with it; no graph yet."""
    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    file = io.BytesIO()
    PIL.Image.fromarray((255 * _ramps(size)[0].transpose(1, 2, 0)).astype(np.uint8)).save(file, "PNG")
    mlflow.pyfunc.save_model(
        path,
        loader_module=f"{CODE}.network.pyfunc",
        code_paths=[str(package)],
        # Inputs would be enforced, and so refused, by MLflow before they reach us: one schema fits one form.
        signature=ModelSignature(outputs=Schema([ColSpec(DataType.float, label) for label in labels])),
        input_example=pd.DataFrame({"image": [file.getvalue()]}),
        pip_requirements=requirements,
        metadata=about,
    )


def _add_graph(path: Path, temp: Path, model: Classifier, *, size: int, requirements: list[str]) -> None:
    """Add the pytorch flavor, the graph as torch.export wrote it, to the model folder at `path`."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    tensors = Schema([TensorSpec(np.dtype(np.float32), (-1, 3, size, size))])
    mlflow.pytorch.save_model(
        model,
        str(temp),
        signature=ModelSignature(inputs=tensors),
        # A batch of 2: torch.export takes a dimension of size 1 for a constant.
        input_example=_ramps(size),
        pip_requirements=requirements,
        serialization_format="pt2",
    )
    (temp / "data").replace(path / "data")
    described = Model.load(str(path / "MLmodel"))
    described.add_flavor("pytorch", **Model.load(str(temp / "MLmodel")).flavors["pytorch"])
    assert described.metadata is not None
    described.metadata["graph_sha256"] = digest_of(path / GRAPH)
    described.model_size_bytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    described.save(str(path / "MLmodel"))


def digest_of(file: Path) -> str:
    """SHA-256, 64 hex digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _plain_copy(net: nn.Module) -> nn.Module:
    """On the CPU, float32, contiguous (not channels-last), in evaluation mode, without gradients."""
    plain = copy.deepcopy(net).to(device="cpu", dtype=torch.float32)
    return plain.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def _ramps(size: int) -> npt.NDArray[np.float32]:
    """[2, 3, size, size]: two pictures, black to white and back."""
    ramp = np.linspace(0, 1, size, dtype=np.float32)
    pictures = np.broadcast_to(np.stack([ramp, ramp[::-1]])[:, None, None, :], (2, 3, size, size))
    return np.ascontiguousarray(pictures)


def _public(version: str) -> str:
    """2.15.0+cu132 -> 2.15.0: package registries know no build of a local machine."""
    return str(version).split("+")[0]
