"""The tables that a finished run leaves: file names, columns, who writes and who reads them. Knows no MLflow.

Written by a training, read by the registry, by reports and by whoever downloads them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imagenette.errors import InputError
from imagenette.files import write_whole
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED

HISTORY, PREDICTIONS, CLASSES = "history.csv", "predictions.csv", "per_class.csv"
CONFIG = "config.json"
SELECTED_MODEL, LAST_MODEL = "selected", "last"
"""Names of the logged models."""
_PREDICTED = {FINAL: "predicted", SELECTED: "selected_predicted"}
"""Accuracy -> the column of PREDICTIONS that holds the classes behind it."""
_SHARE = {FINAL: "share", SELECTED: "selected_share"}


# -- writing -------------------------------------------------------------------------------------------


def write_tables(
    folder: Path,
    history: Sequence[Epoch],
    predictions: Mapping[str, Predictions],
    *,
    names: Sequence[str],
    classes: Sequence[str],
    labels: Sequence[str],
) -> list[Path]:
    """Every table of a run; returns the files.

    predictions: of the same test images in the same order, by accuracy: FINAL and, where an epoch was
    selected, SELECTED. names: of the images' files. classes: folder names, labels: readable names, both by
    class number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_history(folder / HISTORY, history)
    counts = confusion(predictions.get(SELECTED, predictions[FINAL]), len(classes))
    write_classes(folder / CLASSES, counts, classes=classes, labels=labels)
    write_predictions(folder / PREDICTIONS, predictions, names=names, classes=classes)
    return [folder / name for name in (HISTORY, CLASSES, PREDICTIONS)]


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """A row an epoch: its number, its timestamp, its metrics."""
    write_rows(path, ({"epoch": e.index, "timestamp": e.timestamp, **e.metrics()} for e in history))


def write_predictions(
    path: Path, predictions: Mapping[str, Predictions], *, names: Sequence[str], classes: Sequence[str]
) -> None:
    """A row an image, in the split's order: what paired tests between two runs are made of.

    predictions: of the same images, by accuracy (FINAL; SELECTED where an epoch was selected). names: of the
    images. classes: folder names by class number.
    """
    final = predictions[FINAL]

    def row(index: int) -> dict[str, Any]:
        cells = {"image": names[index], "label": classes[final.label[index]]}
        for accuracy in (FINAL, SELECTED):
            if answer := predictions.get(accuracy):
                cells[_PREDICTED[accuracy]] = classes[answer.predicted[index]]
                cells[_SHARE[accuracy]] = f"{answer.share[index]:.6f}"
        return cells

    write_rows(path, map(row, range(len(names))))


def write_answers(
    path: Path, predictions: Predictions, *, names: Sequence[str], classes: Sequence[str]
) -> None:
    """A row an image of what one model says: its class, the class it was given, and that class's share."""
    columns = (names, predictions.label, predictions.predicted, predictions.share)
    write_rows(
        path,
        (
            {"image": name, "label": classes[label], "predicted": classes[said], "share": f"{share:.6f}"}
            for name, label, said, share in zip(*columns, strict=True)
        ),
    )


def write_classes(
    path: Path, counts: npt.NDArray[np.int64], *, classes: Sequence[str], labels: Sequence[str]
) -> None:
    """A row a class: images, correct ones, recall, precision. counts: as `confusion` gives them."""

    def row(number: int) -> dict[str, Any]:
        images, predicted, right = counts[number].sum(), counts[:, number].sum(), counts[number, number]
        return {
            "class": classes[number],
            "name": labels[number],
            "images": images,
            "correct": right,
            "recall": f"{right / images:.6f}" if images else "",
            "precision": f"{right / predicted:.6f}" if predicted else "",
        }

    write_rows(path, map(row, range(len(classes))))


def confusion(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """[classes, classes] counts: row is the true class, column the predicted one."""
    flat = np.bincount(predictions.label * classes + predictions.predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


# -- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run's stored predictions say of every test image."""

    names: tuple[str, ...]
    """Of the images, in the split's order."""
    labels: tuple[str, ...]
    """Their classes: folder names."""
    predicted: Mapping[str, tuple[str, ...]]
    """Accuracy (FINAL, SELECTED) -> the class that each image was given."""
    shares: Mapping[str, tuple[float, ...]]
    """Accuracy -> the probability of that class."""

    @property
    def images(self) -> str:
        """A digest of the images' names and classes in their order: runs that share it can be paired."""
        lines = "\n".join(f"{name}\t{label}" for name, label in zip(self.names, self.labels, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()

    def right(self, accuracy: str) -> npt.NDArray[np.bool_]:
        """[n] whether each image was given its own class."""
        return np.equal(self.labels, self.predicted[accuracy])


def read_predictions(path: Path) -> Answers:
    """InputError where the file is not a whole table of predictions."""
    rows = read_table(path)
    held = [accuracy for accuracy, column in _PREDICTED.items() if column in rows[0]]
    if not {"image", "label"} <= rows[0].keys() or not held:
        raise InputError(f"{path.name} lacks its columns")
    if any(value is None for row in rows for value in row.values()):
        raise InputError(f"{path.name} is cut off")
    try:
        shares = {a: tuple(float(row[_SHARE[a]]) for row in rows) for a in held if _SHARE[a] in rows[0]}
    except ValueError as error:
        raise InputError(f"{path.name}: {error}") from None
    return Answers(
        names=tuple(row["image"] for row in rows),
        labels=tuple(row["label"] for row in rows),
        predicted={a: tuple(row[_PREDICTED[a]] for row in rows) for a in held},
        shares=shares,
    )


def read_classes(path: Path) -> dict[str, str]:
    """Folder name -> readable name, in the order of the class numbers. InputError."""
    rows = read_table(path)
    if not {"class", "name"} <= rows[0].keys():
        raise InputError(f"{path.name} lacks its columns")
    return {row["class"]: row["name"] for row in rows}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file. InputError where it is none, or empty."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [{column: from_cell(text) for column, text in row.items()} for row in reader]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path.name}: {error}") from None
    if not rows:
        raise InputError(f"{path.name} is empty")
    return rows


_FORMULA = re.compile(r"'*[=+@\t\r-]")


def as_cell(value: Any) -> Any:
    """A name that a spreadsheet would take for a formula gets a quote in front; numbers stay."""
    name = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if name else value


_NUMBER = re.compile(r"[+-]?[\d.]+(e[+-]?\d+)?")


def from_cell(text: str) -> str:
    """What as_cell was given."""
    return text[1:] if text and text[0] == "'" and as_cell(text[1:]) == text else text


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file, whole or not at all. Bytes of a file's name that are no text stand as `\\udcXX` in it."""
    text = csv_text(list(rows)).encode("utf-8", "backslashreplace").decode()
    write_whole(path, text, fsync=False)


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> str:
    """columns: those of all rows, unless told; a cell that a row lacks is empty."""
    columns = list(columns or dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: as_cell(value) for column, value in row.items()} for row in rows)
    return text.getvalue()
