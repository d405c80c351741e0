"""A study so far as a picture: a dot a run, or a search over its trials. Pure functions of its cells."""

from __future__ import annotations

import itertools
import math
import os
import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagenette.results import METRICS
from imagenette.study.table import REFERENCE, References, done_rows, how_far

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from imagenette.study.queue import Row

_DRAWN = 150  # arms in a figure: more takes long to draw, and nobody reads it
_BLUE, _VERMILLION, _GREY = "#0072B2", "#D55E00", "#666666"  # Okabe and Ito: for colour-blind readers too


def write_figure(
    path: Path,
    *,
    title: str,
    objective: str,
    arms: Sequence[str],
    references: References,
    rows: Sequence[Row],
) -> None:
    """PNG, whole whenever it is there: a dot a run and a bar a mean for each arm; for a search (no `arms`)
    the objective over trials, with the best so far."""
    from matplotlib.figure import Figure  # here: whoever only counts cells need not wait for it

    said = how_far(rows, "cells" if arms else "trials")
    if len(arms) > _DRAWN:
        said += f"; the best {_DRAWN} of {len(arms)} arms"
        arms = _best(arms, rows)
    names, knob = _arm_names(arms)
    widest = max((len(line) for name in names for line in name.split("\n")), default=0)
    across = len(arms) > 12 or len(arms) * (widest + 2) > 110  # arms downwards, each a line of text
    height = 2.2 + len(arms) * (0.3 if len(arms) <= 60 else 0.15)
    figure = Figure(figsize=(9, max(height, 4.6) if across else 4.6), layout="constrained")
    axes = figure.subplots()
    if across:
        axes.set_yticks(range(len(arms)), [n.replace("\n", " ") for n in names], fontsize=9)
        axes.set_ylim(len(arms) - 0.4, -0.6)  # the first arm on top
        axes.set_ylabel(knob)
    elif arms:
        axes.set_xticks(range(len(arms)), names)
        axes.set_xlim(-0.6, len(arms) - 0.4)
        axes.set_xlabel(knob)
    if all(row.value is None for row in done_rows(rows)):
        axes.text(0.5, 0.5, "no finished cell yet", transform=axes.transAxes, ha="center", color=_GREY)
        (axes.xaxis if across else axes.yaxis).set_ticks([])
    else:
        if arms:
            _draw_arms(axes, arms, objective, references, rows, across=across)
        else:
            _draw_search(axes, objective, rows)
        _draw_scale(axes, across=across)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(said, loc="left", fontsize=9, color=_GREY)
    figure.suptitle("\n".join(textwrap.wrap(title, 80)), x=0.01, ha="left", fontweight="bold")
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    figure.savefig(beside, dpi=110, format="png")
    beside.replace(path)


def _best(arms: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """The arms with the highest mean of the objective, in the study's order."""
    held: dict[str, list[float]] = {}
    for row in done_rows(rows):
        if row.value is not None:
            held.setdefault(row.arm, []).append(row.value)
    ranked = sorted(arms, key=lambda arm: statistics.fmean(held[arm]) if arm in held else 0, reverse=True)
    kept = set(ranked[:_DRAWN])
    return [arm for arm in arms if arm in kept]


def _arm_names(arms: Sequence[str]) -> tuple[list[str], str]:
    """Arms that vary one knob are named by its value, and the knob names the axis."""
    knobs = {arm.partition("=")[0] for arm in arms}
    if len(knobs) == 1 and all(arm.count("=") == 1 for arm in arms):
        return [arm.partition("=")[2] for arm in arms], knobs.pop()
    return [arm.replace(" ", "\n") for arm in arms], ""


def _draw_arms(
    axes: Axes,
    arms: Sequence[str],
    objective: str,
    references: References,
    rows: Sequence[Row],
    *,
    across: bool,
) -> None:
    place = {arm: index for index, arm in enumerate(arms)}
    width = min(1.0, len(arms) / 5)  # two arms alone would have their marks far apart
    bar = {"marker": "|" if across else "_", "markersize": 10 if across else 14, "markeredgewidth": 2}

    def mark(points: Sequence[tuple[float, float]], **style: Any) -> None:
        xy = [tuple(reversed(point)) for point in points] if across else points
        axes.plot(*zip(*xy, strict=True), linestyle="none", **style)

    best = "best/test_accuracy"
    series = [(objective, "o", _BLUE), *[(best, "s", _VERMILLION)] * (objective != best)]
    for step, (metric, shape, colour) in enumerate(series):
        shift = width * (0.22 * step - 0.11 * (len(series) - 1))
        held: dict[str, list[float]] = {}
        for row in done_rows(rows):
            value = row.value if metric == objective else row.metrics.get(metric)
            if value is not None and row.arm in place:
                held.setdefault(row.arm, []).append(value)
        if not held:
            continue
        name = METRICS.get(metric, metric) + " (objective)" * (metric == objective)
        runs = [(place[arm] + shift, value) for arm, values in held.items() for value in values]
        mark(runs, color=colour, marker=shape, markersize=5.5, alpha=0.65, label=name)
        means = [(place[arm] + shift, statistics.fmean(values)) for arm, values in held.items()]
        mark(means, color=colour, **bar)
    mark([(math.nan, math.nan)], color=_GREY, label="mean of an arm", **bar)
    known = [(place[arm] + 0.3 * width, references.get(arm, {}).get(best)) for arm in arms]
    if published := [(x, value) for x, value in known if value is not None]:
        mark(published, color="black", marker="D", markersize=6, markerfacecolor="white", label=REFERENCE)


def _draw_search(axes: Axes, objective: str, rows: Sequence[Row]) -> None:
    done = [(row.position + 1, row.value) for row in done_rows(rows) if row.value is not None]
    trial, value = zip(*done, strict=True)
    best = list(itertools.accumulate(value, max))
    last = max(row.position + 1 for row in rows if row.ended)
    axes.step([*trial, last], [*best, best[-1]], where="post", color=_VERMILLION, label="best so far")
    axes.plot(trial, value, "o", color=_BLUE, markersize=5.5, alpha=0.75, label="finished trial")
    pruned = [row.position + 1 for row in rows if row.state == "pruned"]
    if pruned:  # what an early epoch gave is not the objective's value: they stand on the axis
        foot, across = [0.02] * len(pruned), axes.get_xaxis_transform()
        axes.plot(pruned, foot, "x", color=_GREY, transform=across, label="pruned (no value)")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{METRICS.get(objective, objective)}, %")
    axes.set_xlim(0, max(row.position for row in rows) + 2)


def _draw_scale(axes: Axes, *, across: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    values = axes.xaxis if across else axes.yaxis
    values.set_major_formatter(lambda share, _: f"{100 * share:.4g}")
    values.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 2.5, 5, 10]))
    if not values.get_label_text():
        values.set_label_text("accuracy, %")
    axes.grid(axis="x" if across else "y", color="#e5e5e5")
