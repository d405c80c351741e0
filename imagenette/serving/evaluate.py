"""`imagenette evaluate`: a registered model on the test images of a data set. Prints; writes each answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imagenette.artifacts import confusion, write_answers
from imagenette.data import Dataset, open_dataset
from imagenette.data.prepare import resize
from imagenette.errors import InputError, shown
from imagenette.records import Predictions
from imagenette.registry import load_known
from imagenette.registry.model import Model
from imagenette.serving.predict import BATCH, name_of
from imagenette.stats import Interval, wilson

_NAMED = 5
"""Classes that a message lists."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's answers to every test image of a data set."""

    model: str
    """Its name and version in words."""
    dataset: Dataset
    predictions: Predictions
    """Classes are numbers of the model's."""
    classes: tuple[str, ...]
    """The model's, by number."""
    labels: tuple[str, ...]
    trained_on: str | None
    """Digest of the data that the model was trained on, where that is known."""

    @property
    def right(self) -> int:
        return int((self.predictions.label == self.predictions.predicted).sum())

    @property
    def interval(self) -> Interval:
        """Of the share right, for other images of the kind."""
        return wilson(self.right, len(self.predictions.label))

    @property
    def data(self) -> str:
        """Which images these are to the model."""
        if self.trained_on is None:
            return "whether it was trained on this data set is not known"
        if self.trained_on == self.dataset.digest:
            return "the test images of the data set that it was trained on"
        return (
            f"another data set ({self.dataset.digest[:8]}) than it was trained on ({self.trained_on[:8]}): "
            "its run's figures are of other images, and it may have been trained on some of these"
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row a class that has images: its name, images, right ones, what it is taken for most often."""
        counts = confusion(self.predictions, len(self.classes))
        rows = []
        for number in np.flatnonzero(counts.sum(1)):
            others = counts[number].copy()
            others[number] = 0
            mistaken = int(others.argmax()) if others.any() else None
            rows.append(
                {
                    "class": self.classes[number],
                    "label": self.labels[number],
                    "images": int(counts[number].sum()),
                    "right": int(counts[number, number]),
                    "taken_for": None if mistaken is None else self.labels[mistaken],
                    "taken_for_images": 0 if mistaken is None else int(others[mistaken]),
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "data": self.dataset.name,
            "data_digest": self.dataset.digest,
            "trained_on": self.trained_on,
            "images": len(self.predictions.label),
            "right": self.right,
            "accuracy": self.predictions.accuracy,
            "low": self.interval.low,
            "high": self.interval.high,
            "classes": self.rows(),
        }


def evaluate(
    model: str, data: str, *, bad_pictures: str = "refuse", tracking_uri: str | None = None
) -> Evaluation:
    """Ask the model at that address about every test image, prepared as in training. InputError where the
    data set cannot be read or has a class that the model does not know."""
    loaded, known = load_known(model, tracking_uri=tracking_uri)
    dataset = open_dataset(data, side=loaded.side, bad_pictures=bad_pictures)
    numbers = _numbers(loaded, dataset)
    shares = np.concatenate(
        [
            loaded.shares(_seen(dataset.test.images[start : start + BATCH], loaded.size))
            for start in range(0, len(dataset.test), BATCH)
        ]
    )
    predicted = shares.argmax(1)
    return Evaluation(
        model=name_of(loaded, known, model),
        dataset=dataset,
        predictions=Predictions(numbers[dataset.test.labels], predicted, shares.max(1)),
        classes=loaded.classes,
        labels=loaded.labels,
        trained_on=known.data_digest if known else None,
    )


def _numbers(model: Model, dataset: Dataset) -> npt.NDArray[np.int64]:
    """The data set's class numbers as the model's."""
    place = {name: number for number, name in enumerate(model.classes)}
    unknown = [shown(name) for name in dataset.classes if name not in place]
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        known = ", ".join(map(shown, model.classes[:_NAMED]))
        raise InputError(
            f"data={dataset.name}: the model knows no {', '.join(unknown[:_NAMED])}{more}; "
            f"of its {len(model.classes)} classes the first are {known}"
        )
    return np.array([place[name] for name in dataset.classes], dtype=np.int64)


def _seen(images: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    return np.stack([resize(torch.from_numpy(image), size) for image in images])


def show(found: Evaluation, *, as_json: bool = False, csv: Path | None = None) -> None:
    """Print it; csv: also a row an image, with the class that it was given and that class's share."""
    if csv:
        write_answers(csv, found.predictions, names=found.dataset.test.names, classes=found.classes)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    images, interval = len(found.predictions.label), found.interval
    click.echo(
        f"{found.model}: {found.predictions.accuracy:.2%} of {images:,} images right "
        f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}; for other images of the kind]"
    )
    click.echo(f"{shown(found.dataset.name)}: {found.data}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("class")
    table.add_column("images", justify="right")
    table.add_column("right", justify="right")
    table.add_column("most often taken for")
    for row in found.rows():
        taken = f"{row['taken_for']} ({row['taken_for_images']})" if row["taken_for"] else ""
        table.add_row(
            Text(shown(row["label"])),
            str(row["images"]),
            f"{row['right'] / row['images']:.1%}",
            Text(shown(taken)),
        )
    Console().print(table)
