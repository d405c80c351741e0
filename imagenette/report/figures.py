"""A study's figures by arm: accuracy, differences, grid heat map, cost, optimism; and the champion's
confusion matrix. Pure functions of the study; each gives a Drawn, or None where it would show nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from imagenette.drawing import (
    GREY,
    GRID,
    INK,
    PAPER,
    colour_bar,
    confusion_matrix,
    drawing,
    dress,
    legend,
    percent,
    write_on,
)
from imagenette.report.compare import compare
from imagenette.report.conclusions import cut, points
from imagenette.report.curves import baseline_curves, test_curves, train_and_test_curves
from imagenette.report.findings import front
from imagenette.report.study import Arm, Study
from imagenette.report.style import Drawn, looks
from imagenette.report.tables import difference
from imagenette.results import BEST, FINAL, METRICS, SELECTED, split_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from imagenette.report.reader import Champion

MOST_ARMS = 40  # arms in a figure with a line for each
_SHAPES = {SELECTED: ("o", 0.0, "full"), FINAL: ("s", 0.2, "none"), BEST: ("^", -0.2, "none")}


def accuracy(study: Study, *, so_far: bool = False) -> Drawn | None:
    """The accuracies of each arm, every run of the one that arms are compared by; the reference beside them
    where that can be compared.

    so_far: of a study under way, by its objective, without intervals.
    """
    shapes = _SHAPES if study.metric in _SHAPES else {study.metric: ("o", 0.0, "full"), BEST: _SHAPES[BEST]}
    arms = [arm for arm in study.ranked if any(arm.shares(metric) for metric in shapes)][:MOST_ARMS]
    if not arms:
        return None
    bar = f"; the bar is the 95 % interval ({METRICS[study.metric]})" if not so_far else ""
    drawn = Drawn(
        name="accuracy",
        caption=f"Accuracy by arm: a mark a mean{bar}, a dot a run.{cut(study, arms)}",
        size=(6.4, 1.5 + 0.52 * len(arms)),
    )
    axes, look = drawn.figure.subplots(), looks([arm.name for arm in study.arms])
    for place, arm in enumerate(arms):
        for metric, (marker, shift, fill) in shapes.items():
            estimate, shares = arm.estimate(metric), arm.shares(metric)
            if estimate.mean is None:
                continue
            colour, y = look[arm.name].colour, place + shift
            words = f"{arm.name}: {100 * estimate.mean:.2f} % ({METRICS[metric]}, n={estimate.n})"
            if metric == study.metric and not so_far and (interval := estimate.interval):
                own = drawn.tip(f"{words}, 95 % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]")
                axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2, gid=own)
            if metric == study.metric and len(shares) > 1:
                axes.plot(shares, [y] * len(shares), ".", color=colour, markersize=6, alpha=0.6)
            own = drawn.tip(words)
            axes.plot([estimate.mean], [y], marker, color=colour, markersize=7, fillstyle=fill, gid=own)
        value = arm.reference.get(BEST)
        if value is not None and not study.other_conditions:
            own = drawn.tip(f"{arm.name}: reference {100 * value:.2f} % (best epoch, one run)")
            axes.plot([value], [place], "D", color=INK, fillstyle="none", markersize=6, gid=own)
    _name_arms(axes, arms)
    percent(axes.xaxis)
    of_test = all(split_of(metric) == "test" for metric in shapes)
    axes.set_xlabel("test accuracy, %" if of_test else "accuracy, %")
    dress(axes, grid="x")
    marks = []
    for metric, (marker, _, fill) in shapes.items():
        if any(arm.shares(metric) for arm in arms):
            words = METRICS[metric].removeprefix("test, ") if of_test else METRICS[metric]
            marks.append(_mark(marker, fill, words + " (objective)" * (so_far and metric == study.metric)))
    if any(BEST in arm.reference for arm in arms) and not study.other_conditions:
        marks.append(_mark("D", "none", "reference, best epoch"))
    loc = "outside lower left" if so_far else "outside upper left"
    legend(drawn.figure, handles=marks, loc=loc, ncols=4, handletextpad=0.2, columnspacing=1.2)
    return drawn


def differences(study: Study) -> Drawn | None:
    """A forest plot: each arm minus the baseline with its interval, and the band of the study's margin."""
    found = [each for each in compare(study) if each.interval][:MOST_ARMS] if study.baseline else []
    if not found or study.search:
        return None
    base, margin = found[0].baseline, study.margin
    band = f"; the band is the margin of {points(margin, exact=True)}" if margin else ""
    shown = [arm for arm in study.arms if arm.name in {each.arm for each in found} | {base}]
    drawn = Drawn(
        name="differences",
        caption=f"Each arm minus {base} ({METRICS[study.metric]}): the mean and its 95 % interval, for new "
        f"seeds and images{band}. Filled: better or worse after the correction; a square: practically equal."
        f"{cut(study, shown)}",
        size=(6.4, 1.3 + 0.4 * len(found)),
    )
    axes, look = drawn.figure.subplots(), looks([arm.name for arm in study.arms])
    if margin:
        axes.axvspan(-margin, margin, color=GRID, linewidth=0)
    axes.axvline(0, color=INK, linewidth=0.8)
    for place, each in enumerate(found):
        assert each.interval is not None
        colour, (low, high) = look[each.arm].colour, (each.interval.low, each.interval.high)
        text = (
            f"{each.arm}: {100 * each.value:+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}], {each.words}"
        )
        axes.plot([low, high], [place, place], color=colour, linewidth=2, gid=drawn.tip(text))
        marker, fill = ("s" if each.verdict == "equal" else "o"), each.real
        axes.plot(
            [each.value],
            [place],
            marker,
            color=colour,
            markersize=8,
            markerfacecolor=colour if fill else PAPER,
            gid=drawn.tip(text),
        )
    _name_arms(axes, [arm for arm in shown if arm.name != base])
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(found)), [str(difference(each.value, each.interval)) for each in found])
    beside.tick_params(colors=INK, labelsize=9, length=0)
    beside.spines[:].set_visible(False)
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:+.3g}" if share else "0")
    axes.set_xlabel(f"points above {base}" if len(base) < 40 else "points above the baseline")
    dress(axes, grid="x")
    return drawn


