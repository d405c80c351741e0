"""The figures and tables of a finished run: what a person opens first when a run looks odd.

Writes files into a folder; knows records and arrays, neither tensors nor MLflow.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from imagenette.records import Epoch, Predictions

COLOURS = {"train": "#0072B2", "holdout": "#E69F00", "test": "#D55E00"}
"""Okabe and Ito's palette: told apart by colour-blind readers too. Lines differ in style as well."""
_STYLES = {"train": (0, (4, 1.5)), "holdout": "dotted", "test": "solid"}
_GREY = "#666666"
_WORST = 25
_DPI = 110


def write_summary(
    folder: Path,
    history: Sequence[Epoch],
    predictions: Mapping[str, Predictions],
    *,
    names: Sequence[str],
    labels: Sequence[str],
    classes: Sequence[str] | None = None,
    images: npt.NDArray[np.uint8] | None = None,
    selected_epoch: int | None = None,
) -> list[Path]:
    """Write every figure and table; returns the files, each to be tracked.

    `predictions` holds "last" and, where a best epoch was kept, "selected": the same test images in
    the same order, whose file names are `names` and whose pictures `images` uint8 [n, side, side, 3].
    `labels` are readable names and `classes` folder names (None: the same), both by class number.
    """
    classes = labels if classes is None else classes
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Callable[[Path], None]] = {
        "curves.png": lambda path: draw_curves(path, history, selected_epoch),
        "history.csv": lambda path: _write_csv(path, _history_rows(history)),
    }
    if predictions:
        judged = predictions.get("selected", predictions["last"])
        which = f"epoch {selected_epoch}" if "selected" in predictions and selected_epoch else "last epoch"
        files |= {
            "confusion.png": lambda path: draw_confusion(path, judged, labels, which),
            "per_class.csv": lambda path: _write_csv(path, _class_rows(judged, classes, labels)),
            "predictions.csv": lambda path: _write_csv(path, _prediction_rows(predictions, names, classes)),
        }
        if images is not None:
            files["worst.png"] = lambda path: draw_worst(path, judged, labels, images, which)
    for name, write in files.items():
        write(folder / name)
    return [folder / name for name in files]


