"""What a page needs of a figure: one colour for an arm wherever it is drawn, inks that turn dark with the
page, and the values behind each mark for whoever points at it. Knows matplotlib, and no study."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenette.drawing import COLOURS, GRID, INK, PAPER, drawing, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAGE = {INK: "var(--ink)", GRID: "var(--grid)", PAPER: "var(--paper)"}
"""Inks that stand for a page's own colours: nothing else is drawn in them."""
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.5, 1.5)))
_MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Look:
    """Of an arm, in every figure."""

    colour: str
    dashes: Any
    marker: str


def looks(arms: Sequence[str]) -> dict[str, Look]:
    """Arm -> its look, by its place among all of the study: up to seven have colours of their own, more go
    over viridis; neighbours differ in dashes and marker as well."""
    if len(arms) <= len(COLOURS):
        colours: Sequence[str] = COLOURS
    else:
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        colours = [to_hex(colormaps["viridis"](0.25 + 0.5 * i / (len(arms) - 1))) for i in range(len(arms))]
    return {
        arm: Look(colours[i], _DASHES[i % len(_DASHES)], _MARKERS[i % len(_MARKERS)])
        for i, arm in enumerate(arms)
    }


@dataclass(frozen=True, kw_only=True)
class Series:
    """A curve that a page can read off at any epoch."""

    label: str
    colour: str
    x: list[float]
    y: list[float]


@dataclass(frozen=True, kw_only=True)
class SavedFigure:
    """Drawn and saved: NAME.svg, NAME.pdf, NAME.png in `figures/`."""

    name: str
    caption: str
    svg: str
    """As a part of a page."""
    tips: dict[str, str]
    """Mark's id -> what it says when pointed at."""
    panels: list[dict[str, Any]]
    """Of each axes with curves: `box` (left, top, width, height, in points from the upper left), `span` (what
    its left and right edge stand for), `series` (each a Series), `percent` (whether they are shares)."""


@dataclass(eq=False, kw_only=True)
class Drawn:
    """A figure, and what stands behind it."""

    name: str
    caption: str
    size: InitVar[tuple[float, float]] = (6.4, 3.9)
    """Width and height in inches."""
    figure: Figure = field(init=False)
    tips: dict[str, str] = field(default_factory=dict)
    """Mark's id -> what it says when pointed at."""
    curves: list[tuple[Axes, list[Series], bool]] = field(default_factory=list)

    def __post_init__(self, size: tuple[float, float]) -> None:
        self.figure = new_figure(*size)

    def tip(self, text: str) -> str:
        """An id for a mark that says this."""
        mark = f"{self.name}-tip-{len(self.tips)}"
        self.tips[mark] = text
        return mark

    def settle(self) -> None:
        """Lay it out once, for all its forms."""
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")

    def save(self, folder: Path, *, prefix: str = "") -> SavedFigure:
        """Write NAME.svg, NAME.pdf and NAME.png into a folder.

        prefix: of the page's ids, where it shows figures of the same name of several studies.
        """
        text = io.StringIO()
        with drawing():
            self.figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
            self.figure.savefig(folder / f"{self.name}.pdf", metadata={"CreationDate": None})
            self.figure.savefig(folder / f"{self.name}.png", dpi=144)
        (folder / f"{self.name}.svg").write_text(text.getvalue(), encoding="utf-8")
        svg = inline(text.getvalue(), f"{prefix}{self.name}", self.tips)
        panels = [self._panel(*curves) for curves in self.curves]
        return SavedFigure(name=self.name, caption=self.caption, svg=svg, tips=self.tips, panels=panels)

    def _panel(self, axes: Axes, series: list[Series], percent: bool) -> dict[str, Any]:
        width, height = (72 * side for side in self.figure.get_size_inches())
        box = axes.get_position()
        corner = (box.x0 * width, (1 - box.y1) * height, box.width * width, box.height * height)
        drawn = [asdict(each) for each in series]
        return {"box": corner, "span": axes.get_xlim(), "series": drawn, "percent": percent}


def inline(svg: str, name: str, tips: Mapping[str, str]) -> str:
    """An SVG file as a part of a page: its own ids, the page's inks, tips on its marks, no fixed size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg [^>]*?)\swidth="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)\sheight="[^"]*"', r"\1", svg, count=1)
    marks = set(tips)
    svg = re.sub(
        r'\bid="([^"]+)"', lambda m: f'data-tip="{m[1]}"' if m[1] in marks else f'id="{name}-{m[1]}"', svg
    )
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    for ink, own in _PAGE.items():
        svg = svg.replace(ink, own)
    return svg