def optimism(study: Study) -> Drawn | None:
    """What choosing the epoch on the test set adds, run by run."""
    arms = [arm for arm in study.ranked if arm.optimism][:MOST_ARMS]
    if not arms or study.chosen_on_test:
        return None
    drawn = Drawn(
        name="optimism",
        caption="Optimism: how much higher the epoch that is best on the test set scores there than the "
        f"epoch selected on the holdout; a dot a run, a bar a mean.{cut(study, arms)}",
        size=(6.4, 1.2 + 0.36 * len(arms)),
    )
    axes, look = drawn.figure.subplots(), looks([arm.name for arm in study.arms])
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
    known = [(arm, seconds) for arm, seconds in timed if seconds][:MOST_ARMS]
    if len(known) < 2:
        return None
    drawn = Drawn(
        name="cost",
        caption=f"Accuracy ({METRICS[study.metric]}, 95 % interval) against the time of one run."
        f"{cut(study, [arm for arm, _ in known])}",
    )
    axes, look = drawn.figure.subplots(), looks([arm.name for arm in study.arms])
    times = [seconds for _, seconds in known]
    unit, per = ("hours", 3600) if max(times) > 3 * 3600 else ("minutes", 60)
    for arm, seconds in known:
        estimate, style = arm.estimate(study.metric), look[arm.name]
        assert estimate.mean is not None
        x = seconds / per
        if span := estimate.interval:
            axes.plot([x, x], [span.low, span.high], color=style.colour)
        own = drawn.tip(f"{arm.name}: {100 * estimate.mean:.2f} %, {x:.3g} {unit}")
        label = study.short(arm)
        axes.plot([x], [estimate.mean], style.marker, color=style.colour, markersize=8, label=label, gid=own)
    if best := front(study):
        means = {arm.name: (seconds / per, arm.estimate(study.metric).mean or 0.0) for arm, seconds in known}
        axes.step(
            *zip(*(means[name] for name in best if name in means), strict=True), where="post", color=GREY
        )
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
        legend(drawn.figure, loc="outside right upper", title=study.knob)
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
    if max(len(rows), len(columns)) > MOST_ARMS:
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
    drawn = Drawn(
        name="grid",
        caption=f"Accuracy ({METRICS[study.metric]}, mean over seeds) by {down} and {across}.",
        size=(max(5.0, 1.5 + 0.95 * len(columns)), max(3.0, 1.4 + 0.62 * len(rows))),
    )
    axes = drawn.figure.subplots()
    image = axes.imshow(shares, cmap="viridis", aspect="auto")
    for (row, column), arm in grid.items():
        share = shares[row, column]
        if np.isnan(share):
            axes.text(column, row, "missing", ha="center", va="center", fontsize=9, color=INK)
            continue
        own = drawn.tip(f"{arm.name}: {100 * share:.2f} % (n={len(arm.shares(study.metric))})")
        write_on(image, column, row, f"{100 * share:.1f}", gid=own)
    axes.set_xticks(range(len(columns)), [str(value) for value in columns])
    axes.set_yticks(range(len(rows)), [str(value) for value in rows])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    dress(axes, grid=None)
    colour_bar(drawn.figure, image, axes, "test accuracy, %")
    return drawn