def draw_curves(path: Path, history: Sequence[Epoch], selected_epoch: int | None = None) -> None:
    """Loss on the left, accuracy on the right, over epochs; the selected epoch is marked."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    rows = [epoch.metrics() for epoch in history]
    for axes, quantity in ((left, "loss"), (right, "accuracy")):
        for split, colour in COLOURS.items():
            points = [
                (e.index, row[f"{split}/{quantity}"])
                for e, row in zip(history, rows, strict=True)
                if f"{split}/{quantity}" in row
            ]
            if not points:
                continue
            x, y = zip(*points, strict=True)
            marker = "o" if len(x) < 12 else None
            axes.plot(
                x,
                y,
                color=colour,
                linestyle=_STYLES[split],
                linewidth=1.8,
                marker=marker,
                markersize=4,
                label=split,
            )
        axes.set_title(quantity.capitalize(), loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if len(history) == 1:
            axes.set_xlim(0.5, 1.5)
        axes.grid(axis="y", color="#e5e5e5")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 1.12 * left.get_ylim()[1])  # room for the words on the selected epoch
    if len(history) == 1:
        right.set_ylim(0, 1)
    right.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    right.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    if selected_epoch is not None:
        _mark_selected(left, right, selected_epoch, history)
    handles, texts = right.get_legend_handles_labels()
    if handles:
        right.legend(handles, texts, loc="lower right", framealpha=1, edgecolor="none")
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", pad_inches=0.1)


def _mark_selected(left: Axes, right: Axes, selected: int, history: Sequence[Epoch]) -> None:
    for axes in (left, right):
        axes.axvline(selected, color=_GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    epoch = next((e for e in history if e.index == selected), None)
    said = f"selected: epoch {selected}"
    if epoch is not None and epoch.test_accuracy is not None:
        said += f", test {epoch.test_accuracy:.2%}"
    late = selected > (history[0].index + history[-1].index) / 2
    left.annotate(
        said,
        (selected, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if late else 5, -4),
        textcoords="offset points",
        ha="right" if late else "left",
        va="top",
        fontsize=9,
        color=_GREY,
    )


def confusion(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """[classes, classes] counts: row is the true class, column the predicted one."""
    flat = np.bincount(predictions.label * classes + predictions.predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def draw_confusion(path: Path, predictions: Predictions, labels: Sequence[str], which: str) -> None:
    """Counts, each row coloured by its share: recall stands on the diagonal."""
    counts = confusion(predictions, len(labels))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(labels) <= 25
    side = float(np.clip(0.62 * len(labels) + 2.4, 4.6, 12))
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(labels))
    axes.set_xticks(
        ticks,
        [_short(label) for label in labels],
        rotation=90 if not few else 45,
        ha="center" if not few else "right",
        rotation_mode="anchor" if few else "default",
    )
    axes.set_yticks(ticks, [_short(label) for label in labels])
    axes.tick_params(length=0, labelsize=9 if few else 5)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set_visible(False)
    if few:
        for true, predicted in np.argwhere(counts):
            dark = shares[true, predicted] > 0.55
            axes.text(
                predicted,
                true,
                counts[true, predicted],
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else "#222222",
            )
    axes.set_title(
        f"{predictions.accuracy:.2%} of {len(predictions.label):,} test images, {which}",
        loc="left",
        fontsize=11,
        fontweight="bold",
    )
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, format=PercentFormatter(xmax=1, decimals=0))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", pad_inches=0.1)


def draw_worst(
    path: Path, predictions: Predictions, labels: Sequence[str], images: npt.NDArray[np.uint8], which: str
) -> None:
    """The mistakes the network was surest of, as pictures: true class, then what it said and how sure."""
    wrong = np.flatnonzero(predictions.label != predictions.predicted)
    shown = wrong[np.argsort(-predictions.share[wrong], kind="stable")][:_WORST]
    columns = min(5, max(3, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(1.75 * columns, 2.15 * rows + 0.5), layout="constrained")
    figure.suptitle(
        f"{len(shown)} of {len(wrong):,} mistakes on {len(predictions.label):,} test images, "
        f"the surest first, {which}"
        if len(shown)
        else f"No mistakes on {len(predictions.label):,} test images",
        fontsize=10,
        fontweight="bold",
        x=0.01,
        ha="left",
    )
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, shown, strict=False):
        axes.imshow(images[index], interpolation="nearest" if images.shape[1] < 64 else "antialiased")
        said = f"{_short(labels[predictions.predicted[index]])} {predictions.share[index]:.0%}"
        axes.set_title(
            f"true: {_short(labels[predictions.label[index]])}\nsaid: {said}", fontsize=8, loc="left"
        )
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", pad_inches=0.1)


def _short(label: str, *, limit: int = 18) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"


Row = dict[str, Any]


def _history_rows(history: Sequence[Epoch]) -> Iterable[Row]:
    for epoch in history:
        yield {"epoch": epoch.index, "timestamp": epoch.timestamp, **epoch.metrics()}


def _class_rows(predictions: Predictions, classes: Sequence[str], labels: Sequence[str]) -> Iterable[Row]:
    counts = confusion(predictions, len(classes))
    for number, (name, label) in enumerate(zip(classes, labels, strict=True)):
        images, said, right = counts[number].sum(), counts[:, number].sum(), counts[number, number]
        yield {
            "class": name,
            "name": label,
            "images": images,
            "correct": right,
            "recall": f"{right / images:.6f}" if images else "",
            "precision": f"{right / said:.6f}" if said else "",
        }


def _prediction_rows(
    predictions: Mapping[str, Predictions], names: Sequence[str], classes: Sequence[str]
) -> Iterable[Row]:
    """One row an image, in the split's order: what paired tests between two runs are made of."""
    last, selected = predictions["last"], predictions.get("selected")
    for index, name in enumerate(names):
        row = {
            "image": name,
            "label": classes[last.label[index]],
            "predicted": classes[last.predicted[index]],
            "share": f"{last.share[index]:.6f}",
        }
        if selected is not None:
            row["selected_predicted"] = classes[selected.predicted[index]]
            row["selected_share"] = f"{selected.share[index]:.6f}"
        yield row


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    rows = list(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
