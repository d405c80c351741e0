"""The trained network as a folder MLflow can load: no pickle in it, and no code of ours needed.

Pictures go in as they are (RGB, values in [0, 1]); normalization and softmax are inside.
"""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

WEIGHTS = "weights.safetensors"
"""The bare network's state_dict beside the exported graph: to go on training, or to load elsewhere."""


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
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write `net` as an MLflow model folder at `path`, replacing what is there; returns `path`.

    `net` is the bare network (no DDP), on any device; it is copied, not changed. `classes` are the
    folder names in the order of the outputs, `labels` their readable names, `size` the side in
    pixels. The graph takes any number of pictures from 1 up, of that size.
    """
    import mlflow
    import torchvision
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    model = Classifier(_plain_copy(net), mean, std).eval()
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 3, size, size))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(classes)))]),
    )
    about = {
        "classes": list(classes),
        "labels": list(labels),
        "size": size,
        "mean": list(mean),
        "std": list(std),
        "input": "float32 [n, 3, size, size], RGB, values in [0, 1]",
        "output": "float32 [n, classes], probabilities",
        **(metadata or {}),
    }
    beside = path.with_name(path.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.export's and MLflow's own housekeeping
        mlflow.pytorch.save_model(
            model,
            str(beside),
            signature=signature,
            # A batch of 2: torch.export takes a dimension of size 1 for a constant.
            input_example=_example(size),
            # Named, not inferred: inference loads the model in another process (10 s).
            pip_requirements=[
                f"mlflow=={mlflow.__version__}",
                f"torch=={_public(torch.__version__)}",
                f"torchvision=={_public(torchvision.__version__)}",
            ],
            metadata=about,
            serialization_format="pt2",
        )
    weights = {name: tensor.contiguous() for name, tensor in model.net.state_dict().items()}
    save_file(weights, beside / WEIGHTS, metadata={"about": json.dumps(about)})
    shutil.rmtree(path, ignore_errors=True)
    beside.replace(path)
    return path


def _plain_copy(net: nn.Module) -> nn.Module:
    """On the CPU, float32, contiguous (not channels-last), in evaluation mode, without gradients."""
    plain = copy.deepcopy(net).to(device="cpu", dtype=torch.float32)
    return plain.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def _example(size: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Two pictures, black to white and back, in eighths: a few characters a value in MLflow's JSON."""
    ramp = np.round(np.linspace(0, 8, size)) / 8
    pictures = np.broadcast_to(np.stack([ramp, ramp[::-1]])[:, None, None, :], (2, 3, size, size))
    return np.ascontiguousarray(pictures, dtype=np.float32)


def _public(version: str) -> str:
    """2.15.0+cu132 -> 2.15.0: package registries know no build of a local machine."""
    return str(version).split("+")[0]
