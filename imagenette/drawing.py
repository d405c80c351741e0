"""How every figure looks: palette, inks, axes, legends, and the one way to draw pictures, and a confusion
matrix.

Knows matplotlib, and loads it when something is drawn, not before; knows neither runs nor studies.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""Okabe and Ito's palette: colour-blind readers can tell them apart too, on white and on black."""
BLUE, VERMILLION, _, _, ORANGE, _, _ = COLOURS
INK, GRID, PAPER, GREY = "#1b1d21", "#e3e4e6", "#fefefe", "#666666"
_MOST_COUNTS = 25
"""Classes of a confusion matrix whose counts are written into it: more are too small to read."""


@contextmanager
def drawing() -> Iterator[None]:
    """Inside, names are drawn as they are ($ is no mathematics), and the same figure gives the same bytes."""
    from matplotlib import rc_context

    settings: dict[Any, Any] = {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "imagenette",
        "pdf.fonttype": 42,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a browser has it
        yield


def new_figure(width: float = 6.4, height: float = 3.9) -> Figure:
    """Width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor=PAPER)


def write_png(figure: Figure, path: Path, **options: Any) -> None:
    """The file is whole whenever it is there. options: of matplotlib's savefig."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with drawing():
        figure.savefig(beside, dpi=110, format="png", **options)
    beside.replace(path)


# -- axes ----------------------------------------------------------------------------------------------


def dress(axes: Axes, *, grid: Literal["x", "y"] | None = "y") -> None:
    """The frame that every figure has."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
        spine.set_linewidth(0.8)
    axes.tick_params(colors=INK, labelsize=10, width=0.8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(10)
    axes.title.set_color(INK)
    if grid:
        axes.grid(axis=grid, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def head(axes: Axes, text: str) -> None:
    """A panel's heading."""
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=INK)


def percent(axis: Any, *, sign: str = "") -> None:
    """Shares as per cent. sign: what follows each number, where the axis has no label that says so."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g}{sign}")
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))


def epoch_axis(axes: Axes, epochs: Collection[float]) -> None:
    """Whole epochs along the bottom; a single one stands in the middle."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if len(epochs) == 1:
        axes.set_xlim(min(epochs) - 0.5, min(epochs) + 0.5)


def legend(target: Any, **options: Any) -> None:
    """Of axes or of a figure."""
    made = target.legend(**{"frameon": False, "fontsize": 9.5, "labelcolor": INK} | options)
    made.get_title().set_color(INK)
    made.get_title().set_fontsize(9.5)


def colour_bar(figure: Figure, image: AxesImage, axes: Axes, label: str) -> None:
    """What the colours of shares stand for."""
    bar: Any = figure.colorbar(image, ax=axes, shrink=0.8)
    percent(bar.ax.yaxis)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=INK)
    bar.outline.set_edgecolor(GRID)


def write_on(image: AxesImage, x: int, y: int, text: str, *, gid: str | None = None) -> None:
    """A word in the middle of a cell, black or white as its colour needs it."""
    values = image.get_array()
    assert values is not None
    red, green, blue, _ = image.cmap(image.norm(values[y, x]))
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    ink = "#ffffff" if dark else "#000000"
    image.axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=ink, gid=gid)


# -- pictures ------------------------------------------------------------------------------------------


def picture_grid(
    figure: Figure,
    images: Sequence[npt.NDArray[np.uint8]],
    captions: Sequence[Sequence[tuple[str, str]]],
    *,
    title: str,
    columns: int,
) -> None:
    """Pictures row by row, each under its lines of (text, colour). Gives the figure its size.

    images: [side, side, 3] each. title: may have several lines.
    """
    rows, lines = max(1, -(-len(images) // columns)), max(map(len, captions), default=0)
    height = (1.8 + 0.14 * lines) * rows + 0.33 + 0.17 * len(title.splitlines())
    figure.set_size_inches(1.75 * columns, height)
    figure.suptitle(title, fontsize=10, fontweight="bold", color=INK, x=0.01, ha="left")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image, interpolation="nearest" if len(image) < 64 else "antialiased")
        for place, (text, colour) in enumerate(reversed(caption)):
            above = {"xytext": (0, 3 + 10 * place), "textcoords": "offset points"}
            axes.annotate(text, (0, 1), xycoords="axes fraction", fontsize=8, color=colour, **above)


# -- the confusion matrix ------------------------------------------------------------------------------


def confusion_matrix(
    figure: Figure,
    counts: npt.NDArray[np.int64],
    labels: Sequence[str],
    *,
    colours: str,
    mark: Callable[[int, int], str | None] = lambda true, predicted: None,
) -> Axes:
    """Counts, each row coloured by its share: recall stands on the diagonal. Gives the figure its size.

    counts: [classes, classes], row is the true class, column the predicted one. labels: by class number.
    colours: name of a colour map. mark: (true, predicted) -> an id for the count that is drawn there.
    """
    few = len(labels) <= _MOST_COUNTS
    side = float(np.clip(0.52 * len(labels) + 2.2, 4.4, 11))
    figure.set_size_inches(side + 0.9, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1)
    names = [shortened(label) for label in labels]
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **turned if few else {"rotation": 90})
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for true, predicted in np.argwhere(counts) if few else ():
        count = str(counts[true, predicted])
        write_on(image, predicted, true, count, gid=mark(true, predicted))
    dress(axes, grid=None)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9 if few else 5)
    colour_bar(figure, image, axes, "share of the true class, %")
    return axes


def shortened(label: str, *, limit: int = 18) -> str:
    return label if len(label) <= limit else label[: limit - 1] + "…"
