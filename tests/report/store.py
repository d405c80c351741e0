"""Runs on a real tracking server as training leaves them, made without training; some broken on purpose."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from imagenette.artifacts import write_tables
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED
from imagenette.tracking.study_plan import OUTLINE, StudyPlan

CLASSES = ("cat", "dog", "owl")
IMAGES = 200
DATA = "0123456789abcdef" * 4
DATA_PLACE = "/home/me/imagenette.tar"
KNOWN = {
    "data_digest": DATA,
    "commit": "c0ffee" * 6,
    "commit_dirty": "false",
    "device": "a small computer",
    "torch": "2.15.0",
    "parameters": "11181642",
    "weights_bytes": "44776624",
    "selection": "holdout",
    "host": "box",
    "output": "/home/me/runs/1",
}


def outline(name: str, **changed: Any) -> StudyPlan:
    arms = {f"weight_decay={wd}": {"weight_decay": wd} for wd in (0.0, 0.0005, 0.01)}
    known = {"name": name, "title": "Weight decay", "objective": "selected/holdout_accuracy", "seeds": (1, 2)}
    return StudyPlan.model_validate(known | {"arms": arms, "baseline": "weight_decay=0.0005"} | changed)


class Store:
    """One experiment of a server, and a folder for what is on its way there."""

    def __init__(self, uri: str, experiment: str, folder: Path) -> None:
        self.uri, self.experiment, self._folder = uri, experiment, folder
        self.client = MlflowClient(uri)
        found = self.client.get_experiment_by_name(experiment)
        self.id = found.experiment_id if found else self.client.create_experiment(experiment)

    def parent(self, plan: StudyPlan | str, *, name: str | None = None, status: str = "finished") -> str:
        """A study's parent run; with a text, that in place of its outline."""
        study = name or (plan.name if isinstance(plan, StudyPlan) else "")
        run_id = self._run(name=study, tags={"study": study, "role": "study", "status": status})
        text = plan.model_dump_json() if isinstance(plan, StudyPlan) else plan
        if text:
            self._send(run_id, OUTLINE, text, "study")
        self._end(run_id, status)
        return run_id

    def run(
        self,
        study: str,
        arm: str,
        seed: int | None,
        *,
        wrong: int = 20,
        status: str = "finished",
        predictions: str | bool = True,
        history: bool = True,
        claims: Mapping[str, float | None] = MappingProxyType({}),
        knobs: Mapping[str, str] = MappingProxyType({}),
        **tags: str,
    ) -> str:
        """A run that has so many of the test images wrong; a text in place of its predictions breaks them."""
        numbered = {} if seed is None else {"seed": str(seed)}
        tags = {"study": study, "arm": arm, "role": "trial", "status": status, **numbered, **KNOWN, **tags}
        run_id = self._run(name=f"{arm} seed={seed}", tags={k: v for k, v in tags.items() if v})
        rng = np.random.default_rng(zlib.crc32(f"{arm} {seed} {wrong}".encode()))
        label = np.arange(IMAGES) % len(CLASSES)
        predicted = label.copy()
        missed = rng.choice(IMAGES, wrong, replace=False)
        predicted[missed] = (label[missed] + 1) % len(CLASSES)
        share = 1 - wrong / IMAGES
        known: dict[str, float | None] = {
            f"{which}/test_accuracy": share for which in ("selected", "final", "best")
        }
        values = {key: value for key, value in (known | dict(claims)).items() if value is not None}
        epochs = [self._epoch(index, share) for index in (1, 2, 3)] if status == "finished" else []
        metrics = [Metric(k, v, e.timestamp, e.index) for e in epochs for k, v in e.metrics().items()]
        metrics += [Metric(key, value, 1, 3) for key, value in values.items()] if status == "finished" else []
        params = [
            Param(key, value)
            for key, value in ({"epochs": "3", "lr": "0.1", "data": DATA_PLACE} | dict(knobs)).items()
        ]
        self.client.log_batch(run_id, metrics=metrics, params=params)
        if status == "finished":
            said = Predictions(label, predicted, np.full(IMAGES, 0.9, np.float32))
            files = write_tables(
                self._folder / run_id,
                epochs,
                {FINAL: said, SELECTED: said},
                names=[f"val/{i:03d}.png" for i in range(IMAGES)],
                classes=CLASSES,
                labels=CLASSES,
            )
            wanted = {"per_class.csv"} | ({"predictions.csv"} if predictions is True else set())
            wanted |= {"history.csv"} if history else set()
            for file in files:
                if file.name in wanted:
                    self.client.log_artifact(run_id, str(file))
            if isinstance(predictions, str):
                self._send(run_id, "predictions.csv", predictions, None)
        self._end(run_id, status)
        return run_id

    def _run(self, *, name: str, tags: dict[str, str]) -> str:
        time.sleep(0.002)  # start times that differ
        return str(self.client.create_run(self.id, run_name=name, tags=tags).info.run_id)

    def _send(self, run_id: str, name: str, text: str, folder: str | None) -> None:
        path = self._folder / f"{run_id}.sent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.client.log_artifact(run_id, str(path), folder)

    def _end(self, run_id: str, status: str) -> None:
        if status != "running":
            self.client.set_terminated(run_id, "FINISHED" if status == "finished" else "FAILED")

    @staticmethod
    def _epoch(index: int, share: float) -> Epoch:
        return Epoch(
            index=index,
            timestamp=1_700_000_000_000 + index,
            train_loss=2.0 / index,
            train_accuracy=share * index / 3,
            test_loss=2.5 / index,
            test_accuracy=share * index / 3,
            lr=0.1,
            speed_images_per_second=100.0 + index,
            speed_epoch_seconds=60.0,
        )