def confusion(champion: Champion) -> Drawn:
    """Which classes the champion takes for which."""
    counts, classes = champion.counts, champion.classes
    right, total = int(np.trace(counts)), int(counts.sum())
    drawn = Drawn(
        name="champion-confusion",
        caption=f"The champion (version {champion.version}, run {champion.run_id}, study {champion.study}): "
        f"{100 * right / max(total, 1):.2f} % of {total:,} test images right. Rows are true classes, columns "
        "what it said.",
    )

    def mark(true: int, predicted: int) -> str:
        return drawn.tip(f"{classes[true]} called {classes[predicted]}: {counts[true, predicted]} images")

    confusion_matrix(drawn.figure, counts, classes, colours="viridis", mark=mark)
    return drawn


MAKERS: dict[str, Callable[[Study], Drawn | None]] = {
    "accuracy": accuracy,
    "differences": differences,
    "grid": heat_map,
    "test-curves": test_curves,
    "train-test-curves": train_and_test_curves,
    "baseline-curves": baseline_curves,
    "cost": cost,
    "optimism": optimism,
}
"""Name -> what draws the figure, the most telling first."""
NAMES = (*MAKERS, "champion-confusion")
"""All the figures that there can be."""


def draw_all(study: Study, champion: Champion | None = None) -> Iterator[Drawn]:
    """Every figure that has something to show."""
    makers = list(MAKERS.values())
    if champion is not None:
        makers.append(lambda _: confusion(champion))
    for make in makers:
        with drawing():
            drawn = make(study)
            if drawn is not None:
                drawn.settle()
        if drawn is not None:
            yield drawn


# -- parts ---------------------------------------------------------------------------------------------


def _name_arms(axes: Axes, arms: Sequence[Arm]) -> None:
    names = [arm.name if len(arm.name) < 40 else f"{arm.name[:38]}…" for arm in arms]
    axes.set_yticks(range(len(arms)), names)
    axes.set_ylim(len(arms) - 0.5, -0.5)  # the first on top


def _mark(marker: str, fill: Any, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=INK, marker=marker, fillstyle=fill, linestyle="none", label=label)
