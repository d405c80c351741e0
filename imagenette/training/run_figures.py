"""The figures of a finished run: what a person opens first when a run looks odd.

Writes files into a folder; knows records and arrays, neither tensors nor MLflow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from imagenette.artifacts import confusion
from imagenette.drawing import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    VERMILLION,
    confusion_matrix,
    drawing,
    dress,
    epoch_axis,
    head,
    legend,
    new_figure,
    percent,
    picture_grid,
    shortened,
    write_png,
)
from imagenette.errors import as_line
from imagenette.records import Epoch, Predictions
from imagenette.results import FINAL, SELECTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SPLITS = {
    "train": (BLUE, (0, (4, 1.5))),
    "holdout": (ORANGE, "dotted"),
    "test": (VERMILLION, "solid"),
}
"""Split -> colour and line style of its curves."""
_WORST = 25  # mistakes that are shown
_TIGHT = {"bbox_inches": "tight", "pad_inches": 0.1}


def draw_summary(
    folder: Path,
    history: Sequence[Epoch],
    predictions: Mapping[str, Predictions],
    *,
    labels: Sequence[str],
    images: npt.NDArray[np.uint8],
    selected_epoch: int | None = None,
) -> Iterator[Path]:
    """Draw every figure, and give each file once it is there. A figure that cannot be drawn costs a warning:
    it only shows what the tables hold.

    predictions: of the same test images in the same order, by accuracy: FINAL and, where an epoch was
    selected, SELECTED. labels: readable names by class number. images: uint8 [n, side, side, 3].
    """
    folder.mkdir(parents=True, exist_ok=True)
    judged = predictions.get(SELECTED, predictions[FINAL])
    which = f"epoch {selected_epoch}" if SELECTED in predictions and selected_epoch else "last epoch"
    counts = confusion(judged, len(labels))
    makers = {
        "curves.png": partial(draw_curves, history=history, selected_epoch=selected_epoch),
        "confusion.png": partial(draw_confusion, counts=counts, labels=labels, which=which),
        "worst.png": partial(draw_worst, predictions=judged, labels=labels, images=images, which=which),
    }
    for name, draw in makers.items():
        try:
            with drawing():
                draw(folder / name)
        except Exception as error:
            print(f"imagenette: {name} could not be drawn: {as_line(error)}", file=sys.stderr)
        else:
            yield folder / name


def draw_curves(path: Path, history: Sequence[Epoch], selected_epoch: int | None = None) -> None:
    """Loss on the left, accuracy on the right, over epochs; the selected epoch is marked."""
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    rows = {epoch.index: epoch.metrics() for epoch in history}
    for axes, quantity in ((left, "loss"), (right, "accuracy")):
        for split, (colour, line) in _SPLITS.items():
            name = f"{split}/{quantity}"
            points = {epoch: metrics[name] for epoch, metrics in rows.items() if name in metrics}
            if points:
                marker = "o" if len(points) < 12 else ""
                style = {"linestyle": line, "linewidth": 1.8, "marker": marker, "markersize": 4}
                axes.plot(list(points), list(points.values()), color=colour, label=split, **style)
        head(axes, quantity.capitalize())
        epoch_axis(axes, rows.keys())
        dress(axes)
    left.set_ylim(0, 1.12 * left.get_ylim()[1])  # room for the words on the selected epoch
    if len(history) == 1:
        right.set_ylim(0, 1)
    percent(right.yaxis, sign="%")
    if selected_epoch is not None:
        _mark_selected(left, right, selected_epoch, history)
    if right.get_legend_handles_labels()[0]:
        legend(right, loc="lower right", frameon=True, framealpha=1, edgecolor="none")
    write_png(figure, path, **_TIGHT)


def _mark_selected(left: Axes, right: Axes, selected: int, history: Sequence[Epoch]) -> None:
    for axes in (left, right):
        axes.axvline(selected, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    epoch = next((e for e in history if e.index == selected), None)
    accuracy = f", test {epoch.test_accuracy:.2%}" if epoch and epoch.test_accuracy is not None else ""
    late = selected > (history[0].index + history[-1].index) / 2
    left.annotate(
        f"selected: epoch {selected}{accuracy}",
        (selected, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if late else 5, -4),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=9,
        color=GREY,
    )


def draw_confusion(path: Path, counts: npt.NDArray[np.int64], labels: Sequence[str], which: str) -> None:
    """How many images of each class were taken for which. which: the epoch, in words."""
    figure = new_figure()
    axes = confusion_matrix(figure, counts, labels, colours="Blues")
    right, total = int(np.trace(counts)), int(counts.sum())
    head(axes, f"{right / total:.2%} of {total:,} test images, {which}")
    write_png(figure, path, **_TIGHT)


def draw_worst(
    path: Path, predictions: Predictions, labels: Sequence[str], images: npt.NDArray[np.uint8], which: str
) -> None:
    """The mistakes the network was surest of, as pictures: true class, then what it said and how sure."""
    wrong = np.flatnonzero(predictions.label != predictions.predicted)
    shown = wrong[np.argsort(-predictions.share[wrong], kind="stable")][:_WORST]
    total = f"{len(predictions.label):,} test images"
    title = f"{len(shown)} of {len(wrong):,} mistakes on {total}, the surest first, {which}"
    if not len(shown):
        title = f"No mistakes on {total}"
    captions = []
    for index in shown:
        true, predicted = (shortened(labels[of[index]]) for of in (predictions.label, predictions.predicted))
        said = f"said: {predicted} {predictions.share[index]:.0%}"
        captions.append([(f"true: {true}", INK), (said, INK)])
    figure = new_figure()
    columns = min(5, max(3, len(shown)))
    picture_grid(figure, [images[index] for index in shown], captions, title=title, columns=columns)
    write_png(figure, path, **_TIGHT)
