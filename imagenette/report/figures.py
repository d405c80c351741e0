"""A study's figures by arm: accuracy, grid heat map, cost, optimism; and the champion's confusion matrix.
Pure functions of the study; each gives a Drawn, or None where it would show nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenette.report.conclusions import cut
from imagenette.report.curves import baseline_curves, test_curves, train_and_test_curves
from imagenette.report.runs import ACCURACIES, BEST, FINAL, SELECTED
from imagenette.report.study import Arm, Study
from imagenette.report.style import GRID, INK, Drawn, drawing, dress, legend, looks, new_figure, percent
from imagenette.stats import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from imagenette.report.reader import Champion

_ARMS = 40  # arms in a figure with a line for each
_SHAPES = {SELECTED: ("o", 0.0, "full"), FINAL: ("s", 0.2, "none"), BEST: ("^", -0.2, "none")}


NAMES = (
    *("accuracy", "grid", "test-curves", "train-test-curves", "baseline-curves", "cost", "optimism"),
    "champion-confusion",
)
"""All there can be."""


def draw_all(study: Study, champion: Champion | None = None) -> Iterator[Drawn]:
    """Every figure that has something to show, the most telling first."""
    makers: list[Callable[[Study], Drawn | None]] = [
        accuracy,
        heat_map,
        test_curves,
        train_and_test_curves,
        baseline_curves,
        cost,
        optimism,
    ]
    if champion is not None:
        makers.append(lambda _: confusion(champion))
    for make in makers:
        with drawing():
            drawn = make(study)
            if drawn is not None:
                drawn.settle()
        if drawn is not None:
            yield drawn


def accuracy(study: Study) -> Drawn | None:
    """The three accuracies of each arm, the one that arms are compared by with its interval; the reference
    beside it where that can be compared."""
    arms = [arm for arm in study.ranked if any(arm.shares(metric) for metric in ACCURACIES)][:_ARMS]
    if not arms:
        return None
    figure = new_figure(6.4, 1.5 + 0.52 * len(arms))
    drawn = Drawn(
        name="accuracy",
        caption=f"Accuracy by arm: a mark a mean; the bar is the 95 % interval ({ACCURACIES[study.metric]}), "
        f"a dot a run.{cut(study, arms)}",
        figure=figure,
    )
    axes, look = figure.subplots(), looks([arm.name for arm in study.arms])
    for place, arm in enumerate(arms):
        for metric, (marker, shift, fill) in _SHAPES.items():
            estimate = arm.estimate(metric)
            if estimate.mean is None:
                continue
            colour, y = look[arm.name].colour, place + shift
            said = f"{arm.name}: {100 * estimate.mean:.2f} % ({ACCURACIES[metric]}, n={estimate.n})"
            if metric == study.metric:
                _draw_spread(drawn, axes, arm.shares(metric), estimate.interval, y, colour, said)
            own = drawn.tip(said)
            axes.plot([estimate.mean], [y], marker, color=colour, markersize=7, fillstyle=fill, gid=own)
        value = arm.reference.get(BEST)
        if value is not None and not study.other_conditions:
            own = drawn.tip(f"{arm.name}: reference {100 * value:.2f} % (best epoch, one run)")
            axes.plot([value], [place], "D", color=INK, fillstyle="none", markersize=6, gid=own)
    _name_arms(axes, arms)
    percent(axes.xaxis)
    axes.set_xlabel("test accuracy, %")
    dress(axes, grid="x")
    used = [metric for metric in _SHAPES if any(arm.shares(metric) for arm in arms)]
    marks = [_mark(_SHAPES[m][0], _SHAPES[m][2], ACCURACIES[m].removeprefix("test, ")) for m in used]
    if any(BEST in arm.reference for arm in arms) and not study.other_conditions:
        marks.append(_mark("D", "none", "reference"))
    legend(figure, handles=marks, loc="outside upper left", ncols=4, handletextpad=0.2, columnspacing=1.2)
    return drawn


def _draw_spread(
    drawn: Drawn,
    axes: Axes,
    shares: Sequence[float],
    interval: Interval | None,
    y: float,
    colour: str,
    said: str,
) -> None:
    """The interval as a bar, each run as a dot."""
    if interval:
        own = drawn.tip(f"{said}, 95 % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]")
        ends = [max(0, interval.low), min(1, interval.high)]
        axes.plot(ends, [y, y], color=colour, linewidth=2, gid=own)
    if len(shares) > 1:
        axes.plot(shares, [y] * len(shares), ".", color=colour, markersize=6, alpha=0.6)


def optimism(study: Study) -> Drawn | None:
    """What choosing the epoch on the test set adds, run by run."""
    arms = [arm for arm in study.ranked if arm.optimism][:_ARMS]
    if not arms or study.chosen_on_test:
        return None
    figure = new_figure(6.4, 1.2 + 0.36 * len(arms))
    drawn = Drawn(
        name="optimism",
        caption="Optimism: how much higher the epoch that is best on the test set scores there than the "
        f"epoch selected on the holdout; a dot a run, a bar a mean.{cut(study, arms)}",
        figure=figure,
    )
    axes, look = figure.subplots(), looks([arm.name for arm in study.arms])
    for place, arm in enumerate(arms):
        colour = look[arm.name].colour
        for gain in arm.optimism:
            own = drawn.tip(f"{arm.name}: {100 * gain:+.2f} points")
            axes.plot([gain], [place], "o", color=colour, markersize=6, alpha=0.7, gid=own)
        mean = statistics.fmean(arm.optimism)
        axes.plot([mean], [place], "|", color=colour, markersize=16, markeredgewidth=2)
    _name_arms(axes, arms)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}")
    axes.set_xlabel("best on test minus selected on holdout, points")
    if not any(gain for arm in arms for gain in arm.optimism):
        axes.set_xlim(-0.005, 0.01)
    dress(axes, grid="x")
    return drawn


def cost(study: Study) -> Drawn | None:
    """Accuracy against the time of a run."""
    timed = [(arm, arm.mean("seconds")) for arm in study.ranked if arm.shares(study.metric)]
    known = [(arm, seconds) for arm, seconds in timed if seconds][:_ARMS]
    if len(known) < 2:
        return None
    figure = new_figure(6.4, 3.9)
    drawn = Drawn(
        name="cost",
        caption=f"Accuracy ({ACCURACIES[study.metric]}, 95 % interval) against the time of one run."
        f"{cut(study, [arm for arm, _ in known])}",
        figure=figure,
    )
    axes, look = figure.subplots(), looks([arm.name for arm in study.arms])
    times = [seconds for _, seconds in known]
    unit, per = ("hours", 3600) if max(times) > 3 * 3600 else ("minutes", 60)
    for arm, seconds in known:
        estimate, style = arm.estimate(study.metric), look[arm.name]
        assert estimate.mean is not None
        x = seconds / per
        if estimate.interval:
            ends = [max(0, estimate.interval.low), min(1, estimate.interval.high)]
            axes.plot([x, x], ends, color=style.colour)
        own = drawn.tip(f"{arm.name}: {100 * estimate.mean:.2f} %, {x:.3g} {unit}")
        label = study.short(arm)
        axes.plot([x], [estimate.mean], style.marker, color=style.colour, markersize=8, label=label, gid=own)
    if max(times) > 5 * min(times):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_xlim(0, 1.1 * max(times) / per)
    percent(axes.yaxis)
    axes.set_xlabel(f"{unit} a run")
    axes.set_ylabel("test accuracy, %")
    dress(axes)
    if len(known) <= 12:
        legend(figure, loc="outside right upper", title=study.knob)
    for arm, seconds in known if len(known) > 12 else ():
        mean = arm.estimate(study.metric).mean or 0.0
        axes.annotate(study.short(arm), (seconds / per, mean), (4, 3), textcoords="offset points", fontsize=6)
    return drawn


def heat_map(study: Study) -> Drawn | None:
    """Accuracy over the grid, where two knobs vary."""
    factors = {knob: values for knob, values in study.factors().items() if len(values) > 1}
    if len(factors) != 2 or study.search:
        return None
    (down, rows), (across, columns) = factors.items()
    if max(len(rows), len(columns)) > _ARMS:
        return None
    grid = {
        (rows.index(arm.values[down]), columns.index(arm.values[across])): arm
        for arm in study.arms
        if down in arm.values and across in arm.values
    }
    shares = np.full((len(rows), len(columns)), np.nan)
    for place, arm in grid.items():
        mean = arm.estimate(study.metric).mean
        shares[place] = np.nan if mean is None else mean
    if np.isnan(shares).all() or len(grid) < shares.size:
        return None
    figure = new_figure(max(5.0, 1.5 + 0.95 * len(columns)), max(3.0, 1.4 + 0.62 * len(rows)))
    drawn = Drawn(
        name="grid",
        caption=f"Accuracy ({ACCURACIES[study.metric]}, mean over seeds) by {down} and {across}.",
        figure=figure,
    )
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", aspect="auto")
    bright = np.nanmin(shares) + 0.6 * np.ptp(shares[~np.isnan(shares)])
    for (row, column), arm in grid.items():
        share = shares[row, column]
        if np.isnan(share):
            axes.text(column, row, "missing", ha="center", va="center", fontsize=9, color=INK)
            continue
        own = drawn.tip(f"{arm.name}: {100 * share:.2f} % (n={len(arm.shares(study.metric))})")
        _write(axes, column, row, f"{100 * share:.1f}", dark=share < bright, gid=own)
    axes.set_xticks(range(len(columns)), [str(value) for value in columns])
    axes.set_yticks(range(len(rows)), [str(value) for value in rows])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    dress(axes, grid=None)
    _colour_bar(drawn, image, axes, "test accuracy, %")
    return drawn


def confusion(champion: Champion) -> Drawn:
    """Counts, each row coloured by its share: recall stands on the diagonal."""
    counts, classes = champion.counts, champion.classes
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.52 * len(classes) + 2.2, 4.4, 11))
    figure = new_figure(side + 0.9, side)
    right, total = int(np.trace(counts)), int(counts.sum())
    drawn = Drawn(
        name="champion-confusion",
        caption=f"The champion (version {champion.version}, run {champion.run_id}, study {champion.study}): "
        f"{100 * right / max(total, 1):.2f} % of {total:,} test images right. Rows are true classes, columns "
        "what it said.",
        figure=figure,
    )
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for true, said in np.argwhere(counts) if len(classes) <= 25 else ():
        own = drawn.tip(f"{classes[true]} called {classes[said]}: {counts[true, said]} images")
        _write(axes, said, true, str(counts[true, said]), dark=shares[true, said] < 0.6, gid=own)
    dress(axes, grid=None)
    _colour_bar(drawn, image, axes, "share of the true class, %")
    return drawn


# -- parts ---------------------------------------------------------------------------------------------


def _name_arms(axes: Axes, arms: Sequence[Arm]) -> None:
    names = [arm.name if len(arm.name) < 40 else f"{arm.name[:38]}…" for arm in arms]
    axes.set_yticks(range(len(arms)), names)
    axes.set_ylim(len(arms) - 0.5, -0.5)  # the first on top


def _mark(marker: str, fill: Any, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, marker=marker, fillstyle=fill, linestyle="none", label=label)


def _write(axes: Axes, x: float, y: float, text: str, *, dark: bool, gid: str) -> None:
    """On a coloured ground."""
    ink = "#ffffff" if dark else "#000000"
    axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=ink, gid=gid)


def _colour_bar(drawn: Drawn, image: Any, axes: Axes, label: str) -> None:
    bar: Any = drawn.figure.colorbar(image, ax=axes, shrink=0.8)
    percent(bar.ax.yaxis)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=INK)
    bar.outline.set_edgecolor(GRID)
