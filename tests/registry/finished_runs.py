"""Finished runs on a server, each with a real model, its self-test and its stored predictions.

One network answers for all of them; which test images it has right is decided by their labels.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from imagenette.artifacts import PREDICTIONS, write_predictions
from imagenette.network import models
from imagenette.network.export import GRAPH, WEIGHTS, Classifier, digest_of, save_model
from imagenette.network.self_test import SelfTest
from imagenette.records import Predictions
from imagenette.registry.model import open_folder
from imagenette.results import BEST, FINAL, SELECTED, SELECTED_HOLDOUT, Status
from tests.tracking.tracking_helpers import open_run, small_card

CLASSES = ("cat", "dog", "owl")
NETWORK = "timm/test_resnet"  # half a million weights: they are sent and fetched a hundred times
SIZE, IMAGES = 32, 60
NAMES = tuple(f"val/{i:03d}.png" for i in range(IMAGES))
PICTURES = np.random.default_rng(7).integers(0, 256, (IMAGES, SIZE, SIZE, 3), dtype=np.uint8)
PIXELS = torch.from_numpy(PICTURES).permute(0, 3, 1, 2).float() / 255
REPRODUCE = "python -m imagenette train " + " ".join(f"--knob-{n}={n}" for n in range(12))
DATA = "0123456789abcdef" * 4


def saved_model(path: Path, classes: Sequence[str] = CLASSES) -> Path:
    """A ResNet-18 with random weights as a model folder, with its self-test.

    Its weights are those of half precision, and stored so: runs by the dozen are made of it. Its graph, which
    the registry never loads, is a stand-in with the right checksum.
    """
    net = models.by_name(NETWORK, classes=len(classes)).eval()
    net.load_state_dict({name: rounded(tensor) for name, tensor in net.state_dict().items()})
    with torch.inference_mode():
        shares = Classifier(net, (0.5,) * 3, (0.25,) * 3).eval()(PIXELS).numpy()
    predicted = shares.argmax(1)
    answers = Predictions(predicted, predicted, shares.max(1))
    test = SelfTest.sample(NAMES, PICTURES, answers)
    about = {"classes": classes, "labels": classes, "side": SIZE, "size": SIZE, "architecture": NETWORK}
    save_model(net, path, mean=(0.5,) * 3, std=(0.25,) * 3, self_test=test, **about)
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    save_file({n: t.half() if t.is_floating_point() else t for n, t in state.items()}, path / WEIGHTS)
    digest = digest_of(path / GRAPH)
    (path / GRAPH).write_bytes(b"a graph")
    described = (path / "MLmodel").read_text()
    (path / "MLmodel").write_text(described.replace(digest, digest_of(path / GRAPH)))
    return path


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float() if tensor.is_floating_point() else tensor


class Shop:
    """Makes finished runs to order."""

    def __init__(self, uri: str, model: Path, folder: Path, classes: Sequence[str] = CLASSES) -> None:
        self.uri, self._model, self._folder, self._classes = uri, model, folder, classes
        self._shares = open_folder(model).shares(PICTURES)
        self._made = 0

    def run(
        self,
        holdout: float | None,
        wrong: range = range(5),
        *,
        status: str | None = "finished",
        data_digest: str = DATA,
        experiment: str = "registry",
        study: str = "none",
        data: str = "digits",
        model: Path | None = None,
        **metrics: float,
    ) -> str:
        """The id of a run with that accuracy on the holdout, whose model has the images in `wrong` wrong."""
        self._made += 1
        output = self._folder / f"run{self._made}"
        predicted = self._shares.argmax(1)
        label = predicted.copy()
        shift = 1 + np.arange(len(wrong)) % (len(self._classes) - 1)  # so that every class is some image's
        label[list(wrong)] = (label[list(wrong)] + shift) % len(self._classes)
        given = Predictions(label, predicted, self._shares.max(1))
        card = small_card(experiment, epochs="1")
        card = replace(
            card,
            run_name=f"small {self._made}",
            tags={"role": "run", "seed": "1", "study": study, "arm": "small", "depth": "18"}
            | {"reproduce": REPRODUCE},
            dataset=card.dataset | {"digest": data_digest, "name": data},
        )
        tracker = open_run(output, self.uri, card)
        answers = {FINAL: given, SELECTED: given}
        write_predictions(output / PREDICTIONS, answers, names=NAMES, classes=self._classes)
        tracker.artifact(output / PREDICTIONS)
        shutil.copytree(model or self._model, output / "models/selected", copy_function=os.link)
        tracker.model("selected", output / "models/selected", step=1, metrics={})
        known: dict[str, float | None] = dict.fromkeys((BEST, SELECTED, FINAL), given.accuracy)
        known |= {SELECTED_HOLDOUT: holdout, "selected/epoch": 1.0}
        known |= {name.replace("_", "/", 1): value for name, value in metrics.items()}
        tracker.result({name: value for name, value in known.items() if value is not None})
        assert tracker.close(Status(status or "running")) == 0
        shutil.rmtree(output / "models")
        time.sleep(0.01)  # start times that differ
        assert tracker.run_id
        return tracker.run_id
